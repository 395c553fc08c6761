"""The compiled pass over rules that read at most one signal: prefix sums instead of masks.

Imported only for populations that are worth a compiler's start; see `evoquant.genomes.rule_prefix` for the tables.
Arrays are indexed where they are used rather than handed on as views, which would be counted in the loop.
"""

from __future__ import annotations

import numpy as np

from evoquant.scoring.compiled import compiled, inlined


@compiled
def fill_grid(grid, at, entries, positions, slots, group, tables):  # type: ignore[no-untyped-def]
    """Fill `grid[at]` from the units: entries `(N, P, 2)`, slots by position and by signal `(N,)`, groups `(N,)`."""
    base, cells, sides, shift = tables.base, tables.cells, tables.sides, tables.shift[0]
    for unit in range(len(group)):
        g = group[unit]
        row, column = (positions[unit] - base[g]) >> shift, (slots[unit] - base[g]) >> shift
        cell = cells[g] + (row + 1) * (sides[g] + 1) + column + 1
        for width in range(entries.shape[1]):
            grid[at, width, cell, 0] += entries[unit, width, 0]
            grid[at, width, cell, 1] += entries[unit, width, 1]
    for width in range(entries.shape[1]):
        for g in range(len(sides)):
            side = sides[g] + 1
            for cell in range(cells[g] + side, cells[g] + side * side):
                for k in range(2):
                    if (cell - cells[g]) % side > 0:  # the row so far; the first of a row stays 0
                        grid[at, width, cell, k] += grid[at, width, cell - 1, k]
            for cell in range(cells[g] + side, cells[g] + side * side):
                for k in range(2):
                    grid[at, width, cell, k] += grid[at, width, cell - side, k]


@inlined
def _signal_of(genes, row, types, signals):  # type: ignore[no-untyped-def]
    """The one signal that the present rungs read, 0 without any; -1 where there are several, or one unknown."""
    one = 0
    for column in range(types + 3, genes.shape[1] - 1, 3):
        signal = int(genes[row, column])
        if signal not in (0, one):
            if one != 0 or not 0 < signal < signals:
                return -1
            one = signal
    return one


@compiled
def count(genes, types, asked):  # type: ignore[no-untyped-def]
    """Add to `asked`, `(S,)`, how many rules read this signal and no other."""
    for row in range(genes.shape[0]):
        signal = _signal_of(genes, row, types, asked.size)
        if signal >= 0:
            asked[signal] += 1


@inlined
def _rank(values, at, threshold, strict):  # type: ignore[no-untyped-def]
    """How many values are not above a threshold (strict), or below it; NaN has all of them below."""
    low, high = 0, values.shape[1]
    while low < high:
        middle = (low + high) >> 1
        value = values[at, middle]
        if (strict and value > threshold) or (not strict and not value < threshold):
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def _range(sums, at, width, begin, end):  # type: ignore[no-untyped-def]
    """Loss and cost of the units in slots from `begin` to `end`."""
    return (
        sums[at, width, end, 0] - sums[at, width, begin, 0],
        sums[at, width, end, 1] - sums[at, width, begin, 1],
    )


@inlined
def _strip(sums, at, width, begin, end, other, across, low, high):  # type: ignore[no-untyped-def]
    """The same of those whose slot in the other order lies from `low` to `high`; negative where `end` comes first."""
    loss, cost = 0, 0
    for slot in range(min(begin, end), max(begin, end)):
        if low <= other[across, slot] < high:
            loss += sums[at, width, slot + 1, 0] - sums[at, width, slot, 0]
            cost += sums[at, width, slot + 1, 1] - sums[at, width, slot, 1]
    return (loss, cost) if begin <= end else (-loss, -cost)


@inlined
def _line(slot, base, end, side, shift):  # type: ignore[no-untyped-def]
    """The nearest line of a group's grid, of which the last is its end."""
    return side if slot == end else (slot - base + ((1 << shift) >> 1)) >> shift


@inlined
def _rectangle(sums, grid, positions, ranks, at, box, lines, width):  # type: ignore[no-untyped-def]
    """Loss and cost of a group's units from `low` to `high` by position and from `begin` to `end` by the signal."""
    low, high, begin, end = box
    base, last, first_cell, side, shift = lines
    top, bottom = _line(low, base, last, side, shift), _line(high, base, last, side, shift)
    left, right = _line(begin, base, last, side, shift), _line(end, base, last, side, shift)
    one, two = first_cell + top * (side + 1), first_cell + bottom * (side + 1)
    loss = grid[at, width, two + right, 0] - grid[at, width, two + left, 0]
    cost = grid[at, width, two + right, 1] - grid[at, width, two + left, 1]
    loss -= grid[at, width, one + right, 0] - grid[at, width, one + left, 0]
    cost -= grid[at, width, one + right, 1] - grid[at, width, one + left, 1]
    above, below = min(base + (top << shift), last), min(base + (bottom << shift), last)
    more, dear = _strip(sums, at, width, min(base + (right << shift), last), end, positions, at, above, below)
    loss, cost = loss + more, cost + dear
    more, dear = _strip(sums, at, width, begin, min(base + (left << shift), last), positions, at, above, below)
    loss, cost = loss + more, cost + dear
    more, dear = _strip(sums, 0, width, below, high, ranks, at, begin, end)
    loss, cost = loss + more, cost + dear
    more, dear = _strip(sums, 0, width, low, above, ranks, at, begin, end)
    return loss + more, cost + dear


