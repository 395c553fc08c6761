"""Rules scored without allocations: a model's units as bit masks, so that a genome costs a few look-ups.

    units, sorted by type and position, in tiles of up to 144
    a rung, an edge or protected types  → the mask of the units of a tile where it holds
    first that holds                    → a few ANDs, after which the masks are disjoint
    a mask and a width                  → its loss and cost, summed from a table for each of the mask's bytes

Of large models, rules that read at most one signal are scored by the prefix sums of `evoquant.genomes.rule_prefix`.
Everything here is exact: comparisons are those of `RuleSpace.allocate`, and sums are sums of integers. What is made
for a space's types and signals and a problem is kept as long as the problem lives.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from evoquant.genomes.rule_prefix import OneSignal
from evoquant.scoring.separable import cost_sums, loss_sums
from evoquant.scoring.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Space
    from evoquant.scoring.problem import Problem

KERNEL = "evoquant.scoring.compiled"
COMPILED_FROM = 2**20  # genomes × units: NumPy needs some 50 ms for so many, and numba a second to be imported
KERNEL_FROM = 2**12  # genomes × units, once it is
THREADS_FROM = 2**21  # genomes × units: below, both cores together would save less than a millisecond
BUCKETS = 1024  # in which thresholds are sorted before values are compared with them
SMALLEST = 1e-5  # the least threshold that there is a bucket for; smaller ones share the first
KEPT_BYTES = 2**24  # of sums; those of a larger model are made anew in every pass over its tiles
ROWS_MADE = 2**16  # genomes in a pass, to make up for that
ROWS_KEPT = 2**12  # else: to stay in the cache
ONE_SIGNAL_FROM = 800  # units: below, masks are faster also for rules that read at most one signal


class Tables(NamedTuple):
    """A problem's units in T tiles, for S signals, of which the first is the position.

    Attributes:
        keys: `(S, 2)` of the first bucket's end and of a bucket's breadth: see `bucket_of`.
        starts: `(T, S, BUCKETS)` how many of a tile's values lie in buckets before this one.
        values: `(T, S, size)` a tile's values in ascending order, NaN last.
        counts: `(T, S)` how many are not NaN.
        above: `(T, S, size + 1, WORDS)` masks of the units whose rank in `values` is at least so much.
        free: `(T, groups, 64, WORDS)` masks of what is left when those types of a group are protected
            whose bits are set.
        protected: `(T, groups, 64, P, 2)` losses and costs of the other units.
        full: `(T, WORDS)` masks of all units.
        entries: `(T, size, P, 2)` loss and cost of a unit where a genome names a width, repaired where it is forbidden.
        sums: `(T, P, bytes of a word, WORDS, 256, 2)` sums for each byte of a mask; T is 0 where they are not kept.
    """

    keys: NDArray[np.int64]
    starts: NDArray[np.uint8]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    above: NDArray[np.int64]
    free: NDArray[np.int64]
    protected: NDArray[np.int64]
    full: NDArray[np.int64]
    entries: NDArray[np.int64]
    sums: NDArray[np.int64]


Made = tuple[Tables, OneSignal | None]
_made: WeakKeyDictionary[Problem, dict[tuple[tuple[str, ...], tuple[str, ...]], Made]] = WeakKeyDictionary()


def rule_sums(
    space: Space, types: tuple[str, ...], signals: tuple[str, ...], genes: NDArray[np.float64], problem: Problem
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(n,)` summed integer losses and costs of rules over these types and signals, the constant part included.

    Raises:
        ProfileError: the profile lacks a signal of the space, or a loss.
    """
    found = None
    if _worth(genes, problem) and genes.shape[1] >= len(types) + 5:  # as many columns as the kernel reads flags
        known = _made.setdefault(problem, {})
        key = (types, signals)
        if key not in known:
            known[key] = make_tables(problem, *key), _one_signal(problem, *key)
        tables, one = known[key]
        from evoquant.genomes import rule_kernel

        chunk = ROWS_KEPT if len(tables.sums) else ROWS_MADE

        def by_masks(rows: NDArray[np.float64], losses: NDArray[np.int64], costs: NDArray[np.int64]) -> bool:
            bits = rows.view(np.int64)
            return bool(rule_kernel.sums(rows, bits, len(types), tables, chunk, losses, costs))

        def score(rows: NDArray[np.float64], losses: NDArray[np.int64], costs: NDArray[np.int64]) -> bool:
            if one is None:
                return by_masks(rows, losses, costs)
            rest = one.score(rows, losses, costs)
            if rest is None:
                return False
            others = np.zeros((2, len(rest)), dtype=np.int64)
            sound = by_masks(rows[rest], *others)
            losses[rest], costs[rest] = others
            return sound

        genes = _plain(genes)
        if one is not None:
            one.prepare(genes)
        found = _by_kernel(score, genes, problem)
    return _by_numpy(space, genes, problem) if found is None else found


