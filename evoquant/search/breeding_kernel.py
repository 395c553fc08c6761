"""The compiled operators: every child from a random stream of its own, drawing only what it needs.

Imported only for large populations. The operators are those of `NumericOperators` and `sample_genes`; since each child
draws from a stream keyed by its row, rows can be made in any order, in any number of threads.

The stream is splitmix64 (Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014). A state is
an array of one number.
"""

from __future__ import annotations

import math

import numpy as np

from evoquant.genomes.base import (
    ABSENT_RATE,
    DROP_RATE,
    FLAG_RATE,
    FRACTION_SIGMA,
    LOG_SIGMA,
    RESAMPLE_RATE,
    WIDTH_STEP_RATE,
)
from evoquant.scoring.compiled import compiled, inlined
from evoquant.scoring.rows_kernel import mixed, row_hash

FLAG, OPTION, WIDTH, FRACTION, LOG = range(5)
START, RANDOM, CROSSOVER, MUTATION, COPY = range(5)
KIND, GROUP, WAKERS, ORDER, COUNTED, LOW_BITS = range(6)  # rows of the codes of genes, column for column
LOW, HIGH = range(2)  # rows of their limits
ALWAYS, LADDER, BLOCK_SIZE, BLOCKS = range(4)  # numbers of the shape
OPERATORS = ("start", "random", "crossover", "mutation", "copy")

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
S11, S32, LOWER = np.uint64(11), np.uint64(32), np.uint64(0xFFFFFFFF)
UNIT = 2.0**-53
BLOCK = 64  # rows whose parents are chosen together
LINE = 8  # numbers in a line of the cache
POWERS_OF_TEN = np.array([float(10**k) for k in range(23)])


@compiled
def _next(state):  # type: ignore[no-untyped-def]
    state[0] += GOLDEN
    return mixed(state[0])


@compiled
def _uniform(state):  # type: ignore[no-untyped-def]
    """In [0, 1)."""
    return np.float64(_next(state) >> S11) * UNIT


@compiled
def _below(state, count):  # type: ignore[no-untyped-def]
    """A whole number in [0, count), for counts below 2^32."""
    return np.int64(((_next(state) >> S32) * np.uint64(count)) >> S32)


@compiled
def _normal(state):  # type: ignore[no-untyped-def]
    """Box & Muller, A note on the generation of random normal deviates, 1958."""
    radius = math.sqrt(-2.0 * math.log(1.0 - _uniform(state)))
    return radius * math.cos(2.0 * math.pi * _uniform(state))


@compiled
def _tidied(value, kind, low, high):  # type: ignore[no-untyped-def]
    """As `genomes.base.tidy` does it."""
    value = min(max(value, low), high)
    if kind == FRACTION:
        return np.rint(value * 1000.0) / 1000.0
    if kind == LOG:
        place = min(max(1 - math.floor(math.log10(value)), 0), 22)
        return np.rint(value * POWERS_OF_TEN[place]) / POWERS_OF_TEN[place]
    return value


@compiled
def _drawn(state, kind, low, high):  # type: ignore[no-untyped-def]
    """A gene as `sample_genes` draws it."""
    if kind == FLAG:
        return 1.0 if _uniform(state) < FLAG_RATE else 0.0
    if kind == WIDTH:
        return low + _below(state, np.int64(high - low) + 1)
    if kind == OPTION:
        return 0.0 if _uniform(state) < ABSENT_RATE else 1.0 + _below(state, np.int64(high))
    if kind == FRACTION:
        if _uniform(state) < ABSENT_RATE:
            return 0.0
        return _tidied(low + (high - low) * _uniform(state), kind, low, high)
    between = math.log(low) + (math.log(high) - math.log(low)) * _uniform(state)
    return _tidied(math.exp(between), kind, low, high)


@compiled
def _mutated(state, value, kind, low, high):  # type: ignore[no-untyped-def]
    """A gene as `mutate_genes` changes it."""
    if kind == FLAG:
        return 1.0 - value
    if kind == OPTION:
        if value > 0 and _uniform(state) < DROP_RATE:
            return 0.0
        return 1.0 + _below(state, np.int64(high))
    if kind == WIDTH:
        if _uniform(state) < WIDTH_STEP_RATE:
            moved = value + 1.0 if _uniform(state) < 0.5 else value - 1.0
            return min(max(moved, low), high)
        return low + _below(state, np.int64(high - low) + 1)
    if _uniform(state) < RESAMPLE_RATE:
        return _drawn(state, kind, low, high)
    if kind == FRACTION:
        return _tidied(value + FRACTION_SIGMA * _normal(state), kind, low, high)
    return _tidied(value * math.exp(LOG_SIGMA * _normal(state)), kind, low, high)


@compiled
def _better(keys, best, other):  # type: ignore[no-untyped-def]
    """The better of two survivors, the first of equals.

    Which is better is a coin toss to the processor: everything is compared, so that there is nothing to guess wrong.
    """
    better = (keys[other, 1] > keys[best, 1]) | ((keys[other, 1] == keys[best, 1]) & (keys[other, 2] > keys[best, 2]))
    better = (keys[other, 0] > keys[best, 0]) | ((keys[other, 0] == keys[best, 0]) & better)
    return other if better else best


