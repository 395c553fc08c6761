"""The Pareto front of cost and loss over all allocations: exact where it fits, else with a proven ε.

Dynamic programme over sets of units (Nemhauser and Ullmann 1969): the front of two sets together is the Pareto-optimal
part of all sums of a point of each. Units of equal cost rows are put together first, since their sums coincide; then
these groups are joined, those of few points first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.choices import choices_of, scores_of
from evoquant.bounds.envelope import envelope_of
from evoquant.bounds.programme import undominated
from evoquant.errors import ProfileError
from evoquant.scoring.objective import FeasibleFirst
from evoquant.scoring.separable import retention_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices
    from evoquant.scoring.problem import Problem

MEMORY = 2 * 10**9
WORK = 2**28
CHUNK = 2**20  # sums made at once
POINT_BYTES = 96  # of a point or a sum while it is made: cost, loss, its place in two orders, where it is from
KEPT_BYTES = 24  # of a point afterwards: cost, loss, where it is from
FEWEST = 8  # points that a front keeps however little memory there is
FINE = 1e-3  # if the envelope's vertices are that dense, they are a good enough front


@dataclass(frozen=True, eq=False)
class Front:
    """Allocations that no other beats in both cost and loss, by rising cost; read-only arrays.

    Attributes:
        cost: `(n,)` int64 totals, the constant part included.
        loss: `(n,)` int64 totals, falling.
        retention: `(n,)`, not clipped.
        compression, effective_bits: `(n,)`.
        exact: whether these are all such points (of at least the floor's retention).
        epsilon: 0 where exact. Else no allocation (of retention ≥ floor + ε) beats the points by more than that: some
            point costs no more and has at most ε less retention.
        method: how, in a few words.
        recover: point → its allocation.
    """

    cost: NDArray[np.int64]
    loss: NDArray[np.int64]
    retention: NDArray[np.float64]
    compression: NDArray[np.float64]
    effective_bits: NDArray[np.float64]
    exact: bool
    epsilon: float
    method: str
    recover: Callable[[int], NDArray[np.int8]]

    def __len__(self) -> int:
        return len(self.cost)

    def allocation(self, point: int) -> NDArray[np.int8]:
        """`(units,)` menu indices of one point."""
        return self.recover(point)


def pareto_front(
    problem: Problem,
    *,
    at_least: float | None = None,
    pins: Mapping[str, str] | None = None,
    memory: int = MEMORY,
    work: int = WORK,
) -> Front:
    """The Pareto front of a problem.

    Where the exact front needs more than `memory` or `work`, nearby points are thinned out while it is made, and every
    thinning's error is added up; or the vertices of the convex envelope are taken, if they lie closer together.

    Args:
        problem: with losses for every width of its menu.
        at_least: only points of that retention or more; None for all.
        pins: layer or unit name → precision name.
        memory: bytes for the points that are kept and the sums that are made at a time.
        work: the most sums in all.

    Raises:
        ProfileError: no allocation has that retention.
        InputError: the profile lacks losses, or a pin cannot be kept.
    """
    choices = choices_of(problem, pins)
    least = np.where(choices.useful, choices.loss, np.iinfo(np.int64).max).min(axis=1)
    limit = _most_loss(problem, int(least.sum()), int(np.abs(choices.loss).max(axis=1).sum()), at_least)
    hull = _envelope_front(choices, at_least, limit)
    run = _Joining(limit, int(least.sum()), memory, work, give_up=hull.epsilon <= FINE)
    whole = run.join_all(_groups(choices), choices, least)
    if whole is None or (run.thinned and run.epsilon > hull.epsilon):
        return hull
    cost, loss = whole.cost + problem.cost.constant, whole.loss
    method = "dynamic programme, thinned out" if run.thinned else "dynamic programme"
    trace, units = whole.trace, len(problem.units)

    def recover(point: int) -> NDArray[np.int8]:
        return _recover(trace, point, units)

    return _front(choices, cost, loss, method, recover, exact=not run.thinned, epsilon=run.epsilon)


def _most_loss(problem: Problem, least: int, largest: int, at_least: float | None) -> int:
    """The largest loss that keeps the floor, by the shared retention."""
    if at_least is None:
        return largest

    def keeps(loss: int) -> bool:
        return bool(retention_of(np.array([loss]))[0] >= at_least)

    if not keeps(least):
        best = float(retention_of(np.array([least]))[0])
        raise ProfileError(
            f"no allocation of {problem.name!r} has a retention of {at_least:g} or more; the most is {best:g}; "
            f"lower the floor."
        )
    low, high = least, max(least, largest)
    while low < high:
        middle = high - (high - low) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle - 1)
    return low


def _front(
    choices: Choices,
    cost: NDArray[np.int64],
    loss: NDArray[np.int64],
    method: str,
    recover: Callable[[int], NDArray[np.int8]],
    *,
    exact: bool,
    epsilon: float,
) -> Front:
    scores = scores_of(choices.problem, FeasibleFirst(), cost, loss)
    arrays = (cost, loss, scores.retention[:, 0], scores.compression[:, 0], scores.effective_bits[:, 0])
    for array in arrays:
        array.setflags(write=False)
    return Front(*arrays, exact, epsilon, method, recover)


def _envelope_front(choices: Choices, at_least: float | None, limit: int) -> Front:
    """The vertices of the convex envelope, and how much retention the envelope gains from each to the next."""
    envelope = envelope_of(choices, choices.useful)
    (kept,) = np.nonzero(envelope.loss <= limit)
    gained = retention_of(envelope.loss[1:] - envelope.margin) - retention_of(envelope.loss[:-1])
    reach = gained[max(int(kept[0]) - 1, 0) :]
    epsilon = float(reach.max()) if len(reach) else 0.0
    first = int(kept[0])

    def recover(point: int) -> NDArray[np.int8]:
        return envelope.vertex(first + point)

    cost, loss = envelope.cost[kept], envelope.loss[kept]
    exact = len(envelope.cost) == 1
    return _front(choices, cost, loss, "vertices of the convex envelope", recover, exact=exact, epsilon=epsilon)


@dataclass(frozen=True, eq=False)
class _Leaf:
    """One unit's useful widths, narrowest cost first."""

    unit: int
    widths: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Which point of either side each point is the sum of."""

    left: _Leaf | _Pair
    right: _Leaf | _Pair
    from_left: NDArray[np.int32]
    from_right: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Part:
    """The front of some units: `(n,)` costs, rising, and losses, falling; the least loss that they can have."""

    cost: NDArray[np.int64]
    loss: NDArray[np.int64]
    least: int
    trace: _Leaf | _Pair


def _groups(choices: Choices) -> list[list[int]]:
    """Units of equal rows of costs and useful widths."""
    rows = np.where(choices.useful, choices.cost, -1)
    _, group = np.unique(rows, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    starts = np.nonzero(np.diff(group.ravel()[order], prepend=-1))[0]
    return [part.tolist() for part in np.split(order, starts[1:])]


def _recover(trace: _Leaf | _Pair, point: int, units: int) -> NDArray[np.int8]:
    allocation = np.zeros(units, dtype=np.int8)
    open_ones = [(trace, point)]
    while open_ones:
        trace, point = open_ones.pop()
        if isinstance(trace, _Leaf):
            allocation[trace.unit] = trace.widths[point]
        else:
            open_ones.append((trace.left, int(trace.from_left[point])))
            open_ones.append((trace.right, int(trace.from_right[point])))
    return allocation


class _Joining:
    """Joins parts within limits of memory and work, and adds up what thinning out may have cost."""

    def __init__(self, limit: int, least: int, memory: int, work: int, *, give_up: bool) -> None:
        self.epsilon = 0.0
        self.thinned = False
        self._limit, self._least = limit, least
        self._memory, self._work = memory, work
        self._give_up = give_up
        self._chunk = min(CHUNK, memory // 4 // POINT_BYTES)
        self._memory -= self._chunk * POINT_BYTES
        self._left = 0

    def join_all(self, groups: list[list[int]], choices: Choices, least: NDArray[np.int64]) -> _Part | None:
        """The front of all units; None where it does not fit and there is something good enough instead."""
        self._left = sum(map(len, groups))
        parts = [self._fold([self._leaf(choices, unit, int(least[unit])) for unit in units]) for units in groups]
        if any(part is None for part in parts):
            return None
        return self._fold(sorted((part for part in parts if part is not None), key=lambda part: len(part.cost)))

    def _leaf(self, choices: Choices, unit: int, least: int) -> _Part:
        (widths,) = np.nonzero(choices.useful[unit] & (choices.loss[unit] + self._least - least <= self._limit))
        widths = widths[np.argsort(choices.cost[unit, widths], kind="stable")]
        leaf = _Leaf(unit, widths.astype(np.int8))
        return _Part(choices.cost[unit, widths], choices.loss[unit, widths], least, leaf)

    def _fold(self, parts: list[_Part]) -> _Part | None:
        whole: _Part | None = parts[0]
        for part in parts[1:]:
            if whole is not None:
                whole = self._join(whole, part)
        return whole

    def _join(self, left: _Part, right: _Part) -> _Part | None:
        """The front of both together, thinned out to this join's share of memory and work."""
        self._left -= 1
        room = self._memory // (POINT_BYTES + KEPT_BYTES * self._left)
        most = max(min(room, self._work // (self._left + 1) // len(right.cost)), FEWEST)
        least = left.least + right.least
        rest = self._least - least
        n = len(right.cost)
        rows = max(self._chunk // n, 1)
        cost = loss = np.empty(0, dtype=np.int64)
        source = np.empty(0, dtype=np.int64)
        for start in range(0, len(left.cost), rows):
            # One long rising run for each point on the right: sorting then comes down to merging.
            costs = (right.cost[:, None] + left.cost[start : start + rows]).ravel()
            losses = (right.loss[:, None] + left.loss[start : start + rows]).ravel()
            (index,) = np.nonzero(losses + rest <= self._limit)
            index = index[undominated(costs[index], losses[index])]
            cost, loss = np.concatenate([cost, costs[index]]), np.concatenate([loss, losses[index]])
            on_right, on_left = np.divmod(index, len(costs) // n)
            source = np.concatenate([source, (on_left + start) * n + on_right])
            best = undominated(cost, loss)
            if len(best) > most:
                if self._give_up:
                    return None
                best = best[self._thin(loss[best] + rest, most)]
            cost, loss, source = cost[best], loss[best], source[best]
        self._work -= len(left.cost) * n
        pair = _Pair(left.trace, right.trace, (source // n).astype(np.int32), (source % n).astype(np.int32))
        self._memory -= pair.from_left.nbytes + pair.from_right.nbytes
        return _Part(cost, loss, least, pair)

    def _thin(self, loss: NDArray[np.int64], most: int) -> NDArray[np.intp]:
        """Indices of at most so many points, the first of each of equal steps in the most retention yet possible.

        A point that is left out has a kept one that costs no more; completed alike, it has at most so much less
        retention as the two differ here, since whatever is still to choose cannot lose less than its least.
        """
        self.thinned = True
        possible = retention_of(loss)
        if possible[-1] == possible[0]:
            return np.zeros(1, dtype=np.intp)
        step = (possible[-1] - possible[0]) / (most - 1)
        cell = np.floor((possible - possible[0]) / step)
        first = np.nonzero(np.diff(cell, prepend=-1.0))[0]
        last = np.append(first[1:], len(loss)) - 1
        self.epsilon += float((possible[last] - possible[first]).max())
        return first