def _one_signal(problem: Problem, types: Sequence[str], signals: Sequence[str]) -> OneSignal | None:
    """None where the masks are faster, or a position is no number and so neither inside nor at an edge."""
    if len(problem.units) < ONE_SIGNAL_FROM or np.isnan(problem.position).any():
        return None
    return OneSignal(problem, types, signals, _entries(problem))


def _plain(genes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.require(genes, np.float64, ["C_CONTIGUOUS", "WRITEABLE"])  # other kinds would be compiled for anew


def direct_sums(
    space: Space, genes: NDArray[np.float64], problem: Problem
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(n,)` summed integer losses and costs of direct allocations, the constant part included.

    Raises:
        ProfileError: the profile lacks a loss.
    """
    found = None
    if _worth(genes, problem):
        from evoquant.genomes import rule_kernel

        entries = _entries(problem)

        def score(rows: NDArray[np.float64], losses: NDArray[np.int64], costs: NDArray[np.int64]) -> bool:
            return bool(rule_kernel.direct(rows, entries, losses, costs))

        found = _by_kernel(score, genes, problem)
    return _by_numpy(space, genes, problem) if found is None else found


def _worth(genes: NDArray[np.float64], problem: Problem) -> bool:
    return len(genes) * len(problem.units) >= (KERNEL_FROM if KERNEL in sys.modules else COMPILED_FROM)


def _by_numpy(
    space: Space, genes: NDArray[np.float64], problem: Problem
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    allocations = space.allocate(genes, problem)
    return loss_sums(problem, allocations), cost_sums(problem, allocations)


def _by_kernel(
    score: Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], bool],
    genes: NDArray[np.float64],
    problem: Problem,
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """What `score` adds up, on both cores where it pays; None where it met a row that is not within its limits."""
    rows = _plain(genes)
    losses, costs = np.zeros((2, len(rows)), dtype=np.int64)
    many = rows.shape[0] * len(problem.units) >= THREADS_FROM
    if not all(in_threads(lambda part: score(rows[part], losses[part], costs[part]), len(rows), many=many)):
        return None
    costs += problem.cost.constant
    return losses, costs


def _entries(problem: Problem) -> NDArray[np.int64]:
    """`(units, P, 2)` loss and cost of a unit where a genome names a width, repaired where it is forbidden."""
    units, widths = len(problem.units), len(problem.menu)
    chosen = problem.repair(np.tile(np.arange(widths, dtype=np.int8)[:, None], units)).T
    rows = np.arange(units)[:, None]
    return np.stack([problem.separable_loss()[rows, chosen], problem.cost.table[rows, chosen]], axis=-1)


def make_tables(problem: Problem, types: Sequence[str], signals: Sequence[str]) -> Tables:
    """The tables of a problem for rules over these types and signals.

    Raises:
        ProfileError: the profile lacks a signal, or a loss.
    """
    from evoquant.genomes import rule_kernel
    from evoquant.genomes.rule_kernel import TILE, WORD_BYTES, WORDS

    units, widths = len(problem.units), len(problem.menu)
    known = {kind: column for column, kind in reversed(list(enumerate(types)))}
    column = np.array([known.get(kind, -1) for kind in problem.types.tolist()])
    read = np.array([problem.position, *(problem.signal(name) for name in signals)])
    tiles = -(-units // TILE)
    size = -(-units // tiles)
    unit = np.full((tiles, size), -1)
    unit.flat[:units] = np.lexsort((problem.position, column))
    slots = np.zeros((size, WORDS), dtype=np.int64)
    word, bit = np.divmod(np.arange(size), 8 * WORD_BYTES)
    slots[np.arange(size), word] = 1 << bit
    values = np.where(unit[:, None] >= 0, read[:, unit].swapaxes(0, 1), np.nan)
    ranks = np.argsort(values, axis=-1, kind="stable")
    values = np.take_along_axis(values, ranks, axis=-1)
    above = np.zeros((*values.shape[:2], size + 1, WORDS), dtype=np.int64)
    above[:, :, :size] = np.where(np.isnan(values)[..., None], 0, slots[ranks])
    above = np.bitwise_or.accumulate(above[:, :, ::-1], axis=2)[:, :, ::-1]
    keys = np.array([_keys(some) for some in read])

    entries = np.where((unit >= 0)[..., None, None], _entries(problem)[unit], 0)
    on = _combinations(column[unit], unit >= 0, len(types))
    free = np.bitwise_or.reduce(np.where(on[..., None] | (unit < 0)[:, None, None, :, None], 0, slots), axis=3)
    protected = np.einsum("tgcu,tupi->tgcpi", on.astype(np.int64), entries)
    table = (widths, WORD_BYTES, WORDS, 256, 2)
    kept = tiles if 8 * tiles * math.prod(table) <= KEPT_BYTES else 0
    tables = Tables(
        keys,
        _starts(values, keys),
        values,
        (~np.isnan(values)).sum(axis=-1),
        np.ascontiguousarray(above),
        free,
        protected,
        np.bitwise_or.reduce(np.where((unit >= 0)[..., None], slots, 0), axis=1),
        entries,
        np.zeros((kept, *table), dtype=np.int64),
    )
    for tile in range(kept):
        rule_kernel.fill(tables.entries[tile], tables.sums[tile])
    return tables


def _combinations(column: NDArray[np.int64], real: NDArray[np.bool_], types: int) -> NDArray[np.bool_]:
    """`(T, groups, 64, size)`: whether a unit is of a type that a combination of the types of a group holds."""
    from evoquant.genomes.rule_kernel import GROUP

    groups = -(-types // GROUP)
    on = np.zeros((len(column), groups, 1 << GROUP, column.shape[1]), dtype=bool)
    for kind in range(types):
        group, bit = divmod(kind, GROUP)
        held = np.arange(1 << GROUP) >> bit & 1 == 1
        on[:, group] |= held[:, None] & (real & (column == kind))[:, None]
    return on


def _keys(values: NDArray[np.float64]) -> tuple[int, int]:
    """Where a signal's buckets begin, and by how many bits its keys are shifted.

    Floats above 0 have the order of their bits read as integers. Whatever is less than the first key, negative or NaN
    with a sign lies in bucket 0, which any comparison may begin with.
    """
    positive = values[(values >= SMALLEST) & np.isfinite(values)]
    if not len(positive):
        return 0, 62
    first, last = np.array([positive.min(), positive.max()]).view(np.int64).tolist()
    return first, max((last - first).bit_length() - (BUCKETS // 2).bit_length() + 1, 0)


def _starts(values: NDArray[np.float64], keys: NDArray[np.int64]) -> NDArray[np.uint8]:
    bits = np.ascontiguousarray(values).view(np.int64)
    first, shift = keys[:, 0, None], keys[:, 1, None]
    bucket = np.where(bits < first, 0, np.minimum(1 + ((bits - first) >> shift), BUCKETS - 1))
    bucket[np.isnan(values)] = BUCKETS - 1
    counts = np.zeros((*values.shape[:2], BUCKETS), dtype=np.uint8)
    for tile in range(len(values)):
        for signal in range(values.shape[1]):
            some = bucket[tile, signal]
            counts[tile, signal] = np.searchsorted(some, np.arange(BUCKETS))
    return counts
