"""The archive of a search over named objectives, as points for figures: each cost beside retention, and both costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.campaign.archive import choosing_split
from evoquant.scoring.quantity import amount_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.report.data import RunData

RETENTION = "retention"


@dataclass(frozen=True, eq=False)
class ArchivePoints:
    """What the search kept; read-only arrays.

    Attributes:
        axes: `retention`, then the costs, as names with their units: `latency (ms)`.
        values: `(entries, axes)`.
        texts: of the entries.
        split: what they were scored on.
        of: how many there are, of which these are an even selection.
        champion: the champion's values on the split, None while there is none or where they are not known.
    """

    axes: tuple[str, ...]
    values: NDArray[np.float64]
    texts: tuple[str, ...]
    split: str
    of: int
    champion: NDArray[np.float64] | None = None

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Axes of the projections, across and up: each cost beside retention, then one cost beside the other."""
        costs = range(1, len(self.axes))
        beside = [(place, 0) for place in costs]
        return (*beside, (1, 2)) if len(self.axes) == 3 else tuple(beside)


def archive_points(run: RunData) -> ArchivePoints | None:
    """The archive's points; None where the search named no objectives, or kept nothing."""
    archive = run.archive
    if archive is None or not archive.get("objectives"):
        return None
    split = choosing_split(archive)
    names = [name for name in archive["objectives"] if name != RETENTION]
    scores = [entry["scores"][split] for entry in archive["entries"]]
    columns, axes = [np.array([one["retention"] for one in scores])], [RETENTION]
    own = [] if run.champion is None else [run.champion.scores.get(split, {})]
    places: list[float] = [own[0]["retention"]] if own and own[0] else []
    for name in names:
        amounts = np.array([one["costs"][name]["most"] for one in scores], dtype=np.float64)
        factor, unit = amount_scale(float(np.median(amounts)), str(scores[0]["costs"][name]["unit"]))
        columns.append(amounts / factor)
        axes.append(f"{name} ({unit})" if unit != name else name)
        costs = own[0].get("costs", {}) if own else {}
        if name in costs:
            places.append(costs[name]["most"] / factor)
    values = np.stack(columns, axis=1)
    values.setflags(write=False)
    champion = np.array(places) if len(places) == len(axes) else None
    texts = tuple(str(entry["text"]) for entry in archive["entries"])
    return ArchivePoints(tuple(axes), values, texts, split, int(archive["of"]), champion)
