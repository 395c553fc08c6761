"""Dynamic programme over the choices that may still beat an incumbent.

A state is a whole allocation: the units gone through have chosen, the others stand at their base. So every state is a
candidate, and a better one tightens the limits of all that follows (the core idea of Pisinger 1995 for multiple-choice
knapsacks). States that another dominates, or that lie beyond a limit, are dropped.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.choices import scores_of
from evoquant.bounds.relaxation import Level, lens, most_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices
    from evoquant.bounds.envelope import Envelope
    from evoquant.bounds.relaxation import Limits
    from evoquant.scoring.objective import Objective

TIGHTEN_FROM = 512  # states from which computing the limits again costs less than it saves


@dataclass(frozen=True, eq=False)
class Incumbent:
    """The best allocation so far: most fitness, then least cost, then least loss."""

    fitness: float
    cost: int
    loss: int
    allocation: NDArray[np.int8]

    def beaten_by(self, fitness: float, cost: int, loss: int) -> bool:
        """Whether another is better in this order."""
        return (-fitness, cost, loss) < (-self.fitness, self.cost, self.loss)


def best_of(fitness: NDArray[np.float64], cost: NDArray[np.int64], loss: NDArray[np.int64]) -> int:
    """Index of the best of `(n,)` points: most fitness, then least cost, then least loss."""
    (best,) = np.nonzero(fitness == fitness.max())
    return int(best[np.lexsort((loss[best], cost[best]))[0]])


def undominated(cost: NDArray[np.int64], loss: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices of the Pareto-optimal points, cost rising; of equal points the first."""
    order = np.argsort(cost, kind="stable")
    least = np.minimum.accumulate(loss[order])
    falls = np.ones(len(order), dtype=bool)
    falls[1:] = least[1:] < least[:-1]
    order = order[falls]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = cost[order[1:]] > cost[order[:-1]]
    return order[last]


def improve(
    choices: Choices,
    objective: Objective,
    envelope: Envelope,
    limits: Limits,
    incumbent: Incumbent,
    *,
    states: int,
    work: int,
) -> tuple[Incumbent, bool]:
    """The best of the incumbent and all that the limits leave, and whether nothing was given up on the way.

    Args:
        choices: the problem's.
        objective: what to maximise.
        envelope: of the choices that the limits were computed from.
        limits: for reaching the incumbent's level.
        incumbent: the best known.
        states: the most states kept after a unit; beyond it those of least reduced cost stay.
        work: the most states made in all; beyond it the rest of the units stay at their base.
    """
    stages = _stages(choices, limits)
    base_cost, base_loss = choices.sums(limits.base)
    cost, loss = np.array([base_cost]), np.array([base_loss])
    wl, wc, most = limits.loss_weight, limits.cost_weight, limits.most
    trail: list[tuple[NDArray[np.int32], NDArray[np.int8]]] = []
    best, complete, made = incumbent, True, 0
    at: tuple[int, int] | None = None
    fitness = scores_of(choices.problem, objective, cost, loss).fitness
    if best.beaten_by(float(fitness[0]), base_cost, base_loss):
        best = Incumbent(float(fitness[0]), base_cost, base_loss, limits.base)
    for stage in stages:
        n = len(cost)
        made += n * len(stage.widths)
        if made > work:
            complete = False
            break
        costs, losses = (cost + stage.cost[:, None]).ravel(), (loss + stage.loss[:, None]).ravel()
        inside = np.ones(len(costs), dtype=bool)
        for k in range(len(wl)):
            inside &= wl[k] * losses + wc[k] * costs <= most[k] + stage.ahead[k]
        (index,) = np.nonzero(inside)
        index = index[undominated(costs[index], losses[index])]
        if len(index) > states:
            complete = False
            reduced = wl[0] * losses[index] + wc[0] * costs[index]
            index = index[np.sort(np.argsort(reduced, kind="stable")[:states])]
        cost, loss = costs[index], losses[index]
        trail.append(((index % n).astype(np.int32), stage.widths[index // n]))
        if not len(index):
            break
        fitness = scores_of(choices.problem, objective, cost, loss).fitness
        top = best_of(fitness, cost, loss)
        if best.beaten_by(float(fitness[top]), int(cost[top]), int(loss[top])):
            at = len(trail) - 1, top
            best = Incumbent(float(fitness[top]), int(cost[top]), int(loss[top]), limits.base)
            if len(cost) >= TIGHTEN_FROM:
                level = Level(choices.problem, objective, best.fitness, best.cost)
                most = most_of(envelope, level, lens(envelope, level), wl, wc)
    if at is not None:
        best = dataclasses.replace(best, allocation=_trace_back(limits.base, stages, trail, *at))
    return best, complete


def _trace_back(
    base: NDArray[np.int8],
    stages: list[_Stage],
    trail: list[tuple[NDArray[np.int32], NDArray[np.int8]]],
    last: int,
    row: int,
) -> NDArray[np.int8]:
    """The allocation of the state in that row after the stage of index `last`."""
    allocation = base.copy()
    for stage, (parents, widths) in zip(reversed(stages[: last + 1]), reversed(trail[: last + 1]), strict=True):
        allocation[stage.unit] = widths[row]
        row = int(parents[row])
    return allocation


@dataclass(frozen=True, eq=False)
class _Stage:
    """One unit's turn: its widths as differences to its base, and how much the later units' base is above their least.

    Attributes:
        unit: which.
        widths: `(w,)` the base first.
        cost, loss: `(w,)`.
        ahead: `(directions,)`.
    """

    unit: int
    widths: NDArray[np.int8]
    cost: NDArray[np.int64]
    loss: NDArray[np.int64]
    ahead: NDArray[np.float64]


def _stages(choices: Choices, limits: Limits) -> list[_Stage]:
    """The units that have a choice, those whose second choice has the least reduced cost first."""
    (units,) = np.nonzero(limits.survivors.sum(axis=1) > 1)
    base = limits.base[units]
    cost = choices.cost[units] - choices.cost[units, base][:, None]
    loss = choices.loss[units] - choices.loss[units, base][:, None]
    alive = limits.survivors[units]
    values = limits.loss_weight[:, None, None] * loss + limits.cost_weight[:, None, None] * cost
    values = np.where(alive, values, np.inf)
    order = np.argsort(np.sort(values[0], axis=1)[:, 1], kind="stable")
    above = -values.min(axis=2)[:, order]
    ahead = np.cumsum(above[:, ::-1], axis=1)[:, ::-1] - above
    stages = []
    for place, row in enumerate(order):
        widths = np.nonzero(alive[row])[0]
        widths = np.concatenate([[base[row]], widths[widths != base[row]]])
        stages.append(
            _Stage(int(units[row]), widths.astype(np.int8), cost[row, widths], loss[row, widths], ahead[:, place])
        )
    return stages
