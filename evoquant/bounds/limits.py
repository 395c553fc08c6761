"""The certified optimum under several limits: a mixed-integer programme with one variable for each unit and width.

Minimise the cost that the objective minimises, of allocations that give every unit one width, keep the loss at or below
−ln(floor) and every other cost at or below its limit. Solved by HiGHS (Huangfu & Hall, Parallelizing the dual revised
simplex method, Mathematical Programming Computation 10, 2018) through SciPy. What it finds is checked in whole numbers,
and a solution that only its tolerances let through is looked for again with limits that are a little tighter; of its
dual bound as much is taken off as its arithmetic may be wrong by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InfeasibleError, InputError
from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.limits import EFFECTIVE_BITS
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import retention_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices
    from evoquant.scoring.limits import Limit, WithinLimits
    from evoquant.scoring.problem import Problem

NODES = 5_000
LARGEST = 1e6  # of a row's numbers as the solver sees them
OFF = 1e-9  # relative: what the solver's dual bound, or a scaled number, may be wrong by
TIGHTER = (0.0, 2e-6, 2e-5, 2e-4)  # relative, tried in turn
OPTIMAL, OUT_OF_NODES, NONE = 0, 1, 2  # SciPy's status


@dataclass(frozen=True, eq=False)
class Row:
    """A sum over units that must not be more than so much.

    Attributes:
        name: of the limit.
        table: `(units, P)` int64.
        most: of the sum of one entry a unit.
        wanted: the limit in words: `bytes at most 20 MB`.
        reached: words for what a sum comes to: `20 MB`.
    """

    name: str
    table: NDArray[np.int64]
    most: int
    wanted: str
    reached: Callable[[int], str]

    def sum(self, allocation: NDArray[np.int8]) -> int:
        """Of one `(units,)` allocation."""
        return int(self.table[np.arange(len(allocation)), allocation].sum())


@dataclass(frozen=True, eq=False)
class Solution:
    """What came of a programme.

    Attributes:
        allocation: `(units,)` of the least sum that was found, None where there is none.
        least: no allocation within the rows has a smaller sum; None where none is within them.
        complete: whether the solver came to its end.
    """

    allocation: NDArray[np.int8] | None
    least: int | None
    complete: bool


@dataclass(frozen=True, eq=False)
class Within:
    """The optimum under limits.

    Attributes:
        allocation: `(units,)` of the least cost that was found.
        cost, loss: its sums, the cost's constant part included.
        least: no allocation within the limits costs less.
        complete: whether the solver came to its end.
    """

    allocation: NDArray[np.int8]
    cost: int
    loss: int
    least: int
    complete: bool


def least_within(choices: Choices, objective: WithinLimits, nodes: int = NODES) -> Within:
    """The least main cost within the limits.

    Args:
        choices: of the problem, pins applied.
        objective: the limits.
        nodes: the most nodes of the solver's tree.

    Raises:
        InfeasibleError: nothing keeps the limits; the message says which contradict.
        InputError: nothing was found in so many nodes.
    """
    rows = rows_of(choices, objective)
    solved = solve(choices.cost, rows, choices.allowed, nodes)
    if solved.least is None:
        raise InfeasibleError(contradiction(choices, rows, nodes))
    if solved.allocation is None:
        raise InputError(
            f"{choices.problem.name!r}: no allocation within the limits was found in {nodes} nodes, nor proven not to "
            f"be there; loosen a limit."
        )
    cost, loss = choices.sums(solved.allocation)
    return Within(solved.allocation, cost, loss, solved.least + choices.problem.cost.constant, solved.complete)


def one_cost(problem: Problem, objective: WithinLimits) -> tuple[Problem, WithinLimits] | None:
    """The same where nothing but retention and the main cost is limited, so that the exact dynamic programme will do.

    Without the other costs; None where one of them is limited.
    """
    main = "cost" if problem.own_cost else "bits"
    names = {name for name, cost in problem.costs.items() if cost is problem.cost} | {main}
    if not problem.own_cost:
        names.add(EFFECTIVE_BITS)
    if not all(limit.cost in names for limit in objective.at_most):
        return None
    limits = tuple(limit if limit.cost == EFFECTIVE_BITS else replace(limit, cost=main) for limit in objective.at_most)
    return replace(problem, costs={}), replace(objective, at_most=limits)


def rows_of(choices: Choices, objective: WithinLimits) -> list[Row]:
    """The limits of an objective on a problem, in whole numbers."""
    problem = choices.problem

    def kept(loss: int) -> str:
        return f"{float(retention_of(np.array([loss]))[0]):.2%}"

    words = f"retention at least {objective.floor:.4g}"
    rows = [Row("retention", choices.loss, most_loss(objective.floor), words, kept)]
    return [*rows, *(_row(problem, limit) for limit in objective.at_most)]


def _row(problem: Problem, limit: Limit) -> Row:
    if limit.cost == EFFECTIVE_BITS:
        scale = BIT_UNITS * float(problem.weights)
        most = int(limit.most * scale)
        most = _largest(most, lambda total: total / scale <= limit.most)
        wanted = f"{limit.name} at most {limit.most:g}"
        return Row(limit.name, problem.bits.table, most, wanted, lambda total: limit.text(total / scale))
    cost = problem.bits if limit.cost == "bits" else problem.costs.get(limit.cost, problem.cost)
    wanted = f"{limit.name} at most {limit.text(limit.most)}"
    return Row(
        limit.name,
        cost.table,
        int(limit.most) - cost.constant,
        wanted,
        lambda total: limit.text(total + cost.constant),
    )


def most_loss(floor: float) -> int:
    """The largest summed loss whose retention, as scoring computes it, is not below a floor."""
    near = round(-math.log(floor) * LOSS_UNITS)
    return _largest(near, lambda loss: bool(retention_of(np.array([loss]))[0] >= floor))


def _largest(near: int, holds: Callable[[int], bool]) -> int:
    """The largest whole number for which something holds that holds up to there; it is near `near`."""
    low, step = near, 1
    while not holds(low):
        low, step = low - step, 2 * step
    high, step = low + 1, 1
    while holds(high):
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def solve(table: NDArray[np.int64], rows: Sequence[Row], allowed: NDArray[np.bool_], nodes: int) -> Solution:
    """The least sum of a table within rows.

    Args:
        table: `(units, P)`, what is minimised.
        rows: what must be kept.
        allowed: `(units, P)` bool.
        nodes: the most nodes of the solver's tree.
    """
    allowed, rows = _possible(rows, allowed)
    if not allowed.any(axis=1).all():
        return Solution(None, None, True)
    base = int(np.where(allowed, table, np.iinfo(np.int64).max).min(axis=1).sum())
    cheapest = np.where(allowed, table, np.iinfo(np.int64).max).argmin(axis=1).astype(np.int8)
    if all(row.sum(cheapest) <= row.most for row in rows):
        return Solution(cheapest, base, True)
    costs, unit = _lifted(table, allowed)
    scale = min(1.0, LARGEST / max(float(costs.max(axis=1).sum()), 1.0))
    found, least, complete = None, base, True
    for tighter in TIGHTER:
        result = _highs(costs.astype(np.float64) * scale, rows, allowed, nodes, tighter)
        if tighter == 0.0:
            if result.status == NONE:
                return Solution(None, None, True)
            complete = result.status == OPTIMAL
            bound = result.mip_dual_bound
            if bound is not None and np.isfinite(bound):
                proven = (float(bound) - OFF * max(1.0, abs(float(bound)))) / scale
                least = base + unit * max(math.ceil(proven - 1e-6), 0)
        if result.x is not None:
            taken = np.full(allowed.shape, -1.0)
            taken[allowed] = result.x
            allocation = taken.argmax(axis=1).astype(np.int8)
            if all(row.sum(allocation) <= row.most for row in rows):
                found = allocation
                break
    return Solution(found, least, complete)


def _possible(rows: Sequence[Row], allowed: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], list[Row]]:
    """The widths that no row forbids by itself, and the rows that can be broken by what is left."""
    left = allowed.copy()
    while True:
        before = int(left.sum())
        for row in rows:
            if not left.any(axis=1).all():
                return left, list(rows)
            least = np.where(left, row.table, np.iinfo(np.int64).max).min(axis=1)
            room = row.most - int(least.sum())
            left &= row.table - least[:, None] <= room
        if int(left.sum()) == before:
            break
    if not left.any(axis=1).all():
        return left, list(rows)
    worst = [int(np.where(left, row.table, np.iinfo(np.int64).min).max(axis=1).sum()) for row in rows]
    return left, [row for row, most in zip(rows, worst, strict=True) if most > row.most]


def _lifted(table: NDArray[np.int64], allowed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """A table above each unit's least, 0 where it is not allowed, divided by what divides it all; that divisor."""
    least = np.where(allowed, table, np.iinfo(np.int64).max).min(axis=1)
    above = np.where(allowed, table - least[:, None], 0)
    unit = int(np.gcd.reduce(above, axis=None)) or 1
    return above // unit, unit


