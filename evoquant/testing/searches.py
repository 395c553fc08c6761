"""Conformance of searches: what the campaign's loop relies on.

check_search(MySearch)                    as a campaign makes it: MySearch(space, seed=seed)
check_search(partial(MySearch, population=8), spaces={"mine": space})
check_search(make, evaluate)              make() gives it over a space of its own, evaluate(batch) is what it is told
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import SearchError
from evoquant.search.base import CENSORED, FAILED, Archiving
from evoquant.testing.clauses import ConformanceError, no_global_randomness, require, run_checks
from evoquant.testing.examples import evaluator, example_problem, example_spaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from evoquant.genomes.base import Space
    from evoquant.search.base import CandidateBatch, EvaluationBatch, Search

    Make = Callable[[], Search]
    Evaluate = Callable[[CandidateBatch], EvaluationBatch]

GENERATIONS = 6
STOPS = (1, 2, 3, 5)  # generations after which a state is taken
SEED, OTHER_SEED = 3, 4


def check_search(
    make: Callable[..., Search],
    evaluate: Evaluate | None = None,
    *,
    spaces: Mapping[str, Space] | None = None,
    deterministic: bool = False,
) -> None:
    """Put a search through all that the protocol promises.

    Args:
        make: the class, or whatever a config's `search.kind` names: called as `make(space, seed=seed)`. With `evaluate`
            it is called without arguments, and gives a fresh search, always the same.
        evaluate: what such a search is told of a batch.
        spaces: name → space that the search is tried on, of genomes that can allocate the published test model; by
            default rules, direct allocations and trees.
        deterministic: of a search that draws nothing, so that another seed may ask the same.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    if evaluate is not None:
        check_each(make, evaluate)
        return
    problem = example_problem()
    for name, space in (example_spaces(problem) if spaces is None else spaces).items():
        tell = evaluator(space, problem)
        try:
            check_each(partial(make, space, seed=SEED), tell)
            if not deterministic:
                run_checks((check_seed,), partial(make, space), tell)
        except Exception as error:
            error.add_note(f"evoquant.testing: over the space {name!r}")
            raise


def check_each(make: Make, evaluate: Evaluate) -> None:
    """Every check but that of the seed, of searches that `make()` gives.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    checks = (check_repeats, check_batches, check_told, check_turns, check_state, check_cut_short, check_all_failed)
    run_checks(checks, make, evaluate)


def check_seed(make: Callable[..., Search], evaluate: Evaluate) -> None:
    """The seed decides: another one asks something else."""
    one, other = (make(seed=seed) for seed in (SEED, OTHER_SEED))
    differs = any(_trace(one, evaluate, 1) != _trace(other, evaluate, 1) for _ in range(GENERATIONS))
    require(differs, "a search with another seed asks the same: it ignores its seed")


def check_turns(make: Make, evaluate: Evaluate) -> None:
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
        require(same_next, "what raised changed what is asked next")


def check_repeats(make: Make, evaluate: Evaluate) -> None:
    """Two searches that are told the same ask the same, and draw from no stream that others share."""
    with no_global_randomness("the search"):
        first = _trace(make(), evaluate)
    require(first == _trace(make(), evaluate), "two equal searches ask differently")


def check_state(make: Make, evaluate: Evaluate) -> None:
    """A state that went through JSON goes on identically."""
    expected = _trace(make(), evaluate)
    for stop in STOPS:
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
        require(_text(state) == text, f"a state taken after {stop} generations changed as the search went on")
        require(before + after == expected, f"restored after {stop} generations, the search goes on differently")


def check_batches(make: Make, evaluate: Evaluate) -> None:
    """Ids count on, parents are earlier candidates, columns have one row a candidate, genes lie within their limits."""
    search, expected = make(), 0
    for _ in range(GENERATIONS):
        if search.done():
            break
        batch = search.ask()
        n = len(batch)
        require(n > 0, "a search that is not done asks for nothing")
        require(batch.first_id == expected, f"first id {batch.first_id}, expected {expected}")
        require(np.shape(batch.parents) == (n, 2), f"parents: shape {np.shape(batch.parents)}, expected {(n, 2)}")
        require(np.issubdtype(batch.parents.dtype, np.integer), f"parents: {batch.parents.dtype}, not whole numbers")
        require((batch.parents < batch.first_id).all(), "a parent is not an earlier candidate")
        require(all(isinstance(name, str) for name in batch.operators), "operators: not all are strings")
        require((batch.genes is None) != (not batch.genomes), "a batch has either genes or genomes")
        rows = len(batch.genomes) if batch.genes is None else len(batch.genes)
        require(rows == n, f"a batch has {n} operators and {rows} candidates")
        if batch.genes is not None:
            _check_genes(batch.genes, getattr(search, "space", None))
        expected += n
        search.tell(evaluate(batch))


def check_told(make: Make, evaluate: Evaluate) -> None:
    """What a search is told, and what it has asked, stays as it is: campaigns journal both."""
    search = make()
    kept: list[tuple[int, Any, Any, bytes, bytes]] = []
    for generation in range(3):
        if search.done():
            break
        batch = search.ask()
        evaluations = evaluate(batch)
        kept.append((generation, batch, evaluations, _bytes(batch), _bytes(evaluations)))
        search.tell(evaluations)
        for at, asked, told, asked_before, told_before in kept:
            require(_bytes(told) == told_before, f"tell: changes the evaluations of generation {at}")
            require(_bytes(asked) == asked_before, f"the batch of generation {at} changes as the search goes on")


def check_cut_short(make: Make, evaluate: Evaluate) -> None:
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
            require(not kept & (partial - whole), "a candidate that was measured in part is in the archive")


def check_all_failed(make: Make, evaluate: Evaluate) -> None:
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
    same = _trace(search, evaluate, 1) == _trace(restored, evaluate, 1)
    require(same, "restored after failures only, it differs")


def _check_genes(genes: NDArray[np.float64], space: Space | None) -> None:
    require(genes.dtype == np.float64, f"genes: {genes.dtype}, not float64")
    require(np.isfinite(genes).all(), "genes: not all are finite")
    if space is None:
        return
    require(genes.shape[1:] == (len(space.genes),), f"genes: shape {genes.shape}, not (n, {len(space.genes)})")
    low, high = (np.array([getattr(gene, end) for gene in space.genes]) for end in ("low", "high"))
    require(((genes >= low) & (genes <= high)).all(), "genes: a gene lies outside its limits")


def _bytes(batch: Any) -> bytes:
    """All arrays of a batch, or of evaluations."""
    arrays = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return b"|".join(array.tobytes() for array in arrays if isinstance(array, np.ndarray))


def _text(state: object) -> str:
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConformanceError(f"a state is not plain data: {error}") from None


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


def _trace(search: Search, evaluate: Evaluate, generations: int = GENERATIONS) -> list[str]:
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
    raise ConformanceError(f"{when} should raise SearchError")
