"""Conformance of searches: what the campaign's loop relies on.

    check_search(make, evaluate)

`make()` returns a fresh search, always the same; `evaluate(batch)` a batch of evaluations.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Callable

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


def check_turns(make: Callable[[], Search], evaluate: Callable[[CandidateBatch], EvaluationBatch]) -> None:
    """Asking twice, telling first and telling the wrong number raise `SearchError`."""
    search = make()
    batch = search.ask()
    evaluations = evaluate(batch)
    for wrong in (search.ask, search.state):
        _raises(wrong, "with a batch open")
    search.tell(evaluations)
    _raises(lambda: search.tell(evaluations), "telling twice")
    other = make()
    _raises(lambda: other.tell(evaluations), "telling before asking")


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
        second.restore(json.loads(json.dumps(first.state())))
        after = _trace(second, evaluate, GENERATIONS - stop)
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
