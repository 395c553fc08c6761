"""What can still beat an incumbent, by Lagrangian bounds.

For weights (wl, wc) ≥ 0 each choice has a reduced cost: how much its wl · loss + wc · cost exceeds its unit's least.
An allocation at least as good as the incumbent lies between the envelope and the incumbent's level curve, so its
reduced costs add up to at most the width G of that lens in the direction of the weights. Choices beyond G are left
out (variable fixing, Ingargiola and Korsh 1973), and so are partial sums beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.choices import scores_of
from evoquant.bounds.envelope import cells_of
from evoquant.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices
    from evoquant.bounds.envelope import Cells, Envelope
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem

CELLS = 1024  # the lens is cut into about so many pieces
SPLIT = 8
ROUNDS = 8  # 8^8 parts of a segment at most, which keeps products within 63 bits
PROBES = 4096  # losses tried at a time
DIRECTIONS = 16
TESTED = 4  # directions that every partial sum is tested in


@dataclass(frozen=True)
class Level:
    """What beats an incumbent: more fitness, or equal fitness at no more cost."""

    problem: Problem
    objective: Objective
    fitness: float
    cost: int

    def reached(self, cost: NDArray[np.int64], loss: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether points `(n,)` are at least as good as the incumbent; for a monotone objective monotone in both."""
        fitness = scores_of(self.problem, self.objective, cost, loss).fitness
        reached: NDArray[np.bool_] = (fitness > self.fitness) | ((fitness == self.fitness) & (cost <= self.cost))
        return reached

    def most_loss(self, cost: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
        """`(n,)` the largest loss in [low, high] that still reaches the level at each cost; `low` must reach it."""
        high = np.maximum(low, high)
        parts = max(PROBES // len(cost), 2)  # a bisection into many parts: few calls while the arrays are short
        costs = np.repeat(cost, parts)
        while (low < high).any():
            step = -((low - high) // parts)
            probes = np.minimum(low[:, None] + step[:, None] * np.arange(1, parts + 1), high[:, None])
            count = self.reached(costs, probes.ravel()).reshape(probes.shape).sum(axis=1)
            high = np.maximum(low, np.minimum(high, low + step * (count + 1) - 1))  # also where the step is 0
            low = np.minimum(low + step * count, high)
        return low


@dataclass(frozen=True, eq=False)
class Limits:
    """Directions, and how far in each an allocation that reaches the level may lie.

    Attributes:
        loss_weight, cost_weight: `(directions,)`, the most selective direction first.
        most: `(directions,)` the most that wl · loss + wc · cost may be, rounding allowed for.
        survivors: `(units, P)` bool, the choices that may be part of such an allocation.
        base: `(units,)` each unit's surviving choice of least wl · loss + wc · cost in the first direction.
    """

    loss_weight: NDArray[np.float64]
    cost_weight: NDArray[np.float64]
    most: NDArray[np.float64]
    survivors: NDArray[np.bool_]
    base: NDArray[np.int8]


def lens(envelope: Envelope, level: Level) -> Cells:
    """The pieces of the envelope that may reach the level of an incumbent, finely cut.

    Raises:
        InputError: none does, not even the incumbent's own, so the objective is not monotone.
    """
    cells = cells_of(envelope)
    for _ in range(ROUNDS):
        cells = cells.where(level.reached(cells.low, cells.loss))
        if not len(cells):
            raise InputError(
                f"{level.objective!r} gives an allocation more than it gives to more retention at less cost; "
                f"bounds need an objective that never falls with retention or rises with cost."
            )
        if len(cells) * SPLIT > CELLS:
            break
        cells = cells.split(SPLIT)
    return cells


def limits_of(choices: Choices, envelope: Envelope, useful: NDArray[np.bool_], level: Level) -> Limits:
    """The limits for reaching a level with the useful choices, whose envelope is given and which can reach it."""
    cells = lens(envelope, level)
    slopes = envelope.slope[np.unique(cells.segment)] if len(envelope.unit) else np.empty(0)
    chosen = slopes[np.unique(np.linspace(0, len(slopes) - 1, DIRECTIONS).astype(np.intp))] if len(slopes) else slopes
    loss_weight = np.concatenate([np.ones(len(chosen) + 1), [0.0]])
    cost_weight = np.concatenate([chosen, [0.0, 1.0]])
    most = most_of(envelope, level, cells, loss_weight, cost_weight)
    survivors = useful.copy()
    counts = []
    for wl, wc, limit in zip(loss_weight, cost_weight, most, strict=True):
        value = np.where(useful, wl * choices.loss + wc * choices.cost, np.inf)
        least = value.min(axis=1)
        kept = value - least[:, None] <= limit - (least.sum() + wc * choices.problem.cost.constant)
        counts.append(int(kept.sum()))
        survivors &= kept
    order = np.argsort(counts, kind="stable")[:TESTED]
    first = order[0]
    value = loss_weight[first] * choices.loss + cost_weight[first] * choices.cost
    base = np.where(survivors, value, np.inf).argmin(axis=1).astype(np.int8)
    return Limits(loss_weight[order], cost_weight[order], most[order], survivors, base)


def most_of(
    envelope: Envelope,
    level: Level,
    cells: Cells,
    loss_weight: NDArray[np.float64],
    cost_weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """`(directions,)` the most that wl · loss + wc · cost can be inside the lens whose cells are given."""
    loss = level.most_loss(cells.low, cells.loss, np.full(len(cells), envelope.loss[0]))
    farthest = (loss_weight[:, None] * loss + cost_weight[:, None] * cells.high).max(axis=1)
    largest = loss_weight * np.abs(envelope.loss).max() + cost_weight * envelope.cost[-1]
    rounding = (len(envelope.start) + 64) * 2.0**-52
    return np.asarray(farthest + largest * rounding + loss_weight, dtype=np.float64)


def upper_bound(envelope: Envelope, level: Level) -> float:
    """No allocation's fitness is above this: the best corner of the finely cut envelope, or the incumbent's own."""
    cells = cells_of(envelope)
    settled = best = level.fitness
    for _ in range(ROUNDS):
        corners = scores_of(level.problem, level.objective, cells.low, cells.loss).fitness
        best = max(float(corners.max()), settled)
        order = np.argsort(-corners, kind="stable")
        kept = order[: CELLS // SPLIT]
        if len(order) > len(kept):
            settled = max(settled, float(corners[order[len(kept)]]))
        kept = kept[corners[kept] > settled]
        if not len(kept):
            break
        cells = cells.where(kept).split(SPLIT)
    return best
