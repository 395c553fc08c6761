"""The archive of a run: the collection that some searches keep beside the champion, and choosing from it.

A Pareto front, or the best of each complexity. `archive.json` holds it, scored on whatever the search has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evoquant.campaign.champion import Champion, written_genome
from evoquant.campaign.evaluate import score_genomes
from evoquant.campaign.finals import figures, size_figures
from evoquant.campaign.storage import ARCHIVE
from evoquant.errors import ProfileError, RunDirError, describe_validation
from evoquant.genomes.base import digest_of
from evoquant.scoring.hypervolume import hypervolume
from evoquant.search.base import Archiving

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.campaign.build import Campaign
    from evoquant.campaign.storage import RunDir
    from evoquant.genomes.base import Genome
    from evoquant.scoring.objective import Scores
    from evoquant.scoring.problem import Problem

LARGEST = 1000  # entries written; of more, so many at equal distances in the search's own order
BITS, FLOOR = (2.0, 32.0), 0.90  # the box of hypervolumes
CHOOSING_SPLITS = ("valid", "train", "calibration")


@dataclass(frozen=True)
class Limits:
    """What a user asks of an entry; None asks nothing.

    Attributes:
        parts: at most so many parts.
        bits: at most so many effective bits per weight (mean over the models).
        retention: at least this retention (mean over the models).
    """

    parts: int | None = None
    bits: float | None = None
    retention: float | None = None

    def accept(self, parts: int, scores: Mapping[str, float]) -> bool:
        """Whether an entry keeps all of them."""
        return (
            (self.parts is None or parts <= self.parts)
            and (self.bits is None or scores["effective_bits"] <= self.bits)
            and (self.retention is None or scores["retention"] >= self.retention)
        )

    @property
    def text(self) -> str:
        """For messages: `at most 3 parts, at least 97% retention`."""
        said = [
            "" if self.parts is None else f"at most {self.parts} parts",
            "" if self.bits is None else f"at most {self.bits:g} bits per weight",
            "" if self.retention is None else f"at least {self.retention:.4g} retention",
        ]
        return ", ".join(word for word in said if word) or "no limit"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, defer_build=True)


class _Figures(_Strict):
    """What choosing and the table read; there may be more."""

    fitness: float
    retention: float
    compression: float
    effective_bits: float


class _Entry(_Strict):
    genome: dict[str, Any]
    text: str
    digest: str
    parts: int
    scores: dict[str, _Figures]


class _Hypervolume(_Strict):
    bits: Annotated[list[float], Field(min_length=2, max_length=2)]
    floor: float
    value: float
    share: float = 0.0


class _ArchiveSchema(_Strict):
    of: int
    entries: Annotated[list[_Entry], Field(min_length=1)]
    hypervolume: _Hypervolume | None = None

    @model_validator(mode="after")
    def _one_split(self) -> _ArchiveSchema:
        first = self.entries[0].scores.keys()
        if first.isdisjoint(CHOOSING_SPLITS) or any(entry.scores.keys() != first for entry in self.entries):
            raise ValueError(f"entries should all have scores of the same splits, one of {', '.join(CHOOSING_SPLITS)}")
        return self


def archive_data(campaign: Campaign) -> dict[str, Any] | None:
    """What `archive.json` holds, or None where the search keeps no archive or an empty one."""
    search, space = campaign.search, campaign.space
    if space is None or not isinstance(search, Archiving):
        return None
    rows = search.archive()
    if len(rows) == 0:
        return None
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), LARGEST)).round().astype(np.intp))
    genomes = [space.decode(row) for row in rows[chosen]]
    scored = {split: _scores(campaign, split, genomes) for split in _splits(campaign)}
    aggregate = campaign.config.aggregate
    entries = [
        {
            "genome": genome.to_dict(),
            "text": genome.text,
            "digest": digest_of(genome),
            "parts": genome.parts,
            "scores": {
                split: figures(scores, i, aggregate, per_model=False) | _bits(genome, campaign.problems[split])
                for split, scores in scored.items()
            },
        }
        for i, genome in enumerate(genomes)
        if not any(np.isnan(scores.fitness[i]) for scores in scored.values())  # could not be measured again
    ]
    if not entries:
        return None
    data: dict[str, Any] = {"of": len(rows), "entries": entries}
    own = campaign.config.cost is not None or campaign.config.estimator is not None  # no front is known, or no bits
    if "train" in scored and len(campaign.problems["train"]) == 1 and not own:
        data["hypervolume"] = _hypervolume(campaign.problems["train"][0], scored["train"])
    return data


def _bits(genome: Genome, problems: tuple[Problem, ...]) -> dict[str, float]:
    """The bits per weight that it takes, where something else is counted."""
    found = size_figures([genome.allocate(problem) for problem in problems], problems)
    return {key: found[key] for key in ("effective_bits",) if key in found}


def _hypervolume(problem: Problem, scores: Scores) -> dict[str, Any]:
    """Area that the entries dominate in bits × retention, within `BITS` and above `FLOOR`, beside the exact front's.

    Where nothing lies in that box, as on a menu of FP32 alone, there is nothing to hold it against.
    """
    from evoquant.bounds.front import pareto_front

    found = hypervolume(scores.effective_bits[:, 0], scores.retention[:, 0], bits=BITS, floor=FLOOR)
    data: dict[str, Any] = {"bits": list(BITS), "floor": FLOOR, "value": found}
    try:
        front = pareto_front(problem, at_least=FLOOR)
    except ProfileError:  # no allocation of this menu has so much retention
        return data
    best = hypervolume(front.effective_bits, front.retention, bits=BITS, floor=FLOOR)
    if front.exact and best > 0:
        data |= {"exact_front": best, "share": found / best, "exact_points": len(front)}
    return data


def read_archive(run: RunDir) -> dict[str, Any] | None:
    """The archive of a run directory, or None where it has none.

    Raises:
        RunDirError: the file is damaged; the message names the key.
    """
    if not run.has(ARCHIVE):
        return None
    data = run.read(ARCHIVE)
    try:
        _ArchiveSchema.model_validate(data)
    except ValidationError as error:
        raise RunDirError(describe_validation(error, str(run.path / ARCHIVE))) from None
    checked: dict[str, Any] = data
    return checked


def choosing_split(archive: Mapping[str, Any]) -> str:
    """The split by which entries are chosen: valid models where there are any, else what the search has seen."""
    scores = archive["entries"][0]["scores"]
    return next(split for split in CHOOSING_SPLITS if split in scores)


def pick(run: RunDir, champion: Champion, limits: Limits) -> Champion:
    """The fittest entry of a run's archive within limits, as a champion; of equals the one with fewer parts.

    Raises:
        RunDirError: the run has no archive, or nothing in it keeps the limits; the message says what would.
    """
    archive = read_archive(run)
    if archive is None:
        raise RunDirError(
            f"{run.path}: this search kept no archive to pick from; map_elites (by complexity) and nsga2 (a Pareto "
            f"front) do. The champion is in champion.json."
        )
    split = choosing_split(archive)
    entries: Sequence[dict[str, Any]] = archive["entries"]
    fit = [entry for entry in entries if limits.accept(entry["parts"], entry["scores"][split])]
    if not fit:
        parts = min(entry["parts"] for entry in entries)
        bits = min(entry["scores"][split]["effective_bits"] for entry in entries)
        retention = max(entry["scores"][split]["retention"] for entry in entries)
        raise RunDirError(
            f"{run.path}: none of the {len(entries)} entries keeps {limits.text}; there are parts from {parts}, bits "
            f"per weight from {bits:.3f}, retention up to {retention:.2%}."
        )
    best = min(fit, key=lambda entry: (-entry["scores"][split]["fitness"], entry["parts"], entry["digest"]))
    kept = ("campaign", "config_hash", "seed", "menu", "objective", "own", "inputs", "evoquant")
    provenance = {key: champion.provenance[key] for key in kept if key in champion.provenance}
    genome = written_genome(best["genome"], best["text"], provenance, str(run.path / ARCHIVE))
    return Champion(genome, best["scores"], {**provenance, "picked": limits.text})


def _splits(campaign: Campaign) -> tuple[str, ...]:
    if campaign.measured:
        return ("calibration",)
    return tuple(split for split in ("train", "valid") if campaign.problems[split])


def _scores(campaign: Campaign, split: str, genomes: Sequence[Genome]) -> Scores:
    if campaign.measurer is not None:
        from evoquant.campaign.measure import measure_genomes

        (problem,) = campaign.problems["calibration"]
        return measure_genomes(genomes, problem, campaign.measurer, "calibration", campaign.objective)[0]
    aggregate = campaign.config.aggregate
    return score_genomes(genomes, campaign.problems[split], campaign.objective, aggregate, model=campaign.model)
