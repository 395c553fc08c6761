"""The separable estimator: retention = Π (1 − s) over units, as an exact integer sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.scoring.problem import LOSS_UNITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.scoring.cost import Cost
    from evoquant.scoring.problem import Problem


def loss_sums(problem: Problem, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
    """`(n,)` summed integer losses of `(n, units)` allocations."""
    return _sums(problem.separable_loss(), allocations)


def table_sums(cost: Cost, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
    """`(n,)` cost of `(n, units)` allocations by any table, without its constant part."""
    return _sums(cost.table, allocations)


def cost_sums(problem: Problem, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
    """`(n,)` total cost of `(n, units)` allocations, the constant part included, in the cost table's unit."""
    return _sums(problem.cost.table, allocations) + problem.cost.constant


def all_cost_sums(problem: Problem, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
    """`(n,)` as `cost_sums`; `(n, 1 + k)` where a campaign names k costs: that one, then those, in their order."""
    main = cost_sums(problem, allocations)
    if not problem.costs:
        return main
    others = (
        main if one is problem.cost else _sums(one.table, allocations) + one.constant for one in problem.costs.values()
    )
    return np.stack([main, *others], axis=1)


def retention_of(losses: NDArray[np.int64]) -> NDArray[np.float64]:
    """Retention exp(−Σ/2^40) of summed integer losses; above 1 where losses are negative."""
    return np.exp(-losses.astype(np.float64) / LOSS_UNITS)


def _sums(table: NDArray[np.int64], allocations: NDArray[np.int8]) -> NDArray[np.int64]:
    rows = np.arange(table.shape[0])
    picked: NDArray[np.int64] = table[rows, allocations]
    result: NDArray[np.int64] = picked.sum(axis=1, dtype=np.int64)
    return result
