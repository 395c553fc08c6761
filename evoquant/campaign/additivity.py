"""How additive is a network: does the sum over single layers say what an allocation loses?

Where it does, a search on the profile is as good as a measured one; where it does not, measuring is worth its cost.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.measurer import reference_outcomes
from evoquant.errors import ProfileError
from evoquant.models.base import SCORE, Failed
from evoquant.rng import generator_for
from evoquant.scoring.divergence import separable_problem
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import loss_sums
from evoquant.scoring.statistics import Retention, paired_retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.measurer import Measurer
    from evoquant.scoring.problem import Problem

FEWEST = 8  # allocations, below which nothing is said
CLEAR = 2.0  # standard errors that make a measured difference a clear one
NEAR = (0.2, 2.0)  # allocations near the cliff lose between these shares of what the floor allows, by the estimate


@dataclass(frozen=True)
class Additivity:
    """The separable estimate beside measurements of allocations that it has not seen.

    Attributes:
        table: what is summed: `loss` (measured one at a time), else `divergence` or `fisher`.
        allocations: how many were measured in full.
        misordered: share of their pairs that the estimate puts the wrong way round; of equal ones half.
        clear_pairs: pairs that differ by more than two standard errors.
        clear_misordered: share of these that are put the wrong way round; None where there is none.
        r2: of the estimated retention, where 1 is perfect and below 0 is worse than their mean; for divergences of
            every second one, after the best falling link from divergence to retention was fitted to the others.
        passes: over the calibration split that this took.
    """

    table: str
    allocations: int
    misordered: float
    clear_pairs: int
    clear_misordered: float | None
    r2: float | None
    passes: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is not known is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def additivity_of(
    problem: Problem, allocations: NDArray[np.int8], retentions: Sequence[Retention], passes: float = 0.0
) -> Additivity | None:
    """Compare the separable estimate with what was measured; None where that is too little, or there is no table.

    Args:
        problem: with losses, divergences or Fisher costs.
        allocations: `(n, units)`, distinct.
        retentions: of each.
        passes: that measuring them took.
    """
    known = [i for i, r in enumerate(retentions) if not math.isnan(r.value)]
    if len(known) < FEWEST:
        return None
    try:
        table, estimate = _estimate(problem, allocations[known])
    except ProfileError:
        return None
    values = np.array([retentions[i].value for i in known])
    errors = np.array([retentions[i].standard_error for i in known])
    first, second = np.triu_indices(len(known), 1)
    measured = values[first] - values[second]
    agreement = np.sign(measured) * np.sign(estimate[second] - estimate[first])
    clear = np.abs(measured) > CLEAR * np.hypot(errors[first], errors[second])
    wrong = (1.0 - agreement) / 2.0
    return Additivity(
        table=table,
        allocations=len(known),
        misordered=float(wrong.mean()),
        clear_pairs=int(clear.sum()),
        clear_misordered=float(wrong[clear].mean()) if clear.any() else None,
        r2=_r2(table, estimate, values),
        passes=passes,
    )


def measure_additivity(
    measurer: Measurer, problem: Problem, count: int, seed: int, floor: float = 0.95
) -> Additivity | None:
    """Measure random allocations and ones near the cliff, half and half, and compare.

    Args:
        measurer: of the network.
        problem: its profile, compiled.
        count: how many allocations, at least 8.
        seed: of the draws.
        floor: where the cliff is.
    """
    allocations = draw_allocations(problem, count, seed, floor)
    outcomes = measurer.split([problem.unfold(row) for row in allocations], "calibration")
    reference = reference_outcomes(measurer, "calibration")
    kept = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, Failed)]
    retentions = [
        paired_retention(outcome[:, SCORE], reference[:, SCORE], measurer.task.metric)
        for outcome in outcomes
        if not isinstance(outcome, Failed)
    ]
    return additivity_of(problem, allocations[kept], retentions, passes=len(allocations) + 1.0)


def draw_allocations(problem: Problem, count: int, seed: int, floor: float = 0.95) -> NDArray[np.int8]:
    """`(n, units)` distinct allocations: random widths, every other one widened until it should be near the cliff.

    Raises:
        ProfileError: the profile has no table to say what is near.
    """
    table = separable_problem(problem).separable_loss() / LOSS_UNITS
    found: dict[bytes, NDArray[np.int8]] = {}
    for number in range(20 * count):  # a small network may not have so many
        rng = generator_for(seed, number, "additivity")
        drawn = problem.repair_one(rng.integers(0, len(problem.menu), len(problem.units)).astype(np.int8))
        if number % 2:
            drawn = _near_cliff(problem, table, drawn, -math.log(floor) * rng.uniform(*NEAR), rng)
        found.setdefault(drawn.tobytes(), drawn)
        if len(found) == count:
            break
    return np.stack(list(found.values()))


def _near_cliff(
    problem: Problem,
    table: NDArray[np.float64],
    allocation: NDArray[np.int8],
    target: float,
    rng: np.random.Generator,
) -> NDArray[np.int8]:
    """The allocation with random units widened, one step at a time, until it loses no more than `target`."""
    result = allocation.copy()
    units = np.arange(len(result))
    while table[units, result].sum() > target:
        wider = problem.allowed & (np.arange(problem.allowed.shape[1]) > result[:, None])
        able = np.flatnonzero(wider.any(axis=1))
        if not len(able):
            break
        unit = rng.choice(able)
        result[unit] = np.flatnonzero(wider[unit])[0]
    return result


def _estimate(problem: Problem, allocations: NDArray[np.int8]) -> tuple[str, NDArray[np.float64]]:
    """The table's name and `(n,)` summed losses, −ln of the separable retention, or nats."""
    name = "loss"
    if problem.loss is None:
        narrow = [width for width in problem.menu.names if width != "FP32"]
        name = "divergence" if all(width in problem.widths["divergence"] for width in narrow) else "fisher"
    return name, loss_sums(separable_problem(problem), allocations).astype(np.float64) / LOSS_UNITS


def _r2(table: str, estimate: NDArray[np.float64], retention: NDArray[np.float64]) -> float | None:
    if table == "loss":
        return _explained(np.exp(-estimate), retention)
    seen, unseen = np.arange(0, len(estimate), 2), np.arange(1, len(estimate), 2)
    order = seen[np.argsort(estimate[seen], kind="stable")]
    link = falling(retention[order])
    return _explained(np.interp(estimate[unseen], estimate[order], link), retention[unseen])


def falling(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The never rising sequence nearest to `values` in least squares: pool adjacent violators.

    Barlow, Bartholomew, Bremner & Brunk, Statistical Inference under Order Restrictions, 1972.
    """
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while pools and pools[-1][0] < mean:
            before, size = pools.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        pools.append((mean, count))
    return np.concatenate([np.full(count, mean) for mean, count in pools])


def _explained(estimate: NDArray[np.float64], measured: NDArray[np.float64]) -> float | None:
    spread = float(np.square(measured - measured.mean()).sum())
    return 1.0 - float(np.square(measured - estimate).sum()) / spread if spread > 0 else None
