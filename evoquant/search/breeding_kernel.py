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
from evoquant.scoring.compiled import compiled

FLAG, OPTION, WIDTH, FRACTION, LOG = range(5)
START, RANDOM, CROSSOVER, MUTATION, COPY = range(5)
OPERATORS = ("start", "random", "crossover", "mutation", "copy")

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S11, S27, S30, S31, S32 = (np.uint64(bits) for bits in (11, 27, 30, 31, 32))
UNIT = 2.0**-53
BLOCK = 64  # rows whose parents are chosen together
LINE = 8  # numbers in a line of the cache
POWERS_OF_TEN = np.array([float(10**k) for k in range(23)])


@compiled
def _mixed(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return z ^ (z >> S31)


@compiled
def _next(state):  # type: ignore[no-untyped-def]
    state[0] += GOLDEN
    return _mixed(state[0])


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
def _winner(state, size, keys):  # type: ignore[no-untyped-def]
    """The best of `size` survivors drawn by lot; of equals the one drawn first.

    Who wins is a coin toss to the processor: everything is compared, so that there is nothing to guess wrong.
    """
    best = _below(state, len(keys))
    for _ in range(size - 1):
        other = _below(state, len(keys))
        better = (keys[other, 1] > keys[best, 1]) | (
            (keys[other, 1] == keys[best, 1]) & (keys[other, 2] > keys[best, 2])
        )
        better = (keys[other, 0] > keys[best, 0]) | ((keys[other, 0] == keys[best, 0]) & better)
        best = other if better else best
    return best


@compiled
def _awake(genes, r, first, end):  # type: ignore[no-untyped-def]
    """Whether a gene of row r has an effect: it always has, or one of its wakers is on."""
    awake = first < 0
    for j in range(first, end):
        awake |= genes[r, j] > 0
    return awake


@compiled
def _ordered(genes, r, lows, first, size, blocks):  # type: ignore[no-untyped-def]
    """Present blocks of row r before absent ones, each in its order; absent ones are at their lowest."""
    place = first
    for block in range(blocks):
        start = first + size * block
        if genes[r, start] > 0:
            if start > place:
                for j in range(size):
                    genes[r, place + j] = genes[r, start + j]
                    genes[r, start + j] = lows[start + j]
            place += size


@compiled
def _random_row(state, r, tables, out):  # type: ignore[no-untyped-def]
    kinds, lows, highs, _, firsts, ends, order, ladder = tables
    for j in order:
        if _awake(out, r, firsts[j], ends[j]):
            out[r, j] = _drawn(state, kinds[j], lows[j], highs[j])
        else:
            out[r, j] = lows[j]
    _ordered(out, r, lows, ladder[0], ladder[1], ladder[2])


@compiled
def sample_rows(key, begin, end, tables, out):  # type: ignore[no-untyped-def]
    """Random genomes into rows `begin` to `end` of out; see `breed_rows`."""
    state = np.empty(1, dtype=np.uint64)
    for r in range(begin, end):
        state[0] = _mixed(key[0] ^ _mixed(key[1] + GOLDEN * np.uint64(r + 1)))
        _random_row(state, r, tables, out)


@compiled
def _choose(key, begin, end, size, survivors, ids, keys, states, pairs, touched):  # type: ignore[no-untyped-def]
    """Parents of the rows `begin` to `end`, and the streams after them; the parents' genes are on their way then.

    One after the other, each row would wait for its parents' genes to come from memory.
    """
    state = np.empty(1, dtype=np.uint64)
    total = 0.0
    for r in range(begin, end):
        state[0] = _mixed(key[0] ^ _mixed(key[1] + GOLDEN * np.uint64(r + 1)))
        pairs[r - begin, 0] = _winner(state, size, keys)
        pairs[r - begin, 1] = _winner(state, size, keys)
        states[r - begin] = state[0]
    for r in range(end - begin):
        for side in range(2):
            total += ids[pairs[r, side]]
            for j in range(0, survivors.shape[1], LINE):
                total += survivors[pairs[r, side], j]
    touched[0] = total


@compiled
def breed_rows(  # type: ignore[no-untyped-def]
    key, begin, end, tables, size, rates, survivors, ids, keys, out, of, how
):
    """Children into rows `begin` to `end` of out, their parents' ids into `of`, their operators' codes into `how`.

    A parent's gene without an effect is drawn afresh where the child awakes it, as in `variation.children`. What a
    gene is, is chosen and not branched to wherever either is as likely.

    Args:
        key: `(2,)` of the generation's streams.
        begin, end: rows to make.
        tables: of the genes, column for column: kind, low, high and group; first and end of the columns of which one
            must be on for the gene to have an effect (the first below 0 where it always has); then the columns, those
            that wait for others last; and first column, size and number of the blocks that are kept in order.
        size: contestants of a tournament.
        rates: crossover, mutation and immigrants.
        survivors, ids, keys: `(m, genes)`, `(m,)` and `(m, 3)` of those who may be parents; a larger key wins.
        out, of, how: `(n, genes)`, `(n, 2)` and `(n,)`, written.
    """
    kinds, lows, highs, groups, firsts, ends, order, ladder = tables
    state = np.empty(1, dtype=np.uint64)
    sources = np.empty(groups.max() + 1, dtype=np.int64)
    states, pairs = np.empty(BLOCK, dtype=np.uint64), np.empty((BLOCK, 2), dtype=np.int64)
    touched = np.empty(1)
    for r in range(begin, end):
        place = (r - begin) % BLOCK
        if place == 0:
            _choose(key, r, min(r + BLOCK, end), size, survivors, ids, keys, states, pairs, touched)
        state[0] = states[place]
        of[r, 0] = of[r, 1] = -1
        if _uniform(state) < rates[2]:
            how[r] = RANDOM
            _random_row(state, r, tables, out)
            continue
        one, other = pairs[place]
        crossed = (ids[one] != ids[other]) & (_uniform(state) < rates[0])
        of[r, 0] = ids[one]
        of[r, 1] = ids[other] if crossed else -1
        bits = np.uint64(0)
        for group in range(len(sources)):
            if group % 64 == 0:
                bits = _next(state)
            sources[group] = other if crossed & (bits & np.uint64(1) != 0) else one
            bits >>= np.uint64(1)
        for j in order:
            changes = _uniform(state) < rates[1]
            source = sources[groups[j]]
            value = survivors[source, j]
            awake = _awake(out, r, firsts[j], ends[j])
            if awake & (source == one) & (not _awake(survivors, one, firsts[j], ends[j])):
                value = _drawn(state, kinds[j], lows[j], highs[j])
            if awake & changes:
                value = _mutated(state, value, kinds[j], lows[j], highs[j])
            out[r, j] = value if awake else lows[j]
        _ordered(out, r, lows, ladder[0], ladder[1], ladder[2])
        same = True
        for j in range(out.shape[1]):
            same &= out[r, j] == survivors[one, j]
        how[r] = CROSSOVER if crossed else COPY if same else MUTATION
