"""The two batches that every search speaks in, and the order of genomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome

OK, FAILED, CENSORED = 0, 1, 2
STATUS = ("ok", "failed", "censored")
NO_PARENT = -1

LARGE = 1000
"""Populations of so many candidates are bred by compiled operators, and looked through with less care for equals."""
FEW = 4  # wanted rows are looked for among the best alone where they are at most a quarter of all
EQUALS = 16  # of more that are equal in all but the digest, the first so many of a large population compete by it


class OperatorColumn(Sequence[str]):
    """How each candidate came to be, as `(n,)` codes into a few names: no string for every row of a large batch."""

    def __init__(self, codes: NDArray[np.int8], names: tuple[str, ...]) -> None:
        self.codes = codes
        self.names = names

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> OperatorColumn: ...

    def __getitem__(self, place: int | slice) -> str | OperatorColumn:
        if isinstance(place, slice):
            return OperatorColumn(self.codes[place], self.names)
        name: str = self.names[self.codes[place]]
        return name

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.codes.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class CandidateBatch:
    """What a search asks to have evaluated: n candidates with consecutive ids.

    Attributes:
        first_id: id of the first candidate; ids count all candidates of a run.
        parents: `(n, 2)` ids, −1 where there is none.
        operators: how each candidate came to be: a tuple, or an `OperatorColumn`.
        genes: `(n, genes)` rows, where the space is numeric.
        genomes: n genomes, where it is not.
        labels: names of the candidates, where they have one.
        on: `(n,)` index of the one model that a candidate is judged on; None: all models, aggregated.
        asked: of candidates in the order of their arrival: in what order they were asked, from 0.
        hashes: `(n,)` hashes of the rows of genes as `scoring.rows_kernel.row_hash` makes them, where they are at hand.
        parts: `(n,)` complexity as the space counts it, where it is at hand.
    """

    first_id: int
    parents: NDArray[np.int64]
    operators: Sequence[str]
    genes: NDArray[np.float64] | None = None
    genomes: tuple[Genome, ...] = ()
    labels: tuple[str, ...] = ()
    on: NDArray[np.intp] | None = None
    asked: tuple[int, ...] = ()
    hashes: NDArray[np.uint64] | None = None
    parts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.operators)


@dataclass(frozen=True, eq=False)
class EvaluationBatch:
    """What the campaign tells back, row for row.

    Attributes:
        fitness: `(n,)`, NaN where failed; of a censored row an estimate from the samples that it had.
        parts: `(n,)` complexity.
        cost: `(n,)` cost summed over the models.
        retention, compression, effective_bits: `(n, models)`.
        status: `(n,)` codes into `STATUS`.
        reasons: row → closed-list reason, for rows that are not ok.
        digest: row → digest of the genome, computed when asked for.
        details: plain data on measured rows, for the journal; None where separable.
        standard_error: `(n,)` of retention, NaN where failed; None where retention is exact.
        divergence: `(n,)` mean divergence from the FP32 outputs in nats, NaN where failed; None where not measured.
        firsts: rows of a large batch that are no copies of an earlier one; None where copies count, too.
        costs: name → `(n, models)` what they cost by every table, where the campaign names several: whole numbers as
            the tables count, `bits` in 1/1024 bit, and beside them `effective_bits`, per weight.
    """

    fitness: NDArray[np.float64]
    parts: NDArray[np.int64]
    cost: NDArray[np.int64]
    retention: NDArray[np.float64]
    compression: NDArray[np.float64]
    effective_bits: NDArray[np.float64]
    status: NDArray[np.int8]
    reasons: Mapping[int, str]
    digest: Callable[[int], str]
    details: Mapping[str, Any] | None = None
    standard_error: NDArray[np.float64] | None = None
    divergence: NDArray[np.float64] | None = None
    firsts: NDArray[np.intp] | None = None
    costs: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.fitness)

    def best(self, count: int) -> NDArray[np.intp]:
        """Rows of the `count` best ok candidates, best first; where `firsts` says so, no copies."""
        (ok,) = np.nonzero(self.status == OK)
        equals = None
        if self.firsts is not None:
            ok, equals = self.firsts[self.status[self.firsts] == OK], EQUALS
        order = best_first(
            self.fitness[ok], self.parts[ok], self.cost[ok], lambda row: self.digest(int(ok[row])), count, equals
        )
        return np.asarray(ok[order], dtype=np.intp)


def best_first(
    fitness: NDArray[np.float64],
    parts: NDArray[np.int64],
    cost: NDArray[np.int64],
    digest: Callable[[int], str],
    count: int | None = None,
    equals: int | None = None,
) -> NDArray[np.intp]:
    """Rows in the one order of genomes: more fitness, fewer parts, less cost, smaller digest; the first `count`.

    Digests are computed only where all else is equal. NaN comes last. Of more than `equals` that are equal in all else,
    the first so many are ordered by digest, and the others follow as they are.
    """
    worst_last = np.where(np.isnan(fitness), -np.inf, fitness)
    wanted = len(fitness) if count is None else min(count, len(fitness))
    if 0 < wanted < len(fitness) // FEW:  # the rest cannot be among them
        least = np.partition(worst_last, len(fitness) - wanted)[len(fitness) - wanted]
        (rows,) = np.nonzero(worst_last >= least)
        worst_last, parts, cost = worst_last[rows], parts[rows], cost[rows]
    else:
        rows = np.arange(len(fitness))
    order = np.lexsort((cost, parts, -worst_last))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (worst_last, parts, cost):
        same &= column[order[1:]] == column[order[:-1]]
    ends = np.append(np.flatnonzero(~same) + 1, len(order))  # of each run of equals
    result = rows[order].tolist()
    start = 0
    for end in ends.tolist():
        if start >= wanted:
            break
        if end - start > 1:
            sorted_end = end if equals is None else min(end, start + equals)
            result[start:sorted_end] = sorted(result[start:sorted_end], key=digest)
        start = end
    return np.array(result[:wanted], dtype=np.intp)
