"""The compiled interpreter of tree populations: the same bits as `tree_numpy`, with common subtrees computed once.

Imported only for populations that are worth a compiler's start. A population becomes one graph in which equal subtrees
are one node (hash-consing; Ershov, Communications of the ACM 1(8), 1958), whatever is made of constants alone is a
constant, and whatever is the same for all widths is computed once per unit. The graph is then evaluated for one tile of
units after another, so that its values stay in the processor's caches whatever the model's size.

A value lies in a flat buffer, as one row of the tile's units, or as P rows, one for each width. Indices are unsigned:
of signed ones Numba asks each time whether they count from the end, and then nothing is vectorised.
"""

from __future__ import annotations

import numpy as np

from evoquant.genomes.expression import LARGEST, OPERATORS
from evoquant.scoring.compiled import compiled

_CODE = {operator.name: code for code, operator in enumerate(OPERATORS, start=1)}
ADD, SUB, MUL, DIV = (_CODE[name] for name in ("add", "sub", "mul", "div"))
MIN, MAX, GREATER, AND, OR = (_CODE[name] for name in ("min", "max", "greater", "and", "or"))
NEG, SQRT, SQUARE, NOT = (_CODE[name] for name in ("neg", "sqrt", "square", "not"))
WHERE = _CODE["where"]
CONSTANT = len(OPERATORS) + 1
LEAF = CONSTANT + 1  # the operator of a node that is a leaf of the table, whichever
NONE = -1
FREED = -2
SCALAR, PER_UNIT, PER_WIDTH = range(3)
TILE = 256  # units at most: three values of five widths still fit the first cache
LANES = 8  # a tile is a multiple of this, or its last units would be computed one by one
ARGUMENT_BITS = 20  # of a node's number, where three of them make a key
ARGUMENT = (1 << ARGUMENT_BITS) - 1

MIX = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number

# What is known of each node: a row of an int64 array, as long as a line of the cache. The key is a constant's bits, or
# the arguments; LAST is the node that reads this one last; the rows that have this node as their root are a chain.
OP, KEY, WIDE, LAST, PLACE, FIRST = range(6)
FIELDS = 8


@compiled
def _clip(x):  # type: ignore[no-untyped-def]
    return min(max(x, -LARGEST), LARGEST)


@compiled
def apply(op, v, out, a, b, c, n):  # type: ignore[no-untyped-def]
    """`v[out : out + n]` = the operator on n values of each argument; flags are 0 and 1."""
    if op == ADD:
        for i in range(n):
            v[out + i] = _clip(v[a + i] + v[b + i])
    elif op == SUB:
        for i in range(n):
            v[out + i] = _clip(v[a + i] - v[b + i])
    elif op == MUL:
        for i in range(n):
            v[out + i] = _clip(v[a + i] * v[b + i])
    elif op == DIV:
        for i in range(n):
            quotient = _clip(v[a + i] / v[b + i])
            v[out + i] = 1.0 if v[b + i] == 0.0 else quotient
    elif op in (MIN, AND):
        for i in range(n):
            v[out + i] = min(v[a + i], v[b + i])
    elif op in (MAX, OR):
        for i in range(n):
            v[out + i] = max(v[a + i], v[b + i])
    elif op == GREATER:
        for i in range(n):
            v[out + i] = 1.0 if v[a + i] > v[b + i] else 0.0
    elif op == NEG:
        for i in range(n):
            v[out + i] = -v[a + i]
    elif op == SQRT:
        for i in range(n):
            v[out + i] = np.sqrt(abs(v[a + i]))
    elif op == SQUARE:
        for i in range(n):
            v[out + i] = _clip(v[a + i] * v[a + i])
    elif op == NOT:
        for i in range(n):
            v[out + i] = 1.0 - v[a + i]
    else:
        assert op == WHERE
        for i in range(n):
            yes, no = v[b + i], v[c + i]
            v[out + i] = yes if v[a + i] > 0.0 else no