@inlined
def _winners(state, size, keys, pairs, place):  # type: ignore[no-untyped-def]
    """Two parents, each the best of `size` survivors drawn by lot: from the two halves of a draw."""
    count = np.uint64(len(keys))
    one = other = np.int64(0)
    for turn in range(size):
        draw = _next(state)
        mine, theirs = np.int64(((draw >> S32) * count) >> S32), np.int64(((draw & LOWER) * count) >> S32)
        one = _better(keys, one, mine) if turn else mine
        other = _better(keys, other, theirs) if turn else theirs
    pairs[place, 0] = one
    pairs[place, 1] = other


@compiled
def _on(genes, r, first, end):  # type: ignore[no-untyped-def]
    """Whether one of the columns is on in row r."""
    on = False
    for j in range(first, end):
        on |= genes[r, j] > 0
    return on


@inlined
def _ordered(genes, r, limits, shape):  # type: ignore[no-untyped-def]
    """Present blocks of row r before absent ones, each in its order; absent ones are at their lowest."""
    place, size = shape[LADDER], shape[BLOCK_SIZE]
    for block in range(shape[BLOCKS]):
        start = shape[LADDER] + size * block
        if genes[r, start] > 0:
            if start > place:
                for j in range(size):
                    genes[r, place + j] = genes[r, start + j]
                    genes[r, start + j] = limits[LOW, start + j]
            place += size


@compiled
def _random_row(state, r, codes, limits, wakers, shape, out):  # type: ignore[no-untyped-def]
    for i in range(codes.shape[1]):
        j = codes[ORDER, i]
        k = codes[WAKERS, j]
        if i < shape[ALWAYS] or _on(out, r, wakers[k, 0], wakers[k, 1]):
            out[r, j] = _drawn(state, codes[KIND, j], limits[LOW, j], limits[HIGH, j])
        else:
            out[r, j] = limits[LOW, j]


@inlined
def _finish(r, codes, limits, shape, out, words, hashes, parts):  # type: ignore[no-untyped-def]
    """Put the blocks of row r in order, and note its hash and its parts while it is at hand."""
    _ordered(out, r, limits, shape)
    hashes[r] = row_hash(words, r)
    total = 0
    for j in range(codes.shape[1]):
        total += codes[COUNTED, j] * np.int64(out[r, j] > 0)  # no branch
    parts[r] = total


@compiled
def finish_rows(begin, end, codes, limits, wakers, shape, out, words, hashes, parts):  # type: ignore[no-untyped-def]
    """Hashes and parts of canonical rows that were made elsewhere; see `breed_rows`."""
    for r in range(begin, end):
        _finish(r, codes, limits, shape, out, words, hashes, parts)


@compiled
def sample_rows(key, begin, end, codes, limits, wakers, shape, out, words, hashes, parts):  # type: ignore[no-untyped-def]
    """Random genomes into rows `begin` to `end` of out; see `breed_rows`."""
    state = np.empty(1, dtype=np.uint64)
    for r in range(begin, end):
        state[0] = mixed(key[0] ^ mixed(key[1] + GOLDEN * np.uint64(r + 1)))
        _random_row(state, r, codes, limits, wakers, shape, out)
        _finish(r, codes, limits, shape, out, words, hashes, parts)


@compiled
def _choose(key, begin, end, size, survivors, ids, keys, states, pairs, touched):  # type: ignore[no-untyped-def]
    """Parents of the rows `begin` to `end`, and the streams after them; the parents' genes are on their way then.

    One after the other, each row would wait for its parents' genes to come from memory.
    """
    state = np.empty(1, dtype=np.uint64)
    total = 0.0
    for r in range(begin, end):
        state[0] = mixed(key[0] ^ mixed(key[1] + GOLDEN * np.uint64(r + 1)))
        _winners(state, size, keys, pairs, r - begin)
        states[r - begin] = state[0]
    for r in range(end - begin):
        for side in range(2):
            total += ids[pairs[r, side]]
            for j in range(0, survivors.shape[1], LINE):
                total += survivors[pairs[r, side], j]
    touched[0] = total


@inlined
def _changes(state, rate, width, changed):  # type: ignore[no-untyped-def]
    """How many of `width` genes change, each with a chance of `rate` / 2^32, and which, into `changed`: in order.

    A draw decides about two; a place is always written, and kept where the gene changes.
    """
    count = 0
    for i in range(0, width, 2):
        draw = _next(state)
        changed[count] = i
        count += 1 if draw >> S32 < rate else 0
        changed[count] = i + 1
        count += 1 if (i + 1 < width) & (draw & LOWER < rate) else 0
    return count


@inlined
def _mixed_row(state, r, one, other, crossed, codes, survivors, sources, out):  # type: ignore[no-untyped-def]
    """Genes of row r from its parents, group by group: from the first alone where it is not crossed."""
    bits = np.uint64(0)
    for group in range(len(sources)):
        if group % 64 == 0:
            bits = _next(state)
        sources[group] = other if crossed & (bits & np.uint64(1) != 0) else one
        bits >>= np.uint64(1)
    for j in range(out.shape[1]):
        out[r, j] = survivors[sources[codes[GROUP, j]], j]


