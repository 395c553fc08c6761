"""What a champion is explained on: the model that it was searched on, the others of its run, and what scores them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build import deployed_profile, make_objective, searched_profile
from evoquant.campaign.build_scoring import compiled
from evoquant.campaign.config import ModelsConfig, ReplayConfig
from evoquant.campaign.in_memory import missing_parts
from evoquant.campaign.located import input_name
from evoquant.campaign.storage import PROFILE
from evoquant.errors import InputError, ProfileError, RunDirError
from evoquant.genomes.load import genome_from_dict
from evoquant.profiles.model import load_profile
from evoquant.scoring.divergence import divergence_problem
from evoquant.scoring.objective import retention_floor, score
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import all_cost_sums, loss_sums, retention_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.config import CampaignConfig
    from evoquant.genomes.base import Genome
    from evoquant.report.data import RunData
    from evoquant.scoring.objective import Objective, Scores
    from evoquant.scoring.problem import Problem

LARGEST_EXPONENT = 700.0
AGREEING = ("agreement", "cosine")  # metrics of which the FP32 outputs have 1
CHUNK = 2**22  # entries of allocations that are scored at once


@dataclass(frozen=True, eq=False)
class Model:
    """One model, with what scores allocations of it.

    Attributes:
        label: its split (`train`, `valid`, …), or for a network `calibration`.
        problem: as genomes read it.
        table: the same with the losses that are summed, see `estimate`.
        objective: of the campaign.
        estimate: what is summed: `loss`, `divergence`, `expected_loss` or `fisher`.
        offset: nats added to every sum, so that the champion has the retention that was measured; 0 for profiles.
        most: retention that there can be: 1 of agreement with the FP32 outputs, whatever an estimate comes to.
    """

    label: str
    problem: Problem
    table: Problem
    objective: Objective
    estimate: str = "loss"
    offset: float = 0.0
    most: float = math.inf

    def scores(self, allocations: NDArray[np.int8]) -> Scores:
        """Scores of `(n, units)` allocations."""
        rows = max(1, CHUNK // max(1, allocations.shape[1]))
        parts = [allocations[start : start + rows] for start in range(0, len(allocations), rows)]
        losses = [loss_sums(self.table, part) for part in parts]
        costs = [all_cost_sums(self.table, part) for part in parts]
        return self.scores_of(np.concatenate(losses), np.concatenate(costs))

    def scores_of(self, losses: NDArray[np.int64], costs: NDArray[np.int64]) -> Scores:
        """Scores of `(n,)` summed losses and costs, the constant part included; of several costs `(n, 1 + k)`."""
        retention = retention_of(losses)
        if self.offset:  # one exponent: apart, the estimate may be 0 and the shift beyond all floats
            retention = np.exp(np.minimum(-losses / LOSS_UNITS - self.offset, LARGEST_EXPONENT))
        retention = np.minimum(retention, self.most)
        return score(self.objective, (self.table,), retention[:, None], costs[:, None])


@dataclass(frozen=True, eq=False)
class Subject:
    """The champion and where it is explained.

    Attributes:
        genome: the champion, or the best so far.
        allocation: `(units,)` what it gives on the first model.
        finished: whether it is the champion.
        seed: the run's.
        models: the first train model, then the first of each other split; at least one.
        train_models: how many train models there are.
        floor: the retention that the objective wants at least; None where it wants none.
        measured: digest of an allocation → what the journal says of it; empty for profiles.
        notes: what had to be left out, and why.
    """

    genome: Genome
    allocation: NDArray[np.int8]
    finished: bool
    seed: int
    models: tuple[Model, ...]
    train_models: int
    floor: float | None
    measured: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]

    @property
    def model(self) -> Model:
        """The one that it is explained on."""
        return self.models[0]


def subject_of(run: RunData, measured: Mapping[str, Mapping[str, Any]]) -> Subject:
    """The subject of a run.

    Args:
        run: as read; code that its config names is imported, so ask `require_allowed` first.
        measured: digest → measurement in full of the journal, where the run is on a real network.

    Raises:
        InputError: there is no champion yet, its model cannot be read, or retention is estimated by code of one's own.
    """
    if missing := missing_parts(run.config.own_parts(), "search"):
        raise InputError(f"{', '.join(missing)}: in the memory of a Python program, and no file holds it.")
    if run.config.estimator is not None:
        raise InputError(
            "its retention is estimated by code from outside, which need not be a sum over layers to take apart."
        )
    genome, record = _best(run)
    names, others, count = _names(run.config, record)
    notes: list[str] = []
    models: list[Model] = []
    allocations: list[NDArray[np.int8]] = []
    for label, name in [names, *others]:
        try:
            problem = _problem(run, name)
            objective = make_objective(run.config, (problem,))
            model = _model(label, problem, objective)
            allocations.append(genome.allocate(problem))
        except InputError as error:
            if not models:
                raise
            notes.append(f"{label}: left out: {error}")
            continue
        models.append(model)
    if run.config.task is not None:
        models[0] = _anchored(models[0], allocations[0], measured)
        if _metric_of(run) in AGREEING:
            models[0] = dataclasses.replace(models[0], most=1.0)
    floor = retention_floor(models[0].objective)
    return Subject(
        genome=genome,
        allocation=allocations[0],
        finished=run.champion is not None,
        seed=run.config.seed,
        models=tuple(models),
        train_models=count,
        floor=floor,
        measured=measured,
        notes=tuple(notes),
    )


def _metric_of(run: RunData) -> str | None:
    """The name of what retention is of, as the champion's scores or the config say."""
    scores = {} if run.champion is None else run.champion.scores.get("calibration", {})
    metric = scores.get("metric")
    name = metric.get("name") if isinstance(metric, dict) else getattr(run.config.task, "metric", None)
    return name if isinstance(name, str) else None