@inlined
def _ladder(genes, row, types, values, at, widths, rungs):  # type: ignore[no-untyped-def]
    """Fill `rungs`, `(rungs, 2)`, with rank and width of those that decide anything; how many, or -1."""
    found, cut = 0, values.shape[1]
    for column in range(types + 3, genes.shape[1] - 1, 3):
        if int(genes[row, column]) != 0:
            width = int(genes[row, column + 2])
            if not 0 <= width < widths:
                return -1
            rank = _rank(values, at, genes[row, column + 1], True)
            if rank < cut:
                rungs[found, 0], rungs[found, 1] = rank, width
                cut = rank
                found += 1
    return found


@compiled
def sums(genes, types, tables, edges, losses, costs, rest):  # type: ignore[no-untyped-def]
    """Add the sums of the rules that there are tables for to `losses` and `costs`, `(n,)` int64.

    Args:
        genes: `(n, genes)` float64.
        types: of the space.
        tables: `Prefixes`.
        edges: whether ladders with edges are worth it.
        losses, costs: zeros.
        rest: `(n,)` int64, filled with the rows of other rules.

    Returns:
        How many rows are in `rest`; -1 where a row is not within its limits.
    """
    place, kinds, base, values, slots = tables.place, tables.kinds, tables.base, tables.values, tables.slots
    prefix, positions, ranks, grid = tables.sums, tables.positions, tables.ranks, tables.grid
    cells, sides, shift, widths = tables.cells, tables.sides, tables.shift[0], tables.sums.shape[1]
    rungs = np.empty((genes.shape[1], 2), dtype=np.int64)
    left, final = 0, genes.shape[1] - 1
    for row in range(genes.shape[0]):
        signal, edge = _signal_of(genes, row, types, place.size), genes[row, types + 1]
        if signal < 0 or place[signal] < 0 or (not edges and signal > 0 and edge > 0.0):
            rest[left] = row
            left += 1
            continue
        at = place[signal]
        protected, otherwise, at_edge = int(genes[row, types]), int(genes[row, final]), 0
        found = _ladder(genes, row, types, values, at, widths, rungs)
        if found < 0 or not (0 <= protected < widths and 0 <= otherwise < widths):
            return -1
        rungs[found, 1] = otherwise
        first, last = 0, 0
        if edge > 0.0:
            at_edge = int(genes[row, types + 2])
            if not 0 <= at_edge < widths:
                return -1
            first, last = _rank(values, 0, edge, False), _rank(values, 0, 1.0 - edge, True)
        loss, cost = 0, 0
        for g in range(kinds.size):
            begin, end, kind = base[g], base[g + 1], kinds[g]
            if kind >= 0 and genes[row, kind] > 0.0:
                more, dear = _range(prefix, 0, protected, begin, end)
                loss, cost = loss + more, cost + dear
                continue
            low, high = begin, end
            if edge > 0.0:
                low = np.int64(slots[0, first, g])
                high = max(low, np.int64(slots[0, last, g]))  # edges above one half meet
                more, dear = _range(prefix, 0, at_edge, begin, low)
                loss, cost = loss + more, cost + dear
                more, dear = _range(prefix, 0, at_edge, high, end)
                loss, cost = loss + more, cost + dear
            whole, cut = low == begin and high == end, end
            if at == 0:
                more, dear = _range(prefix, 0, otherwise, low, high)
                loss, cost = loss + more, cost + dear
            elif low < high:
                for k in range(found + 1):
                    start, width = np.int64(slots[at, rungs[k, 0], g]) if k < found else begin, rungs[k, 1]
                    if start < cut and whole:
                        more, dear = _range(prefix, at, width, start, cut)
                        loss, cost = loss + more, cost + dear
                    elif start < cut:
                        box, lines = (low, high, start, cut), (begin, end, cells[g], sides[g], shift)
                        more, dear = _rectangle(prefix, grid, positions, ranks, at, box, lines, width)
                        loss, cost = loss + more, cost + dear
                    cut = start
        losses[row] += loss
        costs[row] += cost
    return left
