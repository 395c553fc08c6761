"""The archive of a run: the collection that some searches keep beside the champion, and choosing from it.

A Pareto front, or the best of each complexity. `archive.json` holds it, scored on whatever the search has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evoquant.campaign.evaluate import score_genomes
from evoquant.campaign.finals import figures, size_figures
from evoquant.campaign.limit_figures import cost_figures
from evoquant.campaign.storage import ARCHIVE
from evoquant.errors import ProfileError, RunDirError, describe_validation, quoted
from evoquant.genomes.base import digest_of
from evoquant.scoring.hypervolume import hypervolume, hypervolume_share
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


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, defer_build=True)


class _Cost(_Strict):
    unit: str
    most: int
    text: str


class _Figures(_Strict):
    """What choosing and the table read; there may be more."""

    fitness: float
    retention: float
    compression: float
    effective_bits: float
    costs: dict[str, _Cost] = {}


class _Entry(_Strict):
    genome: dict[str, Any]
    text: str
    digest: str
    parts: int
    scores: dict[str, _Figures]


class _Hypervolume(_Strict):
    bits: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.0, 32.0]
    objectives: list[str] = []
    floor: float
    value: float
    share: float = 0.0


class _ArchiveSchema(_Strict):
    of: int
    objectives: list[str] = []
    entries: Annotated[list[_Entry], Field(min_length=1)]
    hypervolume: _Hypervolume | None = None

    @model_validator(mode="after")
    def _one_split(self) -> _ArchiveSchema:
        first = self.entries[0].scores.keys()
        if first.isdisjoint(CHOOSING_SPLITS) or any(entry.scores.keys() != first for entry in self.entries):
            raise ValueError(f"entries should all have scores of the same splits, one of {', '.join(CHOOSING_SPLITS)}")
        for name in set(self.objectives) - {"retention"}:
            if any(name not in scores.costs for entry in self.entries for scores in entry.scores.values()):
                raise ValueError(f"entries should all say what they cost in {quoted(name)}, one of the objectives")
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
    entries: list[dict[str, Any]] = [
        {
            "genome": genome.to_dict(),
            "text": genome.text,
            "digest": digest_of(genome),
            "parts": genome.parts,
            "scores": {
                split: figures(scores, i, aggregate, per_model=False) | _sizes(genome, campaign.problems[split])
                for split, scores in scored.items()
            },
        }
        for i, genome in enumerate(genomes)
        if not any(np.isnan(scores.fitness[i]) for scores in scored.values())  # could not be measured again
    ]
    if not entries:
        return None
    data: dict[str, Any] = {"of": len(rows), "entries": entries}
    axes = tuple(getattr(campaign.config.search, "objectives", None) or ())
    split = "calibration" if campaign.measured else "train"
    problem = campaign.problems[split][0]
    if axes:
        data["objectives"] = list(axes)
    own = problem.own_cost or campaign.config.estimator is not None  # no front is known, or no bits
    if axes and len(campaign.problems[split]) == 1:
        data["hypervolume"] = _volume(problem, axes, [entry["scores"][split] for entry in entries])
    elif axes:
        return data
    elif "train" in scored and len(campaign.problems["train"]) == 1 and not own:
        data["hypervolume"] = _hypervolume(campaign.problems["train"][0], scored["train"])
    return data


def _sizes(genome: Genome, problems: tuple[Problem, ...]) -> dict[str, Any]:
    """What it costs by every table, and the bits per weight that it takes where something else is counted."""
    allocations = [genome.allocate(problem) for problem in problems]
    found = size_figures(allocations, problems)
    return {key: found[key] for key in ("effective_bits",) if key in found} | cost_figures(allocations, problems)


def _volume(problem: Problem, axes: Sequence[str], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of the box of retention above `FLOOR` and the FP32 costs that the entries dominate."""
    counted = {"bits": problem.bits, "cost": problem.cost, **problem.costs}
    names = [name for name in axes if name != "retention"]
    costs = [[one["costs"][name]["most"] / counted[name].reference for name in names] for one in scores]
    retention = np.array([one["retention"] for one in scores])
    value = hypervolume_share(np.array(costs, dtype=np.float64), retention, floor=FLOOR)
    return {"objectives": ["retention", *names], "floor": FLOOR, "value": value}


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