@compiled
def survey(genes, arity, state_of, read):  # type: ignore[no-untyped-def]
    """What a population of trees holds; sets `read`, `(codes,)`, for every code that occurs.

    Returns:
        `(n,)` nodes of each row's tree, 0 without a complete one or with a code that there is not, and `(n,)` whether
        it reads the allocation's state.
    """
    n, nodes = genes.shape[0], genes.shape[1] // 2
    lengths, told = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    for row in range(n):
        wanted = 1
        for node in range(nodes):
            code = int(genes[row, node])
            if code < 0 or code >= len(arity):  # would be read from somebody else's memory
                break
            wanted += arity[code] - 1
            if wanted == 0:
                lengths[row] = node + 1
                break
        for node in range(lengths[row]):
            read[int(genes[row, node])] = True
            told[row] |= state_of[int(genes[row, node])] >= 0
    return lengths, told


@compiled
def _find(op, key, node, slots, count):  # type: ignore[no-untyped-def]
    """The node with this operator and key; where there is none it becomes number `count`."""
    mixed = (key + op * MIX) * MIX
    place = (mixed ^ mixed >> 32) & (slots.size - 1)
    while slots[place] != NONE:
        found = slots[place]
        if node[found, KEY] == key and node[found, OP] == op:
            return found
        place = (place + 1) & (slots.size - 1)
    slots[place] = count
    node[count, OP], node[count, KEY] = op, key
    return count


@compiled
def grow(genes, rows, lengths, arity, state_of, state, leaves, node, slots, roots):  # type: ignore[no-untyped-def]
    """Put the trees of `rows` into the graph and their roots into `roots`; return how many nodes there are.

    One long loop: a call with so many arrays takes longer than what it would do.
    """
    nodes = genes.shape[1] // 2
    stack = np.empty(nodes + 1, dtype=np.int64)
    value = node.view(np.float64)
    some = np.empty(4)
    bits = some.view(np.int64)
    zero, one = np.uintp(0), np.uintp(1)
    count = leaves
    for i in range(rows.size):
        row, top = rows[i], -1
        for place in range(lengths[row] - 1, -1, -1):
            op = int(genes[row, place])
            a, b, c = 0, 0, 0
            if op > CONSTANT:
                kind = state_of[op]
                a = op - CONSTANT - 1
                if kind < 0:
                    top += 1
                    stack[top] = a
                    continue
                some[0] = state[row, kind % 2]
                op = CONSTANT
                if kind == 2:
                    b, op = _find(CONSTANT, bits[0], node, slots, count), DIV
                    node[b, WIDE] = 0
                    count, c = max(count, b + 1), a
            elif op == CONSTANT:
                some[0] = genes[row, nodes + place]
            else:
                a = stack[top]
                b = stack[top - 1] if arity[op] > 1 else a
                c = stack[top - 2] if arity[op] > 2 else a
                top -= arity[op]
                if a > b and (op in (ADD, MUL, MIN, MAX, AND, OR)):
                    a, b, c = b, a, b  # which comes first makes no difference, but for the sign of 0
            if op != CONSTANT and node[a, OP] == CONSTANT and node[b, OP] == CONSTANT and node[c, OP] == CONSTANT:
                some[1], some[2], some[3] = value[a, KEY], value[b, KEY], value[c, KEY]
                apply(op, some, zero, one, one + one, one + one + one, one)
                op = CONSTANT
            key = bits[0] if op == CONSTANT else a | b << ARGUMENT_BITS | c << 2 * ARGUMENT_BITS
            made = _find(op, key, node, slots, count)
            if made == count:
                node[made, WIDE] = 0 if op == CONSTANT else node[a, WIDE] | node[b, WIDE] | node[c, WIDE]
                count += 1
            top += 1
            stack[top] = made
        roots[i] = stack[0] if lengths[row] and node[stack[0], WIDE] else leaves - 1
    return count