@inlined
def _wake(state, r, one, codes, limits, wakers, shape, survivors, sources, on, was, fresh, out, words):  # type: ignore[no-untyped-def]
    """Genes of row r that wait for others: at their lowest where those are off, drawn afresh where they awake.

    Fills `on` and `was` with which wakers are on in the child and in its first parent. Floats would be chosen by a
    branch, and so bits are.
    """
    for k in range(wakers.shape[0]):
        now, then = False, False
        for j in range(wakers[k, 0], wakers[k, 1]):
            now |= out[r, j] > 0
            then |= survivors[one, j] > 0
        on[k], was[k] = now, then
    count = 0
    for i in range(shape[ALWAYS], codes.shape[1]):
        j = codes[ORDER, i]
        k = codes[WAKERS, j]
        kept = np.uint64(0) - np.uint64(on[k])
        words[r, j] = (words[r, j] & kept) | (np.uint64(codes[LOW_BITS, j]) & ~kept)
        fresh[count] = j
        count += on[k] & ~was[k] & np.int64(sources[codes[GROUP, j]] == one)
    for i in range(count):
        j = fresh[i]
        out[r, j] = _drawn(state, codes[KIND, j], limits[LOW, j], limits[HIGH, j])


@compiled
def breed_rows(  # type: ignore[no-untyped-def]
    key, begin, end, codes, limits, wakers, shape, size, rates, survivors, ids, keys, out, words, of, how, hashes, parts
):
    """Children into rows `begin` to `end` of out, their parents' ids into `of`, their operators' codes into `how`.

    A parent's gene without an effect is drawn afresh where the child awakes it, as in `variation.children`. What a
    gene is, is chosen and not branched to wherever either is as likely.

    Args:
        key: `(2,)` of the generation's streams.
        begin, end: rows to make.
        codes: `(6, genes)`, column for column: kind and group; which of the wakers it waits for; the columns in the
            order in which they are made, those that wait for others last; whether the gene is a part where it is on;
            and the bits of its lowest value.
        limits: `(2, genes)` lowest and highest values.
        wakers: `(k, 2)` first and end of columns of which one must be on for those that wait for it to have an effect.
        shape: how many genes wait for no others; first column, size and number of the blocks that are kept in order.
        size: contestants of a tournament.
        rates: crossover, mutation and immigrants.
        survivors, ids, keys: `(m, genes)`, `(m,)` and `(m, 3)` of those who may be parents; a larger key wins.
        out, words, of, how, hashes, parts: `(n, genes)`, the same memory as 64-bit words, `(n, 2)` and three times
            `(n,)`, written.
    """
    width, always = codes.shape[1], shape[ALWAYS]
    state = np.empty(1, dtype=np.uint64)
    sources, changed = np.empty(codes[GROUP].max() + 1, dtype=np.int64), np.empty(width + 2, dtype=np.int64)
    states, pairs = np.empty(BLOCK, dtype=np.uint64), np.empty((BLOCK, 2), dtype=np.int64)
    on, was = np.zeros((2, wakers.shape[0] + 1), dtype=np.int64)
    fresh, touched = np.empty(width + 1, dtype=np.int64), np.empty(1)
    rate = np.uint64(rates[1] * 2.0**32)
    for r in range(begin, end):
        place = (r - begin) % BLOCK
        if place == 0:
            _choose(key, r, min(r + BLOCK, end), size, survivors, ids, keys, states, pairs, touched)
        state[0] = states[place]
        of[r, 0] = of[r, 1] = -1
        if _uniform(state) < rates[2]:
            how[r] = RANDOM
            _random_row(state, r, codes, limits, wakers, shape, out)
            _finish(r, codes, limits, shape, out, words, hashes, parts)
            continue
        one, other = pairs[place, 0], pairs[place, 1]
        crossed = (ids[one] != ids[other]) & (_uniform(state) < rates[0])
        of[r, 0] = ids[one]
        of[r, 1] = ids[other] if crossed else -1
        _mixed_row(state, r, one, other, crossed, codes, survivors, sources, out)
        count = _changes(state, rate, width, changed)
        waking = True
        for i in range(count + 1):
            if waking & ((i == count) | (changed[i] >= always)):  # those that others wait for have changed
                _wake(state, r, one, codes, limits, wakers, shape, survivors, sources, on, was, fresh, out, words)
                waking = False
            if i < count:
                j = codes[ORDER, changed[i]]
                if changed[i] < always or on[codes[WAKERS, j]]:
                    out[r, j] = _mutated(state, out[r, j], codes[KIND, j], limits[LOW, j], limits[HIGH, j])
        _finish(r, codes, limits, shape, out, words, hashes, parts)
        same = True
        for j in range(width):
            same &= out[r, j] == survivors[one, j]
        how[r] = CROSSOVER if crossed else COPY if same else MUTATION