def _highs(
    costs: NDArray[np.float64], rows: Sequence[Row], allowed: NDArray[np.bool_], nodes: int, tighter: float
) -> Any:
    """SciPy's result; variables are the allowed widths, unit by unit."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    units, _ = np.nonzero(allowed)
    count = len(units)
    one_each = csr_array((np.ones(count), (units, np.arange(count))), shape=(len(allowed), count))
    constraints = [LinearConstraint(one_each, 1.0, 1.0)]
    for row in rows:
        least = int(np.where(allowed, row.table, np.iinfo(np.int64).max).min(axis=1).sum())
        above, unit = _lifted(row.table, allowed)
        most = (row.most - least) // unit
        scale = min(1.0, LARGEST / max(most, 1))
        limit = most * scale * (1.0 - tighter) + (OFF * LARGEST if tighter == 0.0 else 0.0)
        constraints.append(LinearConstraint((above[allowed] * scale)[None], -np.inf, limit))
    return milp(
        costs[allowed],
        constraints=constraints,
        integrality=np.ones(count),
        bounds=Bounds(0.0, 1.0),
        options={"node_limit": nodes, "mip_rel_gap": 0.0},
    )


def contradiction(choices: Choices, rows: Sequence[Row], nodes: int = NODES) -> str:
    """Which limits cannot be kept together, and what is the most that each allows: for a message."""
    allowed = choices.allowed

    def possible(kept: Sequence[Row]) -> bool:
        return solve(np.zeros_like(choices.cost), kept, allowed, nodes).least is not None

    def least_alone(row: Row) -> int:
        return int(np.where(allowed, row.table, np.iinfo(np.int64).max).min(axis=1).sum())

    name = choices.problem.name
    alone = [row for row in rows if least_alone(row) > row.most]
    if alone:
        said = "; ".join(f"{row.wanted} ({_best(row)} {row.reached(least_alone(row))} at best)" for row in alone)
        return f"{name!r}: no allocation keeps {said}; loosen it, or widen the menu."
    kept = list(rows)
    for row in rows:
        rest = [other for other in kept if other is not row]
        if not possible(rest):
            kept = rest
    said = " and ".join(row.wanted for row in kept)
    parts = [f"{row.name} {_best(row)} {row.reached(least_alone(row))} alone" for row in kept]
    last = kept[-1]
    solved = solve(last.table, kept[:-1], allowed, nodes)
    if solved.least is not None:
        others = " and ".join(row.wanted for row in kept[:-1])
        parts.append(f"with {others} {last.name} {_best(last)} {last.reached(solved.least)}")
    return f"{name!r}: no allocation keeps {said} together ({'; '.join(parts)}); loosen one."


def _best(row: Row) -> str:
    return "goes up to" if row.name == "retention" else "goes down to"
