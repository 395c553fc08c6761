"""Conformance of searches: what the campaign's loop relies on.

    check_search(make, evaluate)

`make()` returns a fresh search, always the same; `evaluate(batch)` a batch of evaluations.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import SearchError
from evoquant.search.base import CENSORED, FAILED, Archiving

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evoquant.search.base import CandidateBatch, EvaluationBatch, Search

GENERATIONS = 6


def check_search(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """Run every check.

    Raises:
        AssertionError: naming what does not hold.
    """
    check_turns(make, evaluate)
    check_repeats(make, evaluate)
    check_state(make, evaluate)
    check_ids(make, evaluate)
    check_cut_short(make, evaluate)
    check_all_failed(make, evaluate)


def check_turns(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """Asking twice, telling first and telling the wrong number raise `SearchError` and change nothing."""
    search = make()
    batch = search.ask()
    evaluations = evaluate(batch)
    _raises(search.ask, "asking twice")
    _raises(search.state, "a state with a batch open")
    _raises(lambda: search.tell(_rows(evaluations, slice(len(batch) - 1))), "telling too few")
    twice = [*range(len(batch)), 0]
    _raises(lambda: search.tell(_rows(evaluations, twice)), "telling too many")
    search.tell(evaluations)
    _raises(lambda: search.tell(evaluations), "telling twice")
    other = make()
    _raises(lambda: other.tell(evaluations), "telling before asking")
    same = make()
    same.ask()
    same.tell(evaluations)
    for misused in (search, other):
        undisturbed = same if misused is search else make()
        same_next = _trace(misused, evaluate, 1) == _trace(undisturbed, evaluate, 1)
        assert same_next, "what raised changed what is asked next"


def check_repeats(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """Two searches that are told the same ask the same."""
    assert _trace(make(), evaluate) == _trace(make(), evaluate), "two equal searches ask differently"


def check_state(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """A state that went through JSON goes on identically."""
    whole = make()
    expected = _trace(whole, evaluate)
    for stop in range(1, GENERATIONS):
        first = make()
        before = _trace(first, evaluate, stop)
        if first.done():
            break
        second = make()
        state = first.state()
        text = _text(state)
        second.restore(json.loads(text))
        after = _trace(second, evaluate, GENERATIONS - stop)
        _trace(first, evaluate, 1)
        assert _text(state) == text, f"a state taken after {stop} generations changed as the search went on"
        assert before + after == expected, f"restored after {stop} generations, the search goes on differently"


def check_ids(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """Ids count on, parents are earlier candidates, columns have one row a candidate."""
    search, expected = make(), 0
    for _ in range(GENERATIONS):
        if search.done():
            break
        batch = search.ask()
        assert batch.first_id == expected, f"first id {batch.first_id}, expected {expected}"
        assert batch.parents.shape == (len(batch), 2), "parents should be (n, 2)"
        assert (batch.parents < batch.first_id).all(), "a parent is not an earlier candidate"
        assert (batch.genes is None) != (not batch.genomes), "a batch has either genes or genomes"
        expected += len(batch)
        search.tell(evaluate(batch))


def check_cut_short(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """Candidates that were measured in part, or not at all, are lived with and are never in an archive."""
    search = make()
    whole: set[bytes] = set()
    partial: set[bytes] = set()
    for _ in range(GENERATIONS):
        if search.done():
            break
        batch = search.ask()
        evaluations = evaluate(batch)
        rows = np.arange(1, len(batch), 2)
        search.tell(_cut_short(evaluations, rows))
        _text(search.state())
        if batch.genes is not None:
            whole |= {row.tobytes() for row in np.delete(batch.genes, rows, axis=0)}
            partial |= {row.tobytes() for row in batch.genes[rows]}
        if isinstance(search, Archiving):
            kept = {row.tobytes() for row in search.archive()}
            assert not kept & (partial - whole), "a candidate that was measured in part is in the archive"


def check_all_failed(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """A first generation that failed whole is followed by another, from a plain state too."""
    search = make()
    batch = search.ask()
    evaluations, n = evaluate(batch), len(batch)
    failed = dataclasses.replace(
        evaluations,
        fitness=np.full(n, np.nan),
        retention=np.full_like(evaluations.retention, np.nan),
        status=np.full(n, FAILED, dtype=np.int8),
        reasons=dict.fromkeys(range(n), "time_limit"),
    )
    search.tell(failed)
    restored = make()
    restored.restore(json.loads(_text(search.state())))
    assert _trace(search, evaluate, 1) == _trace(restored, evaluate, 1), "restored after failures only, it differs"


def _text(state: object) -> str:
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"a state is not plain data: {error}") from None


def _rows(evaluations: EvaluationBatch, rows: slice | list[int]) -> EvaluationBatch:
    """Some rows alone."""
    places = np.arange(len(evaluations))[rows].tolist()
    columns = ("fitness", "parts", "cost", "retention", "compression", "effective_bits", "status")
    return dataclasses.replace(
        evaluations,
        **{name: getattr(evaluations, name)[rows] for name in columns},
        reasons={i: evaluations.reasons[row] for i, row in enumerate(places) if row in evaluations.reasons},
        digest=lambda row: evaluations.digest(places[row]),
        details=None,
        standard_error=None if evaluations.standard_error is None else evaluations.standard_error[rows],
        divergence=None if evaluations.divergence is None else evaluations.divergence[rows],
        firsts=None,
    )


def _cut_short(evaluations: EvaluationBatch, rows: NDArray[np.intp]) -> EvaluationBatch:
    """These rows censored: below the rest by their estimates, and every other one without any."""
    fitness, retention = evaluations.fitness.copy(), evaluations.retention.copy()
    status = evaluations.status.copy()
    status[rows] = CENSORED
    fitness[rows] = np.nanmin(evaluations.fitness) - 1.0
    fitness[rows[::2]] = np.nan
    retention[rows[::2]] = np.nan
    reasons = {**evaluations.reasons, **dict.fromkeys(rows.tolist(), "behind")}
    return dataclasses.replace(evaluations, fitness=fitness, retention=retention, status=status, reasons=reasons)


def _trace(
    search: Search, evaluate: Callable[[CandidateBatch], EvaluationBatch], generations: int = GENERATIONS
) -> list[str]:
    seen = []
    for _ in range(generations):
        if search.done():
            break
        batch = search.ask()
        rows = batch.genes.tolist() if batch.genes is not None else [genome.to_dict() for genome in batch.genomes]
        seen.append(json.dumps([batch.first_id, rows, np.asarray(batch.parents).tolist(), list(batch.operators)]))
        search.tell(evaluate(batch))
    return seen


def _raises(call: Callable[[], object], when: str) -> None:
    try:
        call()
    except SearchError:
        return
    raise AssertionError(f"{when} should raise SearchError")
