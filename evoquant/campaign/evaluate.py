"""Genome → allocation → estimator: how a batch of candidates gets its retention, cost and fitness.

Workers return integer sums or per-sample outcomes; only the driver, here, computes retention and fitness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evoquant.execution.base import CAUGHT, Failure, raised
from evoquant.genomes.base import Fused, digest_of
from evoquant.scoring.estimated import UNKNOWN, losses_of
from evoquant.scoring.objective import Aggregate, Objective, Scores, score
from evoquant.scoring.separable import all_cost_sums, retention_of
from evoquant.scoring.threads import in_threads
from evoquant.search.base import (
    CENSORED,
    FAILED,
    LARGE,
    OK,
    CandidateBatch,
    DigestMemo,
    EvaluationBatch,
    OperatorColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.execution.base import Executor
    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.problem import Problem
    from evoquant.scoring.protocol import RetentionModel


THREADS_FROM = 2**15  # rows that are looked through for copies on all cores
COMPILED_BATCH = 2**16  # rows that go together at least where they are scored by compiled code, which shares them out


Sums = tuple["NDArray[np.int64]", "NDArray[np.int64]", dict[int, str]]
"""`(n, models)` loss sums, cost sums as `score` takes them, and row → reason of those that failed."""


@dataclass
class Counters:
    """What evaluation has cost so far.

    Attributes:
        asked: candidates.
        distinct: candidates really scored, duplicates within a batch left out; where measured: allocations.
        passes: full passes over the calibration split (measured only).
        store_hits: measurements found in the store; depends on the cache, never on the result.
        spent: whether the budget of passes is, so that another candidate would not fit.
    """

    asked: int = 0
    distinct: int = 0
    passes: float = 0.0
    store_hits: int = 0
    spent: bool = False


@dataclass(frozen=True)
class KnownFailure:
    """A candidate that a journal records as failed.

    Attributes:
        reason: from the closed list.
        blocks: how many blocks it had been asked for (measured only).
    """

    reason: str
    blocks: int | None = None


class Estimator(Protocol):
    """Turns candidates into evaluations."""

    counters: Counters

    def use(self, executor: Executor) -> None:
        """Evaluate on this executor from now on."""
        ...

    def evaluate(self, batch: CandidateBatch, known_failures: Mapping[int, KnownFailure]) -> EvaluationBatch:
        """Evaluate a batch; rows in `known_failures` stay failed and are not evaluated again."""
        ...

    def state(self) -> dict[str, Any]:
        """Counters as plain data, for the checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over counters."""
        ...


def separable_worker(
    payload: tuple[Space | None, tuple[Problem, ...]],
) -> Callable[[Any], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Executor factory: a function from rows (or genomes) to `(n, models)` loss sums, and cost sums.

    Where problems have several costs all are summed here, beside the allocation that is at hand: `(n, models, 1 + k)`.
    """
    space, problems = payload

    def sums(rows: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _sums_of(space, problems, None, rows)

    return sums


def own_worker(payload: tuple[Space | None, tuple[Problem, ...], RetentionModel | None]) -> Callable[[Any], Sums]:
    """The same where space or estimator are somebody's own, of which one candidate may raise.

    It alone has failed then, whoever shares its batch: that depends on the number of workers.
    """
    space, problems, model = payload

    def sums(rows: Any) -> Sums:
        try:
            losses, costs = _sums_of(space, problems, model, rows)
        except CAUGHT as error:
            if len(rows) == 1:
                reason = {0: raised(error).reason}
                return np.zeros((1, len(problems)), dtype=np.int64), _no_costs(1, problems), reason
            alone = [sums(rows[place : place + 1]) for place in range(len(rows))]
            reasons = {place: found[2][0] for place, found in enumerate(alone) if found[2]}
            return np.concatenate([found[0] for found in alone]), np.concatenate([found[1] for found in alone]), reasons
        unknown = (losses == UNKNOWN).any(axis=1)
        return (
            np.where(unknown[:, None], 0, losses),
            costs,
            dict.fromkeys(np.flatnonzero(unknown).tolist(), "not_finite"),
        )

    return sums


def _sums_of(
    space: Space | None, problems: tuple[Problem, ...], model: RetentionModel | None, rows: Any
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    losses, costs = [], []
    for problem in problems:
        if model is None and isinstance(space, Fused) and isinstance(rows, np.ndarray) and not problem.costs:
            loss, cost = space.sums(rows, problem)
        else:
            if space is not None and isinstance(rows, np.ndarray):
                allocations = space.allocate(rows, problem)
            else:
                allocations = np.stack([genome.allocate(problem) for genome in rows])
            loss, cost = losses_of(problem, allocations, model), all_cost_sums(problem, allocations)
        losses.append(loss)
        costs.append(cost)
    return np.stack(losses, axis=1), np.stack(costs, axis=1)


def _no_costs(n: int, problems: tuple[Problem, ...]) -> NDArray[np.int64]:
    """In the place of cost sums, where there are none yet."""
    named = len(problems[0].costs)
    return np.ones((n, len(problems), 1 + named) if named else (n, len(problems)), dtype=np.int64)


class SeparableEstimator:
    """Scores candidates on profiles: Π (1 − s), or by an estimator of one's own; exact integer sums."""

    def __init__(
        self,
        space: Space | None,
        problems: tuple[Problem, ...],
        objective: Objective,
        aggregate: Aggregate,
        batch: int,
        optimum: NDArray[np.float64] | None = None,
        model: RetentionModel | None = None,
    ) -> None:
        self.counters = Counters()
        self._space = space
        self._problems = problems
        self._objective = objective
        self._aggregate = aggregate
        self._batch = batch
        self._optimum = optimum
        self._model = model
        self._own = model is not None or not is_ours(space)
        self._executor: Executor | None = None
        self._digest = None if space is None else DigestMemo(space)
        self._dear = bool(getattr(space, "dear", False))
        self._last = _LastSums()

    def use(self, executor: Executor) -> None:
        """Place space and problems on the executor's workers."""
        if self._own:
            executor.start(own_worker, (self._space, self._problems, self._model))
        else:
            executor.start(separable_worker, (self._space, self._problems))
        self._executor = executor

    def evaluate(self, batch: CandidateBatch, known_failures: Mapping[int, KnownFailure]) -> EvaluationBatch:
        """Score a batch; equal rows are scored once, and those of the batch before not again where that is dear."""
        items, inverse, firsts = _distinct(batch)
        together = self._batch
        if firsts is not None and getattr(self._space, "linkage", None) is not None:
            together = max(together, COMPILED_BATCH)
        if self._dear and batch.genes is not None and len(batch) < LARGE:
            losses, costs, failed = self._last.sums(items, lambda some: self._sums(some, together))
        else:
            losses, costs, failed = self._sums(items, together)
        self.counters.asked += len(batch)
        self.counters.distinct += len(items)
        reasons = {row: failed[item] for row, item in enumerate(inverse.tolist()) if item in failed} if failed else {}
        reasons.update({row: known.reason for row, known in known_failures.items()})
        retention = retention_of(losses)[inverse]
        retention[list(reasons)] = np.nan
        scores = score(self._objective, self._problems, retention, costs[inverse], self._aggregate, self._optimum)
        evaluations = as_evaluations(batch, scores, self._space, reasons)
        memo, genes = self._digest, batch.genes
        if memo is None or genes is None:
            return evaluations
        return replace(evaluations, firsts=firsts, digest=lambda row: memo(genes[row]))

    def _sums(self, items: Any, together: int) -> Sums:
        """What the workers make of rows or genomes, `together` at a time at most."""
        assert self._executor is not None
        losses = np.zeros((len(items), len(self._problems)), dtype=np.int64)
        costs = _no_costs(len(items), self._problems)
        failed: dict[int, str] = {}
        size = min(together, -(-len(items) // self._executor.workers))
        starts = range(0, len(items), size)
        results = self._executor.map([items[start : start + size] for start in starts])
        for start, result in zip(starts, results, strict=True):
            rows = slice(start, min(start + size, len(items)))
            if isinstance(result, Failure):
                failed.update(dict.fromkeys(range(rows.start, rows.stop), result.reason))
            else:
                losses[rows], costs[rows] = result[:2]
                for reasons in result[2:]:
                    failed.update({start + place: reason for place, reason in reasons.items()})
        return losses, costs, failed

    def state(self) -> dict[str, Any]:
        """Counters."""
        return {"asked": self.counters.asked, "distinct": self.counters.distinct}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over counters."""
        self.counters = Counters(asked=int(state["asked"]), distinct=int(state["distinct"]))
        self._last = _LastSums()


class _LastSums:
    """The sums of the last batch's rows, which children that are copies need not be scored for again.

    Sums are exact, so that where they come from changes nothing.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def sums(self, rows: NDArray[np.float64], scored: Callable[[NDArray[np.float64]], Sums]) -> Sums:
        """What `scored` gives for distinct rows, asked only for those that the last batch did not hold."""
        keys = [row.tobytes() for row in rows]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        failed: dict[int, str] = {}
        found = {key: self._known[key] for key in keys if key in self._known}
        if new:
            losses, costs, failures = scored(rows[new])
            failed = {new[place]: reason for place, reason in failures.items()}
            found.update((keys[place], (losses[i], costs[i])) for i, place in enumerate(new))
        both = [np.array([found[key][part] for key in keys], dtype=np.int64) for part in (0, 1)]
        self._known = {key: found[key] for place, key in enumerate(keys) if place not in failed}
        return both[0], both[1], failed


def score_genomes(
    genomes: Sequence[Genome],
    problems: tuple[Problem, ...],
    objective: Objective,
    aggregate: Aggregate,
    optimum: NDArray[np.float64] | None = None,
    model: RetentionModel | None = None,
) -> Scores:
    """Scores of a few genomes on models that no search has seen: finalists, champions, baselines.

    By the separable estimate, or by `model`; what that fails on has retention NaN, and so has its fitness.
    """
    if model is None:
        losses, costs = separable_worker((None, problems))(genomes)
        failed: dict[int, str] = {}
    else:
        losses, costs, failed = own_worker((None, problems, model))(genomes)
    retention = retention_of(losses)
    retention[list(failed)] = np.nan
    return score(objective, problems, retention, costs, aggregate, optimum)


def is_ours(space: Space | None) -> bool:
    """Whether a space is one of evoquant's, of which nothing raises for one candidate alone."""
    return space is None or type(space).__module__.startswith("evoquant.")


def as_evaluations(
    batch: CandidateBatch,
    scores: Scores,
    space: Space | None,
    reasons: Mapping[int, str],
    details: Mapping[str, Any] | None = None,
    *,
    censored: Mapping[int, str] | None = None,
    standard_error: NDArray[np.float64] | None = None,
    divergence: NDArray[np.float64] | None = None,
) -> EvaluationBatch:
    """Put scores, complexity and lazily computed digests together.

    Args:
        batch, scores, space: the candidates and what they scored.
        reasons: row → why it failed.
        details, standard_error, divergence: as `EvaluationBatch` has them.
        censored: row → why its measurement was cut short.
    """
    n = len(batch)
    fitness, cost = scores.fitness, scores.cost
    if batch.on is not None:  # each candidate on the one model it names
        fitness = scores.per_model[np.arange(n), batch.on]
    if np.isinf(fitness).any():  # of an objective of one's own; no journal holds it
        fitness = np.where(np.isinf(fitness), np.nan, fitness)
    if batch.parts is not None:
        parts = batch.parts
    elif batch.genes is not None:
        assert space is not None
        parts = space.parts(batch.genes)
    else:
        parts = np.array([genome.parts for genome in batch.genomes], dtype=np.int64)
    status = np.full(n, OK, dtype=np.int8)
    status[list(reasons)] = FAILED
    cut_short = dict(censored or {})
    status[list(cut_short)] = CENSORED
    undefined = (status == OK) & np.isnan(fitness)
    status[undefined] = FAILED
    all_reasons = {**dict.fromkeys(np.flatnonzero(undefined).tolist(), "not_finite"), **reasons, **cut_short}
    return EvaluationBatch(
        fitness=fitness,
        parts=parts,
        cost=cost,
        retention=scores.retention,
        compression=scores.compression,
        effective_bits=scores.effective_bits,
        status=status,
        reasons=all_reasons,
        digest=lambda row: digest_of(genome_at(batch, space, row)),
        details=details,
        standard_error=standard_error,
        divergence=divergence,
        costs=scores.amounts,
    )


def genome_at(batch: CandidateBatch, space: Space | None, row: int) -> Genome:
    """The genome of one row of a batch."""
    if batch.genes is None:
        return batch.genomes[row]
    assert space is not None
    return space.decode(batch.genes[row])


def _distinct(batch: CandidateBatch) -> tuple[Any, NDArray[np.intp], NDArray[np.intp] | None]:
    """Distinct rows of a batch (or its genomes as they are), for each row the index of its own, and where they stand.

    Where they stand is said of large batches alone, and those of large populations, which are too many to sort.
    """
    if batch.genes is None:
        return batch.genomes, np.arange(len(batch), dtype=np.intp), None
    if len(batch) < LARGE and not isinstance(batch.operators, OperatorColumn):
        rows, inverse = np.unique(batch.genes, axis=0, return_inverse=True)
        return rows, inverse.reshape(-1), None
    from evoquant.scoring.rows_kernel import distinct_rows, gather_rows, hash_rows

    genes, n = np.ascontiguousarray(batch.genes), len(batch)
    words, hashes = genes.view(np.uint64), batch.hashes
    if hashes is None:
        hashes = made = np.empty(n, dtype=np.uint64)
        in_threads(lambda part: hash_rows(words, part.start, min(part.stop, n), made), n, many=n >= THREADS_FROM)
    firsts, places = distinct_rows(words, hashes)
    count = len(firsts)
    if count == n:
        return genes, places, firsts
    items = np.empty((count, genes.shape[1]))
    some = items.view(np.uint64)
    in_threads(
        lambda part: gather_rows(words, firsts, part.start, min(part.stop, count), some), count, many=n >= THREADS_FROM
    )
    return items, places, firsts
