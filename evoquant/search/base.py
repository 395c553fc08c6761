"""The two batches that every search speaks in, the order of genomes, and what a search is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from evoquant.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome

OK, FAILED, CENSORED = 0, 1, 2
STATUS = ("ok", "failed", "censored")
NO_PARENT = -1


@dataclass(frozen=True, eq=False)
class CandidateBatch:
    """What a search asks to have evaluated: n candidates with consecutive ids.

    Attributes:
        first_id: id of the first candidate; ids count all candidates of a run.
        parents: `(n, 2)` ids, −1 where there is none.
        operators: how each candidate came to be.
        genes: `(n, genes)` rows, where the space is numeric.
        genomes: n genomes, where it is not.
        labels: names of the candidates, where they have one.
        on: `(n,)` index of the one model that a candidate is judged on; None: all models, aggregated.
    """

    first_id: int
    parents: NDArray[np.int64]
    operators: tuple[str, ...]
    genes: NDArray[np.float64] | None = None
    genomes: tuple[Genome, ...] = ()
    labels: tuple[str, ...] = ()
    on: NDArray[np.intp] | None = None

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

    def __len__(self) -> int:
        return len(self.fitness)

    def best(self, count: int) -> NDArray[np.intp]:
        """Rows of the `count` best ok candidates, best first."""
        (ok,) = np.nonzero(self.status == OK)
        order = best_first(
            self.fitness[ok], self.parts[ok], self.cost[ok], lambda row: self.digest(int(ok[row])), count
        )
        return np.asarray(ok[order], dtype=np.intp)


class Search(Protocol):
    """Ask for candidates, be told their evaluations; state is plain data."""

    def ask(self) -> CandidateBatch:
        """The next candidates.

        Raises:
            SearchError: the last ones have not been told yet.
        """
        ...

    def tell(self, evaluations: EvaluationBatch) -> None:
        """The evaluations of the candidates asked for, row for row.

        Raises:
            SearchError: nothing was asked, or the number differs.
        """
        ...

    def done(self) -> bool:
        """Whether the search has nothing more to ask."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` goes on identically; only between a tell and the next ask."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `state` gave."""
        ...


@runtime_checkable
class Archiving(Protocol):
    """A search that also keeps a collection to choose from: a Pareto front, elites by complexity."""

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` rows of the kept genomes, in an order that means something; only between tell and ask."""
        ...


class Turn:
    """Keeps ask and tell in order; searches own one."""

    def __init__(self) -> None:
        self._asked: int | None = None

    def asked(self, count: int) -> None:
        """Note that `count` candidates were asked for.

        Raises:
            SearchError: the last ones have not been told.
        """
        if self._asked is not None:
            raise SearchError(f"ask() was called twice: tell the {self._asked} evaluations of the last batch first.")
        self._asked = count

    def told(self, count: int) -> None:
        """Note that `count` evaluations came back.

        Raises:
            SearchError: nothing was asked, or the number differs.
        """
        if self._asked is None:
            raise SearchError("tell() was called before ask(): there is no batch to tell about.")
        if count != self._asked:
            raise SearchError(f"tell() takes {self._asked} evaluations, one for each candidate asked; got {count}.")
        self._asked = None

    def settled(self) -> None:
        """Check that no batch is open.

        Raises:
            SearchError: one is.
        """
        if self._asked is not None:
            raise SearchError(f"a batch of {self._asked} is open: tell its evaluations before saving the state.")


def best_first(
    fitness: NDArray[np.float64],
    parts: NDArray[np.int64],
    cost: NDArray[np.int64],
    digest: Callable[[int], str],
    count: int | None = None,
) -> NDArray[np.intp]:
    """Rows in the one order of genomes: more fitness, fewer parts, less cost, smaller digest; the first `count`.

    Digests are computed only where all else is equal. NaN comes last.
    """
    worst_last = np.where(np.isnan(fitness), -np.inf, fitness)
    order = np.lexsort((cost, parts, -worst_last))
    wanted = len(order) if count is None else min(count, len(order))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (worst_last, parts, cost):
        same &= column[order[1:]] == column[order[:-1]]
    result = order.tolist()
    start = 0
    while start < wanted:
        end = start + 1
        while end < len(order) and same[end - 1]:
            end += 1
        if end - start > 1:
            result[start:end] = sorted(result[start:end], key=digest)
        start = end
    return np.array(result[:wanted], dtype=np.intp)
