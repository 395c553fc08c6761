"""The lower convex envelope of (cost, loss) over all allocations, and upper bounds from it.

Each unit's lower hull is a chain of steps, each paying cost for less loss; all chains merged by falling slope (loss
saved per cost) are the envelope of the whole problem: the Lagrangian relaxation (Everett 1963; Shoham and Gersho 1988
for bit allocation). Its vertices are allocations; between two of them it lies below every allocation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices


@dataclass(frozen=True, eq=False)
class Envelope:
    """The envelope of a set of choices.

    Attributes:
        start: `(units,)` the cheapest allocation, vertex 0.
        unit, to: `(steps,)` vertex k + 1 is vertex k with `unit[k]` set to `to[k]`.
        slope: `(steps,)` loss saved per cost, falling.
        cost, loss: `(steps + 1,)` int64 exact totals of the vertices, cost rising, loss falling.
        margin: how far, in units of loss, the envelope may lie below its vertices' chords for rounding of slopes.
    """

    start: NDArray[np.int8]
    unit: NDArray[np.intp]
    to: NDArray[np.int8]
    slope: NDArray[np.float64]
    cost: NDArray[np.int64]
    loss: NDArray[np.int64]
    margin: int

    def vertex(self, k: int) -> NDArray[np.int8]:
        """The `(units,)` allocation of vertex k."""
        allocation = self.start.copy()
        allocation[self.unit[:k]] = self.to[:k]  # of a unit's several steps the last one stays
        return allocation


def envelope_of(choices: Choices, useful: NDArray[np.bool_]) -> Envelope:
    """The envelope of the choices that `useful` `(units, P)` leaves, which must not dominate each other."""
    cost, loss = choices.cost, choices.loss
    rows = np.arange(len(cost))
    largest = np.iinfo(np.int64).max
    start = np.where(useful, cost, largest).argmin(axis=1)
    unit, current = rows, start
    units, tos, slopes = [], [], []
    steepest = np.full(len(cost), np.inf)
    while True:
        ahead = useful[unit] & (cost[unit] > cost[unit, current][:, None])
        some = ahead.any(axis=1)
        unit, current, ahead = unit[some], current[some], ahead[some]
        if not len(unit):
            break
        paid = np.where(ahead, cost[unit] - cost[unit, current][:, None], 1)
        saved = loss[unit, current][:, None] - loss[unit]
        slope = np.where(ahead, saved / paid, -1.0)
        current = slope.argmax(axis=1)
        # Rounding must not put a unit's second step before its first.
        steepest[unit] = np.minimum(steepest[unit], slope[np.arange(len(unit)), current])
        units.append(unit)
        tos.append(current)
        slopes.append(steepest[unit])
    cost_0 = int(cost[rows, start].sum()) + choices.problem.cost.constant
    loss_0 = int(loss[rows, start].sum())
    if not units:
        none = np.empty(0)
        ends = np.array([cost_0]), np.array([loss_0])
        return Envelope(start.astype(np.int8), none.astype(np.intp), none.astype(np.int8), none, *ends, 0)
    order = np.argsort(-np.concatenate(slopes), kind="stable")
    unit, to = np.concatenate(units), np.concatenate(tos)
    before = np.concatenate([start, *tos])[_previous(units, len(cost))]
    paid, saved = cost[unit, to] - cost[unit, before], loss[unit, before] - loss[unit, to]
    costs = cost_0 + np.concatenate([[0], np.cumsum(paid[order])])
    losses = loss_0 - np.concatenate([[0], np.cumsum(saved[order])])
    return Envelope(
        start=start.astype(np.int8),
        unit=unit[order],
        to=to[order].astype(np.int8),
        slope=np.concatenate(slopes)[order],
        cost=costs,
        loss=losses,
        margin=len(cost) + (int(losses[0] - losses[-1]) >> 48),
    )


def _previous(units: list[NDArray[np.intp]], n: int) -> NDArray[np.intp]:
    """For every step, where in (starts, first steps, second steps, …) its unit stood before."""
    last = np.arange(n)
    places, offset = [], n
    for unit in units:
        places.append(last[unit])
        last[unit] = offset + np.arange(len(unit))
        offset += len(unit)
    return np.concatenate(places)


@dataclass(frozen=True, eq=False)
class Cells:
    """Pieces of the envelope: every allocation lies in one, at a cost from `low` to `high` and with at least `loss`.

    Attributes:
        parts: into how many each segment of the envelope is cut.
        segment: `(cells,)` index of the segment.
        part: `(cells,)` which of its parts.
        envelope: whose.
        low, high: `(cells,)` int64 costs, rounded outwards.
        loss: `(cells,)` int64, of the end at `high`, rounded down.
    """

    parts: int
    segment: NDArray[np.intp]
    part: NDArray[np.int64]
    envelope: Envelope
    low: NDArray[np.int64] = field(init=False)
    high: NDArray[np.int64] = field(init=False)
    loss: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        cost, loss = self.envelope.cost, self.envelope.loss
        end = np.minimum(self.segment + 1, len(cost) - 1)
        low, high, width = cost[self.segment], cost[end], cost[end] - cost[self.segment]
        saved = _share(loss[self.segment] - loss[end], self.part + 1, self.parts) + 1
        object.__setattr__(self, "low", low + _share(width, self.part, self.parts))
        object.__setattr__(self, "high", np.minimum(low + _share(width, self.part + 1, self.parts) + 1, high))
        object.__setattr__(self, "loss", np.maximum(loss[self.segment] - saved, loss[end]) - self.envelope.margin)

    def __len__(self) -> int:
        return len(self.segment)

    def where(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Cells:
        """The cells that `keep` marks or lists."""
        return Cells(self.parts, self.segment[keep], self.part[keep], self.envelope)

    def split(self, parts: int) -> Cells:
        """Every cell cut into so many."""
        part = (self.part[:, None] * parts + np.arange(parts)).ravel()
        return Cells(self.parts * parts, np.repeat(self.segment, parts), part, self.envelope)


def cells_of(envelope: Envelope) -> Cells:
    """The envelope's segments as cells; the one point of an envelope without segments is a cell too."""
    segment = np.arange(max(len(envelope.unit), 1))
    return Cells(1, segment, np.zeros(len(segment), dtype=np.int64), envelope)


def _share(total: NDArray[np.int64], part: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """⌊total · part / parts⌋ without a product that could overflow, parts being below 2^31."""
    return total // parts * part + total % parts * part // parts