@compiled
def _schedule(node, count, leaves, roots, following, order, free):  # type: ignore[no-untyped-def]
    """Decide which nodes are computed, in `order`, and where each value lies: one place after another is used again.

    Returns:
        How many nodes are computed, and how many places they need.
    """
    for made in range(count):
        node[made, FIRST] = node[made, LAST] = NONE
    for i in range(roots.size - 1, -1, -1):
        following[i] = node[roots[i], FIRST]
        node[roots[i], FIRST] = i
    for made in range(count - 1, leaves - 1, -1):
        if node[made, OP] != CONSTANT and (node[made, FIRST] != NONE or node[made, LAST] != NONE):
            key = node[made, KEY]
            for _ in range(3):
                if node[key & ARGUMENT, LAST] == NONE:
                    node[key & ARGUMENT, LAST] = made
                key >>= ARGUMENT_BITS
    computed, places, spare = 0, leaves, 0
    for made in range(count):
        if node[made, FIRST] == NONE and node[made, LAST] == NONE:
            continue
        order[computed] = made
        computed += 1
        if made < leaves:
            node[made, PLACE] = made
            continue
        if spare:
            spare -= 1
            node[made, PLACE] = free[spare]
        else:
            node[made, PLACE] = places
            places += 1
        if node[made, OP] != CONSTANT:
            key = node[made, KEY]
            for _ in range(3):
                argument = key & ARGUMENT
                if argument >= leaves and node[argument, LAST] == made:
                    node[argument, LAST] = FREED
                    free[spare] = node[argument, PLACE]
                    spare += 1
                key >>= ARGUMENT_BITS
        if node[made, LAST] == NONE:
            free[spare] = node[made, PLACE]
            spare += 1
    return computed, places


@compiled
def _choose(v, at, barrier, best, least):  # type: ignore[no-untyped-def]
    """Into `best`, `(tile,)` int64, the allowed width of least cost, of equals the narrowest."""
    tile = np.uintp(best.size)
    for i in range(tile):
        least[i] = v[at + i] + barrier[i]
        best[i] = 0
    width, first = 1, tile
    while first < barrier.size:
        for i in range(tile):
            x = v[at + first + i] + barrier[first + i]
            less = x < least[i]
            least[i] = x if less else least[i]
            best[i] = width if less else best[i]
        width += 1
        first += tile


@compiled
def _sum(losses, costs, best):  # type: ignore[no-untyped-def]
    """Sums over a tile's units of two `(P · tile,)` tables of integers at the chosen widths."""
    tile = np.uintp(best.size)
    loss, cost = 0, 0
    for i in range(tile):
        place = np.uintp(best[i]) * tile + i
        loss += losses[place]
        cost += costs[place]
    return loss, cost


@compiled
def _fill(tile_of, table, first, tile):  # type: ignore[no-untyped-def]
    """Copy the units from `first` on of a `(P, units)` table into `(P · tile,)`; beyond the last unit nothing."""
    widths, units = table.shape
    last = min(first + tile, units)
    for width in range(widths):
        tile_of[width * tile : width * tile + last - first] = table[width, first:last]