def other_train_models(run: RunData) -> list[Problem]:
    """The train models but the first; those that cannot be read any more are left out."""
    if run.config.task is not None or isinstance(run.config.search, ReplayConfig):
        return []
    found = []
    for name in (run.config.models or ModelsConfig()).train[1:]:
        with contextlib.suppress(InputError):
            found.append(_problem(run, name))
    return found


def _best(run: RunData) -> tuple[Genome, Mapping[str, Any]]:
    """The champion, else the best so far, with its journal record."""
    record = run.journal[-1]["champion"] if run.journal else None
    if run.champion is not None:
        return run.champion.genome, record or {}
    if record is None:
        raise RunDirError(f"{run.path}: no candidate has been scored yet; nothing to explain.")
    return genome_from_dict(record["genome"], str(run.path)), record


def _names(
    config: CampaignConfig, record: Mapping[str, Any]
) -> tuple[tuple[str, str | None], list[tuple[str, str | None]], int]:
    """Label and name of the model to explain on, those of the others, and how many train models there are."""
    if config.task is not None:
        return ("calibration", None), [], 1
    if isinstance(config.search, ReplayConfig):
        data = list(config.search.data.items())
        first = min(int(record.get("on", 0)), len(data) - 1)
        return data[first], [item for i, item in enumerate(data) if i != first], 1
    models = config.models or ModelsConfig()
    others = [(split, names[0]) for split, names in (("valid", models.valid), ("test", models.test)) if names]
    return ("train", models.train[0]), [*others], len(models.train)


def _problem(run: RunData, name: str | None) -> Problem:
    """A model as the campaign saw it; the network of the run for None.

    Raises:
        InputError: it cannot be read, or is no longer what the run has read.
    """
    if name is None:
        profile = deployed_profile(run.config, load_profile(run.path / PROFILE))
        return compiled(run.config, [profile])[0]
    profile = searched_profile(run.config, name)
    known = run.champion.provenance.get("inputs") if run.champion is not None else None
    read = known.get(input_name(run.config, name)) if isinstance(known, dict) and name.endswith(".json") else None
    if read is not None and read != profile.digest:
        raise ProfileError(f"{name}: is another profile than the run has read; restore it.")
    return compiled(run.config, [profile])[0]


def _model(label: str, problem: Problem, objective: Objective) -> Model:
    """With the best table that the profile has: losses, else divergences, else what the Fisher costs tell."""
    if problem.loss is not None:
        return Model(label, problem, problem, objective)
    narrow = [name for name in problem.menu.names if name != "FP32"]
    for kind in ("divergence", "expected_loss", "fisher"):
        if all(name in problem.widths.get(kind, {}) for name in narrow):
            # `divergence_problem` sums nats; expected losses are nats of retention already.
            stand_in = dataclasses.replace(problem, widths={**problem.widths, "divergence": problem.widths[kind]})
            return Model(label, problem, divergence_problem(stand_in), objective, kind)
    raise ProfileError(
        f"profile {problem.name!r} has no loss, divergence or fisher for every width of {', '.join(narrow)}; without "
        f"one of them nothing can be estimated."
    )


def _anchored(model: Model, allocation: NDArray[np.int8], measured: Mapping[str, Mapping[str, Any]]) -> Model:
    """The model with the champion at its measured retention, where it was measured in full and kept anything."""
    found = measured.get(digest_of_widths(model.problem, allocation))
    if found is None or not found["full"] or found["retention"] <= 0.0:
        return model
    summed = float(loss_sums(model.table, allocation[None])[0]) / LOSS_UNITS
    return dataclasses.replace(model, offset=-math.log(found["retention"]) - summed)


def digest_of_widths(problem: Problem, allocation: NDArray[np.int8]) -> str:
    """The key under which a journal has the measurement of a `(units,)` allocation."""
    from evoquant.campaign.measurer import allocation_digest

    return allocation_digest(problem.unfold(allocation))


def layers_per_unit(problem: Problem) -> NDArray[np.int64]:
    """`(units,)` how many layers share each unit's width."""
    return np.bincount(problem.unit_of_layer, minlength=len(problem.units)).astype(np.int64)


def number(value: float) -> float | None:
    """A float for JSON: None for what is no number."""
    return float(value) if math.isfinite(value) else None


def figures(scores: Scores, row: int) -> dict[str, Any]:
    """Plain data: fitness, retention, compression and effective bits of one row on one model."""
    return {
        "fitness": number(scores.per_model[row, 0]),
        "retention": number(scores.retention[row, 0]),
        "compression": number(scores.compression[row, 0]),
        "effective_bits": number(scores.effective_bits[row, 0]),
    }


def measured_of(subject: Subject, allocations: Sequence[NDArray[np.int8]]) -> list[float | None]:
    """The measured retention of each allocation, where the journal holds that very one, measured in full."""
    if not subject.measured:
        return [None] * len(allocations)
    found = [subject.measured.get(digest_of_widths(subject.model.problem, row)) for row in allocations]
    return [one["retention"] if one is not None and one["full"] else None for one in found]
