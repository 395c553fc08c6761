"""The compiled pass over a population of rules: the same sums as through allocations.

Imported only for populations that are worth a compiler's start; see `evoquant.genomes.rule_compiled` for the tables.
Arrays are indexed where they are used rather than handed on as views, which would be counted in the loop.
"""

from __future__ import annotations

import numpy as np

from evoquant.scoring.compiled import compiled, inlined

WORDS, WORD_BYTES = 3, 6  # of a mask; int64 holds as many bytes without a sign
TILE = 8 * WORDS * WORD_BYTES  # units
GROUP = 6  # types whose 64 combinations are tabled


@compiled
def fill(entries, sums):  # type: ignore[no-untyped-def]
    """Fill `sums`, `(P, bytes, WORDS, 256, 2)`, from `entries`, `(size, P, 2)`: each with one bit more."""
    size, widths, _ = entries.shape
    for width in range(widths):
        for word in range(sums.shape[2]):
            for byte in range(sums.shape[1]):
                table = sums[width, byte, word]
                table[0, 0] = 0
                table[0, 1] = 0
                for bit in range(8):
                    slot = 8 * (word * sums.shape[1] + byte) + bit
                    loss = entries[slot, width, 0] if slot < size else 0
                    cost = entries[slot, width, 1] if slot < size else 0
                    for i in range(1 << bit):
                        table[(1 << bit) + i, 0] = table[i, 0] + loss
                        table[(1 << bit) + i, 1] = table[i, 1] + cost


@compiled
def _start(starts, keys, tile, signal, bits):  # type: ignore[no-untyped-def]
    """How many of a tile's values lie in buckets before that of a threshold, of which the bits are given."""
    first = keys[signal, 0]
    bucket = min(1 + ((bits - first) >> keys[signal, 1]), starts.shape[2] - 1)
    return np.int64(starts[tile, signal, bucket if bits >= first else 0])


@inlined
def _picked(sums, width, a, b, c):  # type: ignore[no-untyped-def]
    """Loss and cost of the units in a mask of three words, from the flat tables.

    Places without a sign, of a fixed number of bytes, take half of the instructions.
    """
    loss, cost = 0, 0
    at = np.uint64(width * (WORDS * WORD_BYTES * 512))
    one, next_word, next_byte = np.uint64(1), np.uint64(512), np.uint64(WORDS * 512)
    for _ in range(WORD_BYTES):
        x = at + (np.uint64(a & 255) << one)
        y = at + next_word + (np.uint64(b & 255) << one)
        z = at + next_word + next_word + (np.uint64(c & 255) << one)
        loss += sums[x] + sums[y] + sums[z]
        cost += sums[x + one] + sums[y + one] + sums[z + one]
        a >>= 8
        b >>= 8
        c >>= 8
        at += next_byte
    return loss, cost


@compiled
def _by_shape(genes, types, shapes, order):  # type: ignore[no-untyped-def]
    """Fill `order` with the rows, those with as many rungs and edges together: what then follows is foreseen."""
    last = genes.shape[1] - 1
    begin = np.zeros(2 * (last - types) + 2, dtype=np.int64)
    for row in range(genes.shape[0]):
        shape = 1 if genes[row, types + 1] > 0.0 else 0
        for column in range(types + 3, last, 3):
            shape += 2 if genes[row, column] > 0.0 else 0
        shapes[row] = shape
        begin[shape + 1] += 1
    for i in range(1, begin.size):
        begin[i] += begin[i - 1]
    for row in range(genes.shape[0]):
        order[begin[shapes[row]]] = row
        begin[shapes[row]] += 1


