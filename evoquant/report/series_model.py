"""The one model that a run's figures are of, and what the run's objective asks of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build import deployed_profile, make_objective, searched_profile
from evoquant.campaign.build_scoring import compiled, retention_model
from evoquant.campaign.config import (
    BudgetConfig,
    CampaignConfig,
    CliffConfig,
    FeasibleFirstConfig,
    ModelsConfig,
    ReplayConfig,
)
from evoquant.campaign.config_objective import LimitsConfig
from evoquant.campaign.in_memory import missing_parts
from evoquant.campaign.located import input_name
from evoquant.campaign.storage import ENVIRONMENT, PROFILE, RunDir
from evoquant.errors import InputError, ProfileError, RunDirError, quoted
from evoquant.files import is_file
from evoquant.profiles.builtin import any_profile
from evoquant.profiles.model import load_profile
from evoquant.report.counted import Counted
from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.divergence import separable_problem
from evoquant.scoring.estimated import UNKNOWN, losses_of
from evoquant.scoring.limits import EFFECTIVE_BITS, WithinLimits
from evoquant.scoring.objective import BitBudget, Objective
from evoquant.scoring.quantity import amount_text
from evoquant.scoring.separable import retention_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.report.data import RunData
    from evoquant.scoring.problem import Problem
    from evoquant.scoring.protocol import RetentionModel

BYTE_UNITS = 8.0 * BIT_UNITS


@dataclass(frozen=True, eq=False)
class Subject:
    """The one model that a run's figures are of.

    Attributes:
        profile: with what the campaign's `deploy_to` can take.
        problem: compiled with the campaign's menu.
        scored: the same with losses, or with what stands in for them; None where the profile has neither.
        name: in the config.
        label: for people: `seed/train, the first of 12 train models`.
        column: its place in the journal's figures of several models.
        measured: whether the run measures it, so that what is separable only estimates.
        model: the run's own estimator of retention; None for the separable one.
    """

    profile: ModelProfile
    problem: Problem
    scored: Problem | None
    name: str
    label: str
    column: int
    measured: bool
    model: RetentionModel | None = None

    def retention_of(self, allocations: NDArray[np.int8]) -> NDArray[np.float64]:
        """`(n,)` as the run estimates it, of `(n, units)` allocations; NaN where its own estimator gives no number.

        Raises:
            InputError: the run's own estimator cannot be asked.
        """
        losses = losses_of(self.problem, allocations, self.model)
        return np.where(losses == UNKNOWN, np.nan, retention_of(losses))

    def bytes_of(self, cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bytes of the model, of costs in the problem's unit; NaN where that is no bits."""
        return np.full(cost.shape, np.nan) if self.problem.own_cost else cost / BYTE_UNITS

    def compression_of(self, cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """All-FP32 cost / cost."""
        return self.problem.cost.reference / cost

    def bits_of(self, cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """Effective bits per weight; under a cost of one's own 32 times the share of the FP32 cost."""
        return (cost - self.problem.cost.constant) / (self.problem.bit * float(self.problem.weights))

    @property
    def counted(self) -> Counted | None:
        """What costs are of; None for bits."""
        return Counted(self.problem.cost.name, self.problem.cost.reference) if self.problem.own_cost else None


@dataclass(frozen=True)
class Goal:
    """What the objective asks for, as limits that figures draw.

    Attributes:
        floor: the least retention: the cliff's threshold, or a floor.
        effective_bits: the most bits per weight.
        compression: the same as the least compression of the searched model; None where that is not known.
        fitness: the most fitness that a candidate has which misses the goal, where one number says so: on one model,
            and with several where the worst of them counts.
        amount: the budget in words, where it is of a cost of one's own; beside a floor the limit that `compression` is.
        name: `cliff`, `floor`, `budget`; empty for an objective of one's own.
        others: limits beside the floor, in words.
    """

    floor: float | None = None
    effective_bits: float | None = None
    compression: float | None = None
    fitness: float | None = None
    name: str = ""
    amount: str = ""
    others: str = ""

    def budget_words(self, bits: str = "bits per weight") -> str:
        """The most that a candidate may take, in what the campaign counts."""
        return self.amount or f"{self.effective_bits:.4g} {bits}"

    def met(self, retention: NDArray[np.float64], bits: NDArray[np.float64]) -> NDArray[np.bool_]:
        """`(n,)` whether the limits are kept, of retention and effective bits per weight."""
        kept = np.ones(len(retention), dtype=bool)
        if self.floor is not None:
            kept &= retention >= self.floor
        if self.effective_bits is not None:
            kept &= bits <= self.effective_bits
        return kept


def subject_of(run: RunData, model: str | None = None) -> Subject | None:
    """The model that figures of a run are of; None for a network of which the run directory holds no profile.

    None, too, where the run's cost, genomes or estimator were in the memory of a Python program that is not this one.

    The network, or the first train model; of a replay, whose candidates are judged on one model each, the champion's.

    Args:
        run: finished or not.
        model: another of its models, by name.

    Raises:
        InputError: the profile is not there any more, or was changed since the run; no model has that name.
    """
    config = run.config
    if missing_parts(config.own_parts(), "search", "objective"):
        return None
    if config.task is not None:
        if model is not None:
            raise InputError(f"{run.path}: measures one network; there is no model {quoted(model)} to choose.")
        if not is_file(run.path / PROFILE):
            return None
        profile = deployed_profile(config, load_profile(run.path / PROFILE))
        return _subject(config, profile, profile.name, profile.name, 0, measured=True)
    if isinstance(config.search, ReplayConfig):
        return _replayed(run, config.search, model)
    listed = (config.models or ModelsConfig()).model_dump()
    names = [name for split in listed.values() for name in split]
    name = names[0] if model is None else model
    if name not in names:
        raise InputError(f"{run.path}: the run has no model {quoted(name)}; it has {', '.join(names)}.")
    split, among = next((split, among) for split, among in listed.items() if name in among)
    profile = _unchanged(run, searched_profile(config, name), name)
    place = "the first" if among[0] == name else "one"
    label = name if len(among) == 1 else f"{name}, {place} of {len(among)} {split} models"
    column = among.index(name) if split == "train" else -1
    return _subject(config, profile, name, label, column, measured=False)


def _replayed(run: RunData, search: ReplayConfig, model: str | None) -> Subject:
    names = list(search.data)
    champion = run.journal[-1]["champion"] if run.journal else None
    column = champion.get("on", 0) if champion else 0
    if model is not None:
        if model not in names:
            raise InputError(f"{run.path}: the run has no model {quoted(model)}; it has {', '.join(names)}.")
        column = names.index(model)
    if column >= len(names):
        raise RunDirError(f"{run.path}: the journal's champion is judged on a model that the config does not name.")
    name = names[column]
    source = search.data[name]
    profile = _unchanged(run, any_profile(source), source)
    label = source if len(names) == 1 else f"{source}, on which the champion was judged"
    return _subject(run.config, profile, name, label, column, measured=False)


def _unchanged(run: RunData, profile: ModelProfile, name: str) -> ModelProfile:
    """The profile, if it is still what the run says that it read."""
    if run.champion is not None:
        known = run.champion.provenance.get("inputs")
    else:
        known = _read_by_now(run)
    if isinstance(known, dict) and known.get(input_name(run.config, name), profile.digest) != profile.digest:
        raise ProfileError(f"{name}: was changed since {run.path} was run on it; restore it, or run again.")
    return profile


def _read_by_now(run: RunData) -> Any:
    """What a run that is not finished reads; nothing where that is lost, of which a resume tells."""
    if not is_file(run.path / ENVIRONMENT):
        return None
    try:
        environment = RunDir.open(run.path, hold=False).read(ENVIRONMENT)
    except RunDirError:
        return None
    return environment.get("inputs") if isinstance(environment, dict) else None


def _subject(
    config: CampaignConfig, profile: ModelProfile, name: str, label: str, column: int, *, measured: bool
) -> Subject:
    (problem,) = compiled(config, [profile])
    model = retention_model(config)
    scored = None
    with contextlib.suppress(ProfileError):
        scored = None if model is not None else separable_problem(problem)
    return Subject(profile, problem, scored, name, label, column, measured, model)


def goal_of(run: RunData, subject: Subject | None) -> Goal:
    """The limits of a run's objective; code of one's own is not asked."""
    config = run.config
    models = config.models or ModelsConfig()
    sharp = not config.relative_to_optimum and (len(models.train) == 1 or config.aggregate == "min")
    objective = config.objective
    if isinstance(objective, CliffConfig):
        threshold = objective.threshold
        return Goal(floor=threshold, fitness=0.1 * threshold if sharp else None, name="cliff")
    if isinstance(objective, FeasibleFirstConfig):
        return Goal(floor=objective.floor, fitness=objective.floor - 1.0 if sharp else None, name="floor")
    if isinstance(objective, LimitsConfig):
        goal = Goal(floor=objective.retention, fitness=0.0 if sharp else None, name="floor")
        return (
            goal if subject is None else _with_limits(goal, subject.problem, make_objective(config, (subject.problem,)))
        )
    if not isinstance(objective, BudgetConfig):
        return Goal()
    problem = None if subject is None else subject.problem
    bits = objective.effective_bits
    if bits is None and problem is not None:
        made = make_objective(config, (problem,))
        bits = made.effective_bits if isinstance(made, BitBudget) else None
    compression = None
    if bits is not None and problem is not None:
        compression = problem.cost.reference / (bits * problem.bit * problem.weights + problem.cost.constant)
    amount = ""
    if objective.cost is not None and problem is not None:
        amount = amount_text(objective.cost, problem.cost.name)
    return Goal(None, bits, compression, 0.0 if sharp else None, "budget", amount)


def _with_limits(goal: Goal, problem: Problem, objective: Objective) -> Goal:
    """What is limited beside the floor; what is minimised, too, may be, which is a least compression."""
    assert isinstance(objective, WithinLimits)
    words = {limit.name: f"{limit.name} at most {limit.text(limit.most)}" for limit in objective.at_most}
    goal = replace(goal, others=", ".join(words.values()))
    reached = []
    for limit in objective.at_most:
        bits = limit.cost == EFFECTIVE_BITS
        table = problem.bits if bits or limit.cost == "bits" else problem.costs.get(limit.cost, problem.cost)
        if table is problem.cost:
            most = limit.most * problem.bit * problem.weights + problem.cost.constant if bits else limit.most
            if problem.cost.reference > 0.5 * most:  # one that FP32 keeps by far would stretch the figure
                reached.append((problem.cost.reference / most, words[limit.name]))
    return replace(goal, compression=max(reached)[0], amount=max(reached)[1]) if reached else goal


def frozen(array: Any) -> Any:
    """The array, from now on read-only."""
    array.setflags(write=False)
    return array
