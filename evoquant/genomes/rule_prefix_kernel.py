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
def _range(sums, begin, end):  # type: ignore[no-untyped-def]
    """Loss and cost between two places of the flat sums; places without a sign take half of the instructions."""
    first, last, one = np.uint64(begin), np.uint64(end), np.uint64(1)
    return sums[last] - sums[first], sums[last + one] - sums[first + one]


@inlined
def _strip(sums, offset, begin, end, other, across, low, high):  # type: ignore[no-untyped-def]
    """The same of those whose slot in the other order lies from `low` to `high`; negative where `end` comes first."""
    loss, cost = 0, 0
    for slot in range(min(begin, end), max(begin, end)):
        if low <= other[np.uint64(across + slot)] < high:
            more, dear = _range(sums, offset + 2 * slot, offset + 2 * slot + 2)
            loss, cost = loss + more, cost + dear
    return (loss, cost) if begin <= end else (-loss, -cost)


@inlined
def _line(slot, base, end, side, shift):  # type: ignore[no-untyped-def]
    """The nearest line of a group's grid, of which the last is its end."""
    return side if slot == end else (slot - base + ((1 << shift) >> 1)) >> shift


@inlined
def _rectangle(sums, grid, positions, ranks, offsets, box, lines):  # type: ignore[no-untyped-def]
    """Loss and cost of a group's units from `low` to `high` by position and from `begin` to `end` by the signal."""
    by_position, by_signal, cell, across = offsets
    low, high, begin, end = box
    base, last, side, shift = lines
    top, bottom = _line(low, base, last, side, shift), _line(high, base, last, side, shift)
    left, right = _line(begin, base, last, side, shift), _line(end, base, last, side, shift)
    one, two = cell + 2 * top * (side + 1), cell + 2 * bottom * (side + 1)
    loss, cost = _range(grid, two + 2 * left, two + 2 * right)
    more, dear = _range(grid, one + 2 * left, one + 2 * right)
    loss, cost = loss - more, cost - dear
    above, below = min(base + (top << shift), last), min(base + (bottom << shift), last)
    before, after = min(base + (left << shift), last), min(base + (right << shift), last)
    more, dear = _strip(sums, by_signal, after, end, positions, across, above, below)
    loss, cost = loss + more, cost + dear
    more, dear = _strip(sums, by_signal, begin, before, positions, across, above, below)
    loss, cost = loss + more, cost + dear
    more, dear = _strip(sums, by_position, below, high, ranks, across, begin, end)
    loss, cost = loss + more, cost + dear
    more, dear = _strip(sums, by_position, low, above, ranks, across, begin, end)
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
def sums(genes, types, tables, losses, costs, rest):  # type: ignore[no-untyped-def]
    """Add the sums of the rules that there are tables for to `losses` and `costs`, `(n,)` int64.

    Args:
        genes: `(n, genes)` float64.
        types: of the space.
        tables: `Prefixes`.
        losses, costs: zeros.
        rest: `(n,)` int64, filled with the rows of other rules.

    Returns:
        How many rows are in `rest`; -1 where a row is not within its limits.
    """
    place, kinds, base, values = tables.place, tables.kinds, tables.base, tables.values
    slots, prefix, grid = tables.slots.reshape(-1), tables.sums.reshape(-1), tables.grid.reshape(-1)
    positions, ranks = tables.positions.reshape(-1), tables.ranks.reshape(-1)
    cells, sides, shift = tables.cells, tables.sides, tables.shift[0]
    groups, units, widths = kinds.size, values.shape[1], tables.sums.shape[1]
    step, cell_step = 2 * (units + 1), 2 * tables.grid.shape[2]
    rungs = np.empty((genes.shape[1], 2), dtype=np.int64)
    left, final = 0, genes.shape[1] - 1
    for row in range(genes.shape[0]):
        signal, edge = _signal_of(genes, row, types, place.size), genes[row, types + 1]
        at = place[signal] if signal >= 0 else -1
        if at < 0:
            rest[left] = row
            left += 1
            continue
        protected, otherwise, at_edge = int(genes[row, types]), int(genes[row, final]), 0
        found = _ladder(genes, row, types, values, at, widths, rungs)
        if found < 0 or not (0 <= protected < widths and 0 <= otherwise < widths):
            return -1
        rungs[found, 0], rungs[found, 1] = 0, otherwise
        first, last = 0, 0
        if edge > 0.0:
            at_edge = int(genes[row, types + 2])
            if not 0 <= at_edge < widths:
                return -1
            first = groups * _rank(values, 0, edge, False)
            last = groups * _rank(values, 0, 1.0 - edge, True)
        loss, cost = 0, 0
        for g in range(groups):
            begin, end, kind = base[g], base[g + 1], kinds[g]
            if kind >= 0 and genes[row, kind] > 0.0:
                more, dear = _range(prefix, protected * step + 2 * begin, protected * step + 2 * end)
                loss, cost = loss + more, cost + dear
                continue
            low, high = begin, end
            if edge > 0.0:
                low = np.int64(slots[np.uint64(first + g)])
                high = max(low, np.int64(slots[np.uint64(last + g)]))  # edges above one half meet
                more, dear = _range(prefix, at_edge * step + 2 * begin, at_edge * step + 2 * low)
                loss, cost = loss + more, cost + dear
                more, dear = _range(prefix, at_edge * step + 2 * high, at_edge * step + 2 * end)
                loss, cost = loss + more, cost + dear
            if at == 0:
                more, dear = _range(prefix, otherwise * step + 2 * low, otherwise * step + 2 * high)
                loss, cost = loss + more, cost + dear
                continue
            whole, cut = low == begin and high == end, end
            for k in range(found + 1 if low < high else 0):
                start, width = np.int64(slots[np.uint64((at * (units + 1) + rungs[k, 0]) * groups + g)]), rungs[k, 1]
                table = at * widths + width
                if whole:
                    more, dear = _range(prefix, table * step + 2 * start, table * step + 2 * cut)
                    loss, cost = loss + more, cost + dear
                elif start < cut:
                    offsets = (width * step, table * step, table * cell_step + 2 * cells[g], at * units)
                    box, lines = (low, high, start, cut), (begin, end, sides[g], shift)
                    more, dear = _rectangle(prefix, grid, positions, ranks, offsets, box, lines)
                    loss, cost = loss + more, cost + dear
                cut = start
        losses[row] += loss
        costs[row] += cost
    return left