@compiled
def _score(tile, genes, bits, order, types, tables, sums, losses, costs):  # type: ignore[no-untyped-def]
    """Add one tile's losses and costs to those of the genomes."""
    keys, starts, values, counts, above = tables.keys, tables.starts, tables.values, tables.counts, tables.above
    free, protected, full, widths = tables.free, tables.protected, tables.full, tables.entries.shape[2]
    cell = np.empty(1)
    cell_bits = cell.view(np.int64)
    last = genes.shape[1] - 1
    for i in range(genes.shape[0]):
        row = order[i]
        loss, cost = 0, 0
        a, b, c = full[tile, 0], full[tile, 1], full[tile, 2]  # what nothing has decided yet
        width = int(genes[row, types])
        if not 0 <= width < widths:
            return False
        for group in range(free.shape[1]):
            held = 0
            for kind in range(GROUP):  # columns after the last type's stand for nothing in the tables
                held |= (1 if genes[row, GROUP * group + kind] > 0.0 else 0) << kind
            a &= free[tile, group, held, 0]
            b &= free[tile, group, held, 1]
            c &= free[tile, group, held, 2]
            loss += protected[tile, group, held, width, 0]
            cost += protected[tile, group, held, width, 1]
        edge = genes[row, types + 1]
        if edge > 0.0 and a | b | c != 0:
            width = int(genes[row, types + 2])
            if not 0 <= width < widths:
                return False
            low = _start(starts, keys, tile, 0, bits[row, types + 1])
            while low < counts[tile, 0] and values[tile, 0, low] < edge:
                low += 1
            edge = 1.0 - edge
            cell[0] = edge
            high = _start(starts, keys, tile, 0, cell_bits[0])
            while high < counts[tile, 0] and not values[tile, 0, high] > edge:
                high += 1
            x = a & (above[tile, 0, 0, 0] & ~above[tile, 0, low, 0] | above[tile, 0, high, 0])
            y = b & (above[tile, 0, 0, 1] & ~above[tile, 0, low, 1] | above[tile, 0, high, 1])
            z = c & (above[tile, 0, 0, 2] & ~above[tile, 0, low, 2] | above[tile, 0, high, 2])
            if x | y | z != 0:  # where there are many tiles, edges hold in few of them
                more, dear = _picked(sums, width, x, y, z)
                loss += more
                cost += dear
                a, b, c = a & ~x, b & ~y, c & ~z
        for column in range(types + 3, last, 3):
            signal = int(genes[row, column])
            if signal == 0 or a | b | c == 0:
                continue
            width = int(genes[row, column + 2])
            if not (0 < signal < keys.shape[0] and 0 <= width < widths):
                return False
            threshold = genes[row, column + 1]
            rank = _start(starts, keys, tile, signal, bits[row, column + 1])
            while rank < counts[tile, signal] and not values[tile, signal, rank] > threshold:
                rank += 1
            x = a & above[tile, signal, rank, 0]
            y = b & above[tile, signal, rank, 1]
            z = c & above[tile, signal, rank, 2]
            if x | y | z != 0:
                more, dear = _picked(sums, width, x, y, z)
                loss += more
                cost += dear
                a, b, c = a & ~x, b & ~y, c & ~z
        width = int(genes[row, last])
        if not 0 <= width < widths:
            return False
        more, dear = _picked(sums, width, a, b, c)
        losses[row] += loss + more
        costs[row] += cost + dear
    return True


@compiled
def sums(genes, bits, types, tables, chunk, losses, costs):  # type: ignore[no-untyped-def]
    """Add the sums of all genomes to `losses` and `costs`, `(n,)` int64; False where a row is not within its limits.

    Args:
        genes: `(n, genes)` float64.
        bits: the same as int64.
        types: of the space.
        tables: `Tables`.
        chunk: genomes of one pass over the tiles.
        losses, costs: zeros.
    """
    shapes, order = np.empty(chunk, dtype=np.uint8), np.empty(chunk, dtype=np.int64)
    kept = tables.sums.shape[0] > 0
    made = np.empty(tables.sums.shape[1:], dtype=np.int64)
    for first in range(0, genes.shape[0], chunk):
        part = slice(first, first + chunk)
        _by_shape(genes[part], types, shapes, order)
        for tile in range(tables.full.shape[0]):
            if not kept:
                fill(tables.entries[tile], made)
            table = (tables.sums[tile] if kept else made).reshape(-1)
            if not _score(tile, genes[part], bits[part], order, types, tables, table, losses[part], costs[part]):
                return False
    return True


@compiled
def direct(genes, entries, losses, costs):  # type: ignore[no-untyped-def]
    """Add the sums of direct allocations to `losses` and `costs`, `(n,)` int64; False where a width does not exist.

    Args:
        genes: `(n, units)` float64.
        entries: `(units, P, 2)` loss and cost.
        losses, costs: zeros.
    """
    widths = entries.shape[1]
    for row in range(genes.shape[0]):
        loss, cost = 0, 0
        for unit in range(genes.shape[1]):
            width = int(genes[row, unit])
            if not 0 <= width < widths:
                return False
            loss += entries[unit, width, 0]
            cost += entries[unit, width, 1]
        losses[row] += loss
        costs[row] += cost
    return True