@compiled
def _walk(order, node, table, first, v, walls, losses, costs, following, sums, allocations):  # type: ignore[no-untyped-def]
    """Compute the nodes of one tile, whose first unit is given, and let its trees choose.

    Args:
        order: `(computed,)` numbers of the nodes.
        walls, losses, costs: `(P · tile,)` the tile of the tables; no losses and costs where no sums are wanted.
        following: `(r,)` the next row with the same root.
        sums: `(r, 2)` int64, added to, or `(r, 0)`.
        allocations: `(r, units)` int8, or `(r, 0)`.
    """
    size, leaves = np.uintp(walls.size), table.shape[0]
    tile = size // np.uintp(table.shape[1])
    value = node.view(np.float64)
    best, least = np.empty(tile, dtype=np.int64), np.empty(tile)
    last = min(first + best.size, table.shape[2])
    for k in range(order.size):
        made = order[k]
        op, key, wide = node[made, OP], node[made, KEY], node[made, WIDE]
        out = np.uintp(node[made, PLACE]) * size
        if made < leaves:
            _fill(v[out : out + size], table[made], first, tile)
        elif op == CONSTANT:
            for i in range(tile):
                v[out + i] = value[made, KEY]
        else:
            a, b, c = key & ARGUMENT, key >> ARGUMENT_BITS & ARGUMENT, key >> 2 * ARGUMENT_BITS
            at_a, at_b = np.uintp(node[a, PLACE]) * size, np.uintp(node[b, PLACE]) * size
            at_c = np.uintp(node[c, PLACE]) * size
            step_a, step_b = np.uintp(node[a, WIDE]) * tile, np.uintp(node[b, WIDE]) * tile
            step_c = np.uintp(node[c, WIDE]) * tile
            whole = node[a, WIDE] & node[b, WIDE] & node[c, WIDE]
            length = size if whole else tile
            for _ in range(1 if whole or not wide else table.shape[1]):
                apply(op, v, out, at_a, at_b, at_c, length)
                out, at_a, at_b, at_c = out + tile, at_a + step_a, at_b + step_b, at_c + step_c
        i = node[made, FIRST]
        if i != NONE:
            _choose(v, np.uintp(node[made, PLACE]) * size, walls, best, least)
            if losses.size:
                total_loss, total_cost = _sum(losses, costs, best)
            while i != NONE:
                if losses.size:
                    sums[i, 0] += total_loss
                    sums[i, 1] += total_cost
                if allocations.size:
                    for unit in range(first, last):
                        allocations[i, unit] = best[unit - first]
                i = following[i]


@compiled
def evaluate(  # type: ignore[no-untyped-def]
    genes, rows, lengths, arity, state_of, state, table, spread, barrier, loss, cost, sums, allocations
):
    """Give each unit the allowed width of least cost, of equals the narrowest; fill `sums` and `allocations`.

    Args:
        genes: `(n, 2 · max_nodes)` codes, then constants.
        rows: `(r,)` which ones, at most so many that the nodes' numbers fit the argument bits.
        lengths: `(n,)` of `survey`.
        arity: `(codes,)` arguments of each.
        state_of: `(codes,)` −1; 0, 1 for a leaf that is that place of the state, 2 for one to be divided by the first.
        state: `(n, 2)` of each row.
        table, spread: of `TreeSpace.leaves`.
        barrier: `(P, units)` 0, or infinity where a width is not allowed.
        loss, cost: `(P, units)` int64, to be summed.
        sums: `(r, 2)` int64, or `(r, 0)` where no sums are wanted.
        allocations: `(r, units)` int8, or `(r, 0)`.
    """
    leaves, widths, units = table.shape
    most = leaves
    for i in range(rows.size):
        most += 2 * lengths[rows[i]]
    node = np.empty((most, FIELDS), dtype=np.int64)
    slots = np.full(1 << int(np.ceil(np.log2(2 * most))), NONE, dtype=np.int32)
    value = node.view(np.float64)
    for leaf in range(leaves):
        node[leaf, OP] = CONSTANT if spread[leaf] == SCALAR else LEAF
        node[leaf, WIDE] = spread[leaf] == PER_WIDTH
        value[leaf, KEY] = table[leaf, 0, 0]
    roots, following = np.empty(rows.size, dtype=np.int64), np.empty(rows.size, dtype=np.int64)
    count = grow(genes, rows, lengths, arity, state_of, state, leaves, node, slots, roots)
    order = np.empty(count, dtype=np.int64)
    computed, places = _schedule(node, count, leaves, roots, following, order, slots)
    pieces = -(-units // TILE)
    tile = -(-units // (pieces * LANES)) * LANES
    size = widths * tile
    v = np.empty(places * size)
    v[: leaves * size] = 0.0
    walls = np.zeros(size)
    losses, costs = np.zeros(size * (sums.size > 0), dtype=np.int64), np.zeros(size * (sums.size > 0), dtype=np.int64)
    sums[:] = 0
    for first in range(0, units, tile):
        _fill(walls, barrier, first, tile)
        if losses.size:
            losses[:], costs[:] = 0, 0
            _fill(losses, loss, first, tile)
            _fill(costs, cost, first, tile)
        _walk(order[:computed], node, table, first, v, walls, losses, costs, following, sums, allocations)
