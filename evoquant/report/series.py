"""What the figures of a run show, as plain arrays: plotly's page and matplotlib's plots draw the same numbers.

run_series(run) → RunSeries, with the journal parsed once; the other functions give one part of it each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.report.counted import Counted
from evoquant.report.gate import shown_rivals
from evoquant.report.series_archive import ArchivePoints, archive_points
from evoquant.report.series_layers import LayerStrip, Mark, Size, marks_of, pair_of, size_of, strip_of
from evoquant.report.series_model import Goal, goal_of, subject_of
from evoquant.report.series_points import Points
from evoquant.report.series_scan import Bands, Breakthrough, Curve, bands, scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.report.data import RunData
    from evoquant.report.series_model import Subject

__all__ = [
    "Bands",
    "Breakthrough",
    "Curve",
    "FrontLine",
    "GateRow",
    "Goal",
    "LayerStrip",
    "Mark",
    "Points",
    "RunSeries",
    "Size",
    "bands",
    "fitness_curve",
    "front_points",
    "gate_rows",
    "layer_strip",
    "marks",
    "population_points",
    "run_series",
]

FRONT_MEMORY, FRONT_WORK = 2**28, 2**26  # seconds at the most; a front that needs more is thinned, with its ε
FRONT_POINTS = 2000  # of a front that figures show


@dataclass(frozen=True, eq=False)
class FrontLine:
    """The Pareto front of the separable problem of the searched model; read-only arrays, from narrow to wide.

    Attributes:
        retention, compression, effective_bits: `(n,)`.
        size_bytes: `(n,)` of the model, scales and what no width applies to included.
        exact: whether no allocation beats these points.
        epsilon: else how much more retention one could have at most.
        estimate: whether the separable retention only estimates what the run measures on a real network.
        rough: whether the network's divergences stand in for losses that nobody has measured, which is rougher still.
        model: whose front it is, in words.
        of: points of the front, of which these are an even selection.
    """

    retention: NDArray[np.float64]
    compression: NDArray[np.float64]
    effective_bits: NDArray[np.float64]
    size_bytes: NDArray[np.float64]
    exact: bool
    epsilon: float
    estimate: bool
    rough: bool
    model: str
    of: int

    def __len__(self) -> int:
        return len(self.retention)

    @property
    def label(self) -> str:
        """`exact front`, `front (within 0.001)`, `front of the separable estimate`, `rough front, by divergence`."""
        if self.rough:
            return "rough front, by divergence"
        if self.estimate:
            return "front of the separable estimate"
        return "exact front" if self.exact else f"front (within {self.epsilon:.2g})"


@dataclass(frozen=True)
class GateRow:
    """One allocation in the gate's comparison.

    Attributes:
        name, kind: of the allocation; of those drawn blindly the best of each kind stands for all.
        fitness, retention, compression, effective_bits: on the gate's data.
        lead: the champion's fitness minus this one's; 0 for the champion.
        interval: of the lead, 95%; None for the champion.
        verdict: `ahead` (the champion beats it), `behind`, `tie`; empty for the champion.
        recommended: whether the gate recommends it.
    """

    name: str
    kind: str
    fitness: float
    retention: float
    compression: float
    effective_bits: float
    lead: float
    interval: tuple[float, float] | None
    verdict: str
    recommended: bool


@dataclass(frozen=True, eq=False)
class RunSeries:
    """All that a run's figures show.

    Attributes:
        curve: fitness by generation.
        points: the population as retention and compression; None where the run directory lacks what it takes.
        front: None where no front of the searched model is known.
        marks: the champion first, then uniform widths.
        strip: the layers under the champion; None where the run directory lacks the model or has no champion yet.
        size: of the model, in bytes; None like `strip`.
        goal: what the objective asks for.
        gate: champion and rivals; empty where there was no gate.
        archive: of a search over named objectives.
        counted: what compression is of; None for bits.
    """

    curve: Curve
    points: Points | None
    front: FrontLine | None
    marks: tuple[Mark, ...]
    strip: LayerStrip | None
    size: Size | None
    goal: Goal
    gate: tuple[GateRow, ...]
    archive: ArchivePoints | None = None
    counted: Counted | None = None


def run_series(run: RunData) -> RunSeries:
    """All series of a run, finished or not; the journal is parsed once.

    Raises:
        RunDirError: no generation is finished yet, or the journal was changed.
        InputError: a profile that the run searched is not there any more, or was changed since.
    """
    subject = subject_of(run)
    curve, points = scan(run, subject)
    archive = archive_points(run)
    flat = archive is None or len(archive.axes) == 2  # the exact front is of retention and size alone
    return RunSeries(
        curve,
        points,
        _front(subject) if flat else None,
        marks_of(run, subject),
        strip_of(run, subject),
        size_of(run, subject),
        goal_of(run, subject),
        gate_rows(run.gate),
        archive,
        counted=None if subject is None else subject.counted,
    )


def fitness_curve(run: RunData) -> Curve:
    """Fitness by generation, with the breakthroughs; raises as `run_series`."""
    return scan(run, None)[0]


def population_points(run: RunData) -> Points | None:
    """The population as points of retention and compression; raises as `run_series`."""
    return scan(run, subject_of(run))[1]


def front_points(run: RunData) -> FrontLine | None:
    """The front of the separable problem of the first searched model; raises as `run_series`.

    None where the model is not known, or has none of the signals that estimate retention for every width.
    """
    return _front(subject_of(run))


def marks(run: RunData) -> tuple[Mark, ...]:
    """The champion, then uniform widths, as points of retention and compression; raises as `run_series`."""
    return marks_of(run, subject_of(run))


def layer_strip(run: RunData, model: str | None = None) -> LayerStrip | None:
    """The layers of the searched model under the champion; raises as `run_series`.

    Args:
        run: finished or not.
        model: another one of the run's models, by its name in the config, such as its first test model.
    """
    return strip_of(run, subject_of(run, model))


def gate_rows(gate: Mapping[str, Any] | None) -> tuple[GateRow, ...]:
    """The champion and its rivals, those of which all are drawn blindly by the best of each kind."""
    if gate is None:
        return ()
    chosen = gate["recommended"]["name"]
    rows = []
    for row in (gate["champion"], *shown_rivals(gate)):
        rows.append(
            GateRow(
                name=row["name"],
                kind=row["kind"],
                fitness=float(row["fitness"]),
                retention=float(row["retention"]),
                compression=float(row["compression"]),
                effective_bits=float(row["effective_bits"]),
                lead=float(row.get("difference", 0.0)),
                interval=pair_of(row.get("interval")),
                verdict=row.get("verdict", ""),
                recommended=row["name"] == chosen,
            )
        )
    return tuple(rows)


def _front(subject: Subject | None) -> FrontLine | None:
    from evoquant.bounds.front import pareto_front

    if subject is None or subject.scored is None:
        return None
    try:
        front = pareto_front(subject.scored, memory=FRONT_MEMORY, work=FRONT_WORK)
    except InputError:
        return None
    kept = np.unique(np.linspace(0, len(front) - 1, min(len(front), FRONT_POINTS)).round().astype(np.intp))
    cost = front.cost[kept].astype(np.float64)
    arrays = (front.retention[kept], front.compression[kept], front.effective_bits[kept], subject.bytes_of(cost))
    for array in arrays:
        array.setflags(write=False)
    return FrontLine(
        *arrays, front.exact, front.epsilon, subject.measured, subject.problem.loss is None, subject.label, len(front)
    )
