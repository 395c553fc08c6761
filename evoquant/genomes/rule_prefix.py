"""Rules that read at most one signal: prefix sums, so that a genome's cost hardly grows with the model.

    units of one type, sorted by the signal   → each rung of the ladder is an interval of ranks
    an interval and a width                   → the difference of two prefix sums of loss and cost
    what edges leave of it, a rectangle       → four sums of a grid of position and signal, and up to half a block of
      of positions and ranks                    units at each of its sides, looked at one by one

A block of the grid is so large that there are no more cells than units. The tables of a signal take
N · (32 P + 4 types + 16) bytes, for 100,000 units, 5 widths and 6 types 20 MB. They are made when enough rules have
read it, as long as all together stay below `LIMIT_BYTES`; other signals, and rules that read several, are left to the
masks of `evoquant.genomes.rule_compiled`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem

LIMIT_BYTES = 2 * 10**8  # of all signals
ASKED = 512  # rules that read a signal: masks for twice as many take as long as its tables to be made
LEAST_SHIFT = 4  # of a block: 16 units


class Prefixes(NamedTuple):
    """A problem's N units in G groups of one type, for S signals of which the first is the position.

    A slot is a unit's place in the order of groups and, within one, of a signal: one order for each signal.

    Attributes:
        place: `(S,)` where in the arrays beneath a signal is, -1 where nowhere.
        asked: `(S,)` rules that have read it.
        kinds: `(G,)` the type's index in the space, -1 for those that it does not know.
        base: `(G + 1,)` the first slot of a group.
        values: `(places, N)` in ascending order, over all groups.
        slots: `(places, N + 1, G)` the slot where a group goes on after so many of `values`.
        sums: `(places, P, N + 1, 2)` loss and cost of the units in slots before this one.
        positions: `(places, N)` the slot by position of the unit in a slot by the signal.
        ranks: `(places, N)` the slot by the signal of the unit in a slot by position.
        grid: `(places, P, cells, 2)` loss and cost of a group's units before both lines that cross there.
        cells: `(G,)` a group's first.
        sides: `(G,)` blocks of a group on a side: it has one more line.
        shift: `(1,)` binary logarithm of the units in a block.
    """

    place: NDArray[np.int64]
    asked: NDArray[np.int64]
    kinds: NDArray[np.int64]
    base: NDArray[np.int64]
    values: NDArray[np.float64]
    slots: NDArray[np.int32]
    sums: NDArray[np.int64]
    positions: NDArray[np.int32]
    ranks: NDArray[np.int32]
    grid: NDArray[np.int64]
    cells: NDArray[np.int64]
    sides: NDArray[np.int64]
    shift: NDArray[np.int64]


class OneSignal:
    """Prefix sums of one problem for rules over these types and signals; None of them is made before it is asked for.

    Args:
        problem: whose positions are numbers.
        types, signals: the space's.
        entries: `(N, P, 2)` loss and cost of a unit where a genome names a width.
    """

    def __init__(
        self, problem: Problem, types: Sequence[str], signals: Sequence[str], entries: NDArray[np.int64]
    ) -> None:
        self._read = [problem.position, *(problem.signal(name) for name in signals)]
        self._types = len(types)
        self._entries = entries
        self._lock = threading.Lock()  # several threads may score one problem
        known = {kind: column for column, kind in reversed(list(enumerate(types)))}
        column = np.array([known.get(kind, -1) for kind in problem.types.tolist()])
        kinds, self._group = np.unique(column, return_inverse=True)
        units, widths = entries.shape[:2]
        members = np.bincount(self._group)
        base = np.concatenate([[0], np.cumsum(members)])
        shift, sides = _blocks(members)
        cells = np.concatenate([[0], np.cumsum((sides + 1) ** 2)])
        each = units * (16 + 4 * len(kinds)) + 16 * widths * (units + int(cells[-1]))
        places = min(len(self._read), LIMIT_BYTES // each)
        self.tables = Prefixes(
            place=np.full(len(self._read), -1),
            asked=np.zeros(len(self._read), dtype=np.int64),
            kinds=kinds,
            base=base,
            values=np.zeros((places, units)),
            slots=np.zeros((places, units + 1, len(kinds)), dtype=np.int32),
            sums=np.zeros((places, widths, units + 1, 2), dtype=np.int64),
            positions=np.zeros((places, units), dtype=np.int32),
            ranks=np.zeros((places, units), dtype=np.int32),
            grid=np.zeros((places, widths, cells[-1], 2), dtype=np.int64),
            cells=cells[:-1],
            sides=sides,
            shift=np.array([shift]),
        )

    def prepare(self, genes: NDArray[np.float64]) -> None:
        """Make the tables of what these `(n, genes)` rules read, if enough have by now."""
        from evoquant.genomes import rule_prefix_kernel

        tables = self.tables
        if (tables.place >= 0).all():
            return
        with self._lock:
            rule_prefix_kernel.count(genes, self._types, tables.asked)
            for signal in np.flatnonzero((tables.asked >= ASKED) & (tables.place < 0)).tolist():
                for needed in dict.fromkeys((0, signal)):
                    place = int(tables.place.max()) + 1
                    if tables.place[needed] < 0 and place < len(tables.values):
                        self._make(needed, place)

    def _make(self, signal: int, place: int) -> None:
        from evoquant.genomes import rule_prefix_kernel

        tables, group = self.tables, self._group
        # A NaN is above no threshold, and neither is minus infinity, which can be sorted.
        values = np.where(np.isnan(self._read[signal]), -np.inf, self._read[signal])
        ascending = np.argsort(values, kind="stable")
        order = ascending[np.argsort(group[ascending], kind="stable")]
        tables.values[place] = values[ascending]
        tables.slots[place] = tables.base[:-1]
        for g in range(len(tables.kinds)):
            tables.slots[place, 1:, g] += np.cumsum(group[ascending] == g, dtype=np.int32)
        np.cumsum(self._entries[order].swapaxes(0, 1), axis=1, out=tables.sums[place, :, 1:])
        slots = np.empty(len(order), dtype=np.int64)
        slots[order] = np.arange(len(order))
        if signal == 0:
            self._slots = slots
        else:
            tables.positions[place] = self._slots[order]
            tables.ranks[place, self._slots] = slots
            tables.grid[place] = 0  # an interruption may have left it half filled
            rule_prefix_kernel.fill_grid(tables.grid, place, self._entries, self._slots, slots, group, tables)
        tables.place[signal] = place

    def score(
        self, genes: NDArray[np.float64], losses: NDArray[np.int64], costs: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Add sums to `losses` and `costs`, `(n,)` zeros, where there are tables.

        Args:
            genes: `(n, genes)` rules.
            losses, costs: filled.

        Returns:
            The other rows; None where one is not within its limits.
        """
        from evoquant.genomes import rule_prefix_kernel

        rest = np.empty(len(genes), dtype=np.int64)
        left = rule_prefix_kernel.sums(genes, self._types, self.tables, losses, costs, rest)
        return None if left < 0 else rest[:left]


def _blocks(members: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Logarithm of a block's units, and blocks of each group on a side: no more cells than units, where there are many.

    Args:
        members: `(G,)` units of each group.
    """
    shift = LEAST_SHIFT
    while True:
        sides = -(-members >> shift)
        if ((sides + 1) ** 2).sum() <= members.sum() or sides.max() <= 1:
            return shift, sides
        shift += 1
