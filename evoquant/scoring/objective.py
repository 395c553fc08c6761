"""Objective: retention and cost → fitness, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.limits import EFFECTIVE_BITS, WithinLimits
from evoquant.scoring.protocol import Objective, SeesCosts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem

    Amounts = Mapping[str, NDArray[np.int64] | NDArray[np.float64]]

__all__ = [
    "OBJECTIVES",
    "Aggregate",
    "BitBudget",
    "Cliff",
    "FeasibleFirst",
    "Objective",
    "Scores",
    "WithinLimits",
    "amounts_of",
    "combine",
    "fitness_of",
    "retention_floor",
    "score",
]

Aggregate = Literal["mean", "min", "geometric"]


@dataclass(frozen=True)
class Cliff:
    """The published objective: 0.1 · retention below the threshold t, else compression · (1 + (r − t)/(1 − t))."""

    threshold: float = 0.95

    def score(
        self, retention: NDArray[np.float64], compression: NDArray[np.float64], effective_bits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fitness, of the arguments' shape."""
        bonus = 1.0 + (retention - self.threshold) / (1.0 - self.threshold)
        return np.where(retention < self.threshold, 0.1 * retention, compression * bonus)


@dataclass(frozen=True)
class FeasibleFirst:
    """What deployers mean: compression where retention is at or above the floor, else retention − 1."""

    floor: float = 0.95

    def score(
        self, retention: NDArray[np.float64], compression: NDArray[np.float64], effective_bits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fitness, of the arguments' shape."""
        return np.where(retention >= self.floor, compression, retention - 1.0)


@dataclass(frozen=True)
class BitBudget:
    """Retention within so many effective bits a weight, else minus the relative excess."""

    effective_bits: float

    def score(
        self, retention: NDArray[np.float64], compression: NDArray[np.float64], effective_bits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fitness, of the arguments' shape."""
        excess = effective_bits / self.effective_bits - 1.0
        return np.where(excess <= 0.0, retention, -excess)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "cliff": Cliff,
    "feasible_first": FeasibleFirst,
    "budget": BitBudget,
}


def fitness_of(
    objective: Objective,
    retention: NDArray[np.float64],
    compression: NDArray[np.float64],
    effective_bits: NDArray[np.float64],
    costs: Amounts,
) -> NDArray[np.float64]:
    """What an objective makes of candidates: of all that they cost where it sees that, else of their size alone."""
    if isinstance(objective, SeesCosts):
        return objective.score_costs(retention, compression, effective_bits, costs)
    return objective.score(retention, compression, effective_bits)


def amounts_of(problems: tuple[Problem, ...], costs: NDArray[np.int64]) -> Amounts:
    """Name → `(n, m)` what candidates cost on m models, by every table that a campaign names.

    As the tables count, whole numbers: `bits` in 1/1024 bit. Beside them `effective_bits`, bits per weight. Where there
    is but one cost and it is no bits, its name is `cost`, and bits are not known.

    Args:
        problems: the models.
        costs: as `score` takes them.
    """
    first = problems[0]
    if costs.ndim == 3:
        found: dict[str, Any] = {name: costs[:, :, 1 + place] for place, name in enumerate(first.costs)}
    else:
        found = {"cost" if first.own_cost else "bits": costs}
    if "bits" in found:
        constant = np.array([problem.bits.constant for problem in problems], dtype=np.int64)
        weights = np.array([problem.weights for problem in problems], dtype=np.float64)
        found[EFFECTIVE_BITS] = (found["bits"] - constant) / (BIT_UNITS * weights)
    return found


def retention_floor(objective: Objective) -> float | None:
    """The retention that the objective wants at least: the cliff's threshold, a floor; None where it has none.

    An objective of one's own has one where it has a number called `floor`.
    """
    value = objective.threshold if isinstance(objective, Cliff) else getattr(objective, "floor", None)
    return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of n candidates on m models.

    Attributes:
        fitness: `(n,)`, aggregated over models, shares of the optimum where that was given; NaN where any retention
            is NaN (failed).
        per_model: `(n, m)` fitness on each model, never a share.
        retention: `(n, m)` as estimated, not clipped.
        compression: `(n, m)` all-FP32 cost / cost.
        effective_bits: `(n, m)` bits per weight, scales counted; under a cost of one's own 32 times the share of the
            FP32 cost.
        cost: `(n,)` cost summed over the models, the last tie-break before the digest.
        amounts: name → `(n, m)` what it costs by every table, where the campaign names several; see `amounts_of`.
    """

    fitness: NDArray[np.float64]
    per_model: NDArray[np.float64]
    retention: NDArray[np.float64]
    compression: NDArray[np.float64]
    effective_bits: NDArray[np.float64]
    cost: NDArray[np.int64]
    amounts: Amounts = field(default_factory=dict)


def score(
    objective: Objective,
    problems: tuple[Problem, ...],
    retention: NDArray[np.float64],
    costs: NDArray[np.int64],
    aggregate: Aggregate = "mean",
    optimum: NDArray[np.float64] | None = None,
) -> Scores:
    """The one function that turns retention and integer costs into compression and fitness.

    Args:
        objective: what to maximise.
        problems: the m models.
        retention: `(n, m)`.
        costs: `(n, m)` total costs, constants included; where the campaign names several, `(n, m, 1 + k)`: the one that
            `Problem.cost` counts, then those of `Problem.costs`.
        aggregate: how fitness on several models becomes one number.
        optimum: `(m,)` best possible fitness of each model, above 0; fitness on a model is divided by it first, so
            that no model counts for more because more is possible there.
    """
    seen = amounts_of(problems, costs) if isinstance(objective, SeesCosts) or costs.ndim == 3 else {}
    costs = costs if costs.ndim == 2 else costs[:, :, 0]
    reference = np.array([p.cost.reference for p in problems], dtype=np.float64)
    constant = np.array([p.cost.constant for p in problems], dtype=np.int64)
    scale = np.array([p.weights for p in problems], dtype=np.float64) * np.array([p.bit for p in problems])
    compression = reference / costs.astype(np.float64)
    effective_bits = (costs - constant).astype(np.float64) / scale
    clipped = np.clip(retention, 0.0, 1.0)
    made = fitness_of(objective, clipped, compression, effective_bits, seen)
    per_model = np.where(np.isnan(retention), np.nan, made)
    compared = per_model if optimum is None else per_model / optimum
    fitness, cost = combine(compared, aggregate), costs.sum(axis=1)
    several = seen if problems[0].costs else {}
    return Scores(fitness, per_model, retention, compression, effective_bits, cost, several)


def combine(per_model: NDArray[np.float64], aggregate: Aggregate) -> NDArray[np.float64]:
    """`(n,)` fitness from `(n, m)` fitness on each model; one model's is taken as it is.

    The geometric mean of anything not above 0 is the minimum.
    """
    if per_model.shape[1] == 1:
        result: NDArray[np.float64] = per_model[:, 0]
    elif aggregate == "min":
        result = per_model.min(axis=1)
    elif aggregate == "geometric":
        positive = (per_model > 0).all(axis=1)
        logs = np.log(np.where(per_model > 0, per_model, 1.0)).mean(axis=1)
        result = np.where(positive, np.exp(logs), per_model.min(axis=1))
    else:
        result = per_model.mean(axis=1)
    return result
