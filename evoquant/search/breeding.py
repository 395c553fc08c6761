"""Children of large populations: tournament, crossover, mutation and immigrants in one compiled pass.

The operators are those of `variation.children`, for spaces that say as data how their genes hang together. Every child
has a random stream of its own, keyed by the seed, the generation and its row, so the threads that share the rows out
cannot change what comes of it. The streams are others than those of `variation.children`: which of the two a search
uses depends on its settings alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evoquant.genomes.base import ALWAYS, Linkage, NumericOperators
from evoquant.scoring.threads import in_threads
from evoquant.search.base import NO_PARENT, CandidateBatch, OperatorColumn
from evoquant.search.variation import Rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space

KINDS = ("flag", "option", "width", "fraction", "log")  # by code in the kernel
THREADS_FROM = 8192  # rows: fewer are made before another thread has started
SHARES = 4  # parts of a batch for each core


class Settings(Rates, Protocol):
    """What breeding reads of a search's settings."""

    @property
    def tournament(self) -> int:
        """Contestants for a parent."""
        ...


@dataclass(frozen=True, eq=False)
class Survivors:
    """Those who may be parents: m rows of genes, ids, and what a tournament compares."""

    genes: NDArray[np.float64]
    ids: NDArray[np.int64]
    fitness: NDArray[np.float64]
    parts: NDArray[np.int64]
    cost: NDArray[np.int64]

    def keys(self) -> NDArray[np.int64]:
        """`(m, 3)` whole numbers whose order, row by row, is that of a tournament: the larger wins."""
        bits = (self.fitness + 0.0).view(np.int64)  # + 0.0: there is one zero
        # Numbers below 0 are ordered the other way round in bits.
        return np.column_stack([bits ^ ((bits >> 63) & np.int64(2**63 - 1)), -self.parts, -self.cost])


class Breeder:
    """The compiled operators for the genes of one space."""

    def __init__(self, space: Space, linkage: Linkage) -> None:
        genes = space.genes
        self.space = space
        self._counts = linkage.counted is not None
        waits = np.array([waker != ALWAYS for waker in linkage.wakers])
        wakers = sorted(set(linkage.wakers) - {ALWAYS})
        limits = np.array([[float(gene.low) for gene in genes], [float(gene.high) for gene in genes]])
        codes = (
            [KINDS.index(gene.kind) for gene in genes],
            [gene.group for gene in genes],
            [wakers.index(waker) if waker != ALWAYS else -1 for waker in linkage.wakers],
            np.argsort(waits, kind="stable"),
            np.isin(np.arange(len(genes)), linkage.counted or ()),
            limits[0].view(np.int64),
        )
        self._tables = (
            np.array(codes, dtype=np.int64),
            limits,
            np.array(wakers, dtype=np.int64).reshape(-1, 2),
            np.array([(~waits).sum(), *linkage.ladder], dtype=np.int64),
        )

    def newcomers(
        self, rng: np.random.Generator, n: int, *, first_id: int = 0, start: Sequence[Genome] = (), room: int = 0
    ) -> CandidateBatch:
        """n candidates without parents: the given ones, the rest random; see `children`."""
        from evoquant.search.breeding_kernel import OPERATORS, RANDOM, START, finish_rows, sample_rows

        key = _key(rng)
        columns = _Columns(n, len(self.space.genes), room)
        columns.how[:] = RANDOM
        made = columns.genes, columns.words, columns.hashes, columns.parts
        _each_part(lambda begin, end: sample_rows(key, begin, end, *self._tables, *made), n)
        if start:
            encoded = np.array([self.space.encode(genome) for genome in start])
            columns.genes[: len(start)] = self.space.canonical(encoded)
            columns.how[: len(start)] = START
            finish_rows(0, len(start), *self._tables, *made)
        columns.parents[:] = NO_PARENT
        return columns.batch(first_id, OPERATORS, counts=self._counts)

    def children(
        self,
        survivors: Survivors,
        rng: np.random.Generator,
        n: int,
        settings: Settings,
        *,
        first_id: int = 0,
        room: int = 0,
    ) -> CandidateBatch:
        """n children of parents that won a tournament each.

        Args:
            survivors: the parents; equal fitness is decided by fewer parts, then less cost, then by lot.
            rng: gives the key of the streams.
            n: how many.
            settings: of the tournament, and the operators' rates.
            first_id: of the first child.
            room: rows left free in memory before the first child's genes, see `with_room`.
        """
        from evoquant.search.breeding_kernel import OPERATORS, breed_rows

        key = _key(rng)
        columns = _Columns(n, len(self.space.genes), room)
        rates = np.array([settings.crossover_rate, settings.mutation_rate, settings.immigrant_rate])
        fixed = (
            *(*self._tables, settings.tournament, rates),
            *(survivors.genes, survivors.ids, survivors.keys()),
            *(columns.genes, columns.words, columns.parents, columns.how, columns.hashes, columns.parts),
        )
        _each_part(lambda begin, end: breed_rows(key, begin, end, *fixed), n)
        return columns.batch(first_id, OPERATORS, counts=self._counts)


class _Columns:
    """The arrays of n candidates, still to be filled, and the same genes as words."""

    def __init__(self, n: int, width: int, room: int) -> None:
        self.genes = np.empty((room + n, width))[room:]
        self.words = self.genes.view(np.uint64)
        self.parents = np.empty((n, 2), dtype=np.int64)
        self.how = np.empty(n, dtype=np.int8)
        self.hashes = np.empty(n, dtype=np.uint64)
        self.parts = np.empty(n, dtype=np.int64)

    def batch(self, first_id: int, operators: tuple[str, ...], *, counts: bool) -> CandidateBatch:
        how, parts = OperatorColumn(self.how, operators), self.parts if counts else None
        return CandidateBatch(first_id, self.parents, how, genes=self.genes, hashes=self.hashes, parts=parts)


def with_room(genes: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """`before` and then the genes of a bred batch in one array, without copying these; None where there is no room.

    Only once for a batch: what is written before its genes belongs to whoever had them bred.
    """
    whole, room = genes.base, len(before)
    if not isinstance(whole, np.ndarray) or whole.dtype != genes.dtype or whole.shape[1:] != genes.shape[1:]:
        return None
    start = len(whole) - len(genes)
    if start < room or not genes.flags.c_contiguous or genes.ctypes.data != whole[start:].ctypes.data:
        return None
    whole[start - room : start] = before
    return whole[start - room :]


def breeder_of(space: Space) -> Breeder | None:
    """The compiled operators of a space, or None where it has operators of its own, or does not say its linkage."""
    linkage = getattr(space, "linkage", None)
    ours = all(getattr(type(space), name, None) is getattr(NumericOperators, name) for name in ("cross", "mutate"))
    return Breeder(space, linkage) if ours and isinstance(linkage, Linkage) else None


def _each_part(make: Callable[[int, int], None], n: int) -> None:
    """Make n rows, on all cores where that pays."""
    in_threads(lambda rows: make(rows.start, min(rows.stop, n)), n, many=n >= THREADS_FROM, shares=SHARES)


def _key(rng: np.random.Generator) -> NDArray[np.uint64]:
    return rng.integers(0, 2**64, 2, dtype=np.uint64)
