"""Of equally fit allocations the cheapest, and of these the one of smallest digest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.choices import allocation_digest
from evoquant.bounds.relaxation import Level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices
    from evoquant.bounds.envelope import Envelope
    from evoquant.bounds.programme import Incumbent
    from evoquant.scoring.objective import Objective

Sums = tuple["NDArray[np.int64]", "NDArray[np.int64]"]

SUMS = 2**16  # the most sums of the units still to choose that are looked at


@dataclass(frozen=True, eq=False)
class _Core:
    """The units that may differ between allocations of one cost and at most so much loss; the last one chooses first.

    Attributes:
        base: `(units,)` an allocation; whoever is not listed keeps its width.
        units: the listed ones.
        widths: per listed unit, what it may take.
        cost, loss: per listed unit, of these widths, as differences to its base.
        sums: for the first 0, 1, 2, … listed units, (what their costs can add up to, rising; the least loss of each).
    """

    base: NDArray[np.int8]
    units: list[int]
    widths: list[NDArray[np.int8]]
    cost: list[NDArray[np.int64]]
    loss: list[NDArray[np.int64]]
    sums: list[Sums]


def settle(
    choices: Choices, objective: Objective, envelope: Envelope, best: Incumbent, most: int
) -> tuple[Incumbent, int, bool]:
    """The tie-break's winner, how many allocations of its fitness and cost were found, whether these are all.

    Dominated widths count too, since losing more at equal cost need not lower the fitness. Where more than `most` tie,
    only those of least loss stay in the running; where these are too many as well, the first `most` in a fixed order.

    Args:
        choices: the problem's.
        objective: what was maximised.
        envelope: of the useful choices.
        best: an optimal allocation of least cost and, at that cost, of least loss.
        most: the most allocations whose digests are compared.
    """
    problem = choices.problem
    highest = int(np.where(choices.allowed, choices.loss, np.iinfo(np.int64).min).max(axis=1).sum())
    level = Level(problem, objective, best.fitness, best.cost)
    limit = int(level.most_loss(np.array([best.cost]), np.array([best.loss]), np.array([highest]))[0])
    for most_loss in dict.fromkeys((limit, best.loss)):
        core = _core_of(choices, envelope, best.cost, most_loss)
        if core is None:
            continue
        found, all_found = _enumerate(choices, core, best.cost, most_loss, most)
        if all_found or most_loss == best.loss:
            winner = min(found, key=lambda allocation: allocation_digest(problem, allocation))
            settled = dataclasses.replace(best, loss=choices.sums(winner)[1], allocation=winner)
            return settled, len(found), all_found and most_loss == limit
    return best, 1, False


def _core_of(choices: Choices, envelope: Envelope, cost: int, loss: int) -> _Core | None:
    """The widths that allocations of that cost and at most that loss may have; None where there are too many sums."""
    near = int(np.searchsorted(envelope.cost, cost))
    slopes = envelope.slope[max(near - 2, 0) : near + 2].tolist()
    survivors = choices.allowed.copy()
    kept: list[tuple[int, int, float, float]] = []
    for wl, wc in [*((1.0, slope) for slope in slopes), (1.0, 0.0), (0.0, 1.0)]:
        value = np.where(choices.allowed, wl * choices.loss + wc * choices.cost, np.inf)
        reduced = value - value.min(axis=1)[:, None]
        inside = reduced <= _room(choices, reduced.argmin(axis=1).astype(np.int8), wl, wc, cost, loss)
        survivors &= inside
        kept.append((int(inside.sum()), len(kept), wl, wc))
    _, _, wl, wc = min(kept)  # the most selective direction
    value = np.where(survivors, wl * choices.loss + wc * choices.cost, np.inf)
    base = value.argmin(axis=1).astype(np.int8)
    room = _room(choices, base, wl, wc, cost, loss)
    (units,) = np.nonzero(survivors.sum(axis=1) > 1)
    least = np.sort(value[units], axis=1)[:, :2]
    units = units[np.argsort(least[:, 0] - least[:, -1], kind="stable")]
    core = _Core(base, units.tolist(), [], [], [], [(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))])
    for unit in core.units:
        widths = np.nonzero(survivors[unit])[0].astype(np.int8)
        core.widths.append(widths)
        core.cost.append(choices.cost[unit, widths] - choices.cost[unit, base[unit]])
        core.loss.append(choices.loss[unit, widths] - choices.loss[unit, base[unit]])
        costs = (core.sums[-1][0][:, None] + core.cost[-1]).ravel()
        losses = (core.sums[-1][1][:, None] + core.loss[-1]).ravel()
        inside = wl * losses + wc * costs <= room
        core.sums.append(_least_loss(costs[inside], losses[inside]))
        if len(core.sums[-1][0]) > SUMS:
            return None
    return core


def _room(choices: Choices, base: NDArray[np.int8], wl: float, wc: float, cost: int, loss: int) -> float:
    """How much reduced cost an allocation of that cost and loss may have against a base, rounding allowed for."""
    base_cost, base_loss = choices.sums(base)
    rounding = (wl * max(abs(loss), abs(base_loss)) + wc * max(cost, base_cost)) * (len(base) + 64) * 2.0**-52
    return wl * (loss - base_loss) + wc * (cost - base_cost) + rounding + wl


def _least_loss(cost: NDArray[np.int64], loss: NDArray[np.int64]) -> Sums:
    """The distinct costs, rising, and the least loss of each."""
    order = np.argsort(cost, kind="stable")
    distinct, first = np.unique(cost[order], return_index=True)
    return distinct, np.minimum.reduceat(loss[order], first) if len(first) else loss


def _enumerate(choices: Choices, core: _Core, cost: int, loss: int, most: int) -> tuple[NDArray[np.int8], bool]:
    """`(n, units)` the allocations of that cost and at most that loss, at most so many, and whether that is all.

    Every part of an allocation that is kept can be completed: there are never more parts than allocations.
    """
    base_cost, base_loss = choices.sums(core.base)
    cost_left = np.array([cost - base_cost])
    loss_left = np.array([loss - base_loss])
    chosen = np.empty((1, 0), dtype=np.int8)
    complete = True
    for place in reversed(range(len(core.units))):
        costs = (cost_left[:, None] - core.cost[place]).ravel()
        losses = (loss_left[:, None] - core.loss[place]).ravel()
        sums, least = core.sums[place]
        at = np.minimum(np.searchsorted(sums, costs), len(sums) - 1)
        (index,) = np.nonzero((sums[at] == costs) & (least[at] <= losses))
        complete &= len(index) <= most
        index = index[:most]
        row, width = np.divmod(index, len(core.widths[place]))
        cost_left, loss_left = costs[index], losses[index]
        chosen = np.column_stack([chosen[row], core.widths[place][width]])
    found = np.repeat(core.base[None], len(chosen), axis=0)
    found[:, core.units[::-1]] = chosen
    return found, complete
