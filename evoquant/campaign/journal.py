"""The journal's line: one generation as plain data, in a form that repeats byte for byte."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.evaluate import KnownFailure, genome_at
from evoquant.errors import RunDirError
from evoquant.files import canonical_json
from evoquant.search.base import FAILED, OK, STATUS, CandidateBatch, EvaluationBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.evaluate import Counters
    from evoquant.genomes.base import Space

NUMBERS_KEPT = 100_000  # texts
LISTED = 2000  # above this many separable candidates a line holds the best and a digest of the arrays


def candidate_record(
    batch: CandidateBatch, evaluations: EvaluationBatch, space: Space | None, row: int
) -> dict[str, Any]:
    """One candidate with all that is known of it."""
    genome = genome_at(batch, space, row)
    record = {
        "id": batch.first_id + row,
        "genome": genome.to_dict(),
        "text": genome.text,
        "digest": evaluations.digest(row),
        "fitness": float(evaluations.fitness[row]),
        "retention": evaluations.retention[row].tolist(),
        "compression": evaluations.compression[row].tolist(),
        "effective_bits": evaluations.effective_bits[row].tolist(),
        "parts": int(evaluations.parts[row]),
        "cost": int(evaluations.cost[row]),
        "operator": batch.operators[row],
        "parents": [parent for parent in batch.parents[row].tolist() if parent >= 0],
    }
    if evaluations.costs:
        record["costs"] = {name: amounts[row].tolist() for name, amounts in evaluations.costs.items()}
    if batch.labels:
        record["label"] = batch.labels[row]
    if batch.on is not None:
        record["on"] = int(batch.on[row])
    return record


class Line(Mapping[str, Any]):
    """A journal line: its text, and what it says, parsed only when more is asked than the loop put in."""

    def __init__(self, text: str, known: Mapping[str, Any]) -> None:
        self.text = text
        self._known = known

    @functools.cached_property
    def _all(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    def __getitem__(self, key: str) -> Any:
        return self._known[key] if key in self._known else self._all[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def generation_line(
    generation: int,
    batch: CandidateBatch,
    evaluations: EvaluationBatch,
    *,
    best: dict[str, Any] | None,
    champion: dict[str, Any] | None,
    counters: Counters,
    measured: bool,
    hashed: GeneHash | None = None,
) -> Line:
    """The whole line.

    Args:
        generation: counted from 0.
        batch, evaluations: what was asked and told.
        best: record of this generation's best candidate, None where all failed.
        champion: record of the best so far.
        counters: totals up to and with this generation.
        measured: measured generations always list every candidate.
        hashed: the batch's arrays, where they are being hashed.
    """
    line: dict[str, Any] = {
        "generation": generation,
        "evaluations": {"asked": counters.asked, "distinct": counters.distinct},
        "summary": _summary(evaluations),
        "best": best,
        "champion": champion,
        "failures": {
            str(batch.first_id + row): reason
            for row, reason in sorted(evaluations.reasons.items())
            if evaluations.status[row] == FAILED
        },
    }
    if measured:
        line["passes"] = counters.passes
        line["measured"] = dict(evaluations.details or {})
    texts = {key: canonical_json(value) for key, value in line.items()}
    if is_listed(batch, measured=measured):
        population = _listed(batch, evaluations)
    else:
        if hashed is None:
            hashed = GeneHash(batch)
            hashed.scored(evaluations.fitness, batch.parents)
        population = {"first_id": str(batch.first_id), "size": str(len(batch)), "digest": f'"{hashed.value()}"'}
    return Line(_object(texts | {"population": _object(population)}), line)


def is_listed(batch: CandidateBatch, *, measured: bool) -> bool:
    """Whether the line lists every candidate; else it holds a digest of the arrays."""
    return measured or len(batch) <= LISTED


class GeneHash:
    """sha256 of a large batch's arrays, made in a thread: the genes' while the batch is scored, then the others'."""

    def __init__(self, batch: CandidateBatch) -> None:
        self._sha = hashlib.sha256()
        self._thread: threading.Thread | None = None
        self._add(batch.genes if batch.genes is not None else np.empty(0))

    def scored(self, fitness: NDArray[np.float64], parents: NDArray[np.int64]) -> None:
        """The rest of what is hashed."""
        self._add(fitness, parents)

    def value(self) -> str:
        """Hex digest of genes, fitness and parents."""
        if self._thread is not None:
            self._thread.join()
        return self._sha.hexdigest()

    def _add(self, *arrays: NDArray[Any]) -> None:
        before = self._thread

        def add() -> None:
            if before is not None:
                before.join()
            for array in arrays:
                self._sha.update(np.ascontiguousarray(array).data)

        self._thread = threading.Thread(target=add, daemon=True)
        self._thread.start()


def failures_of(line: dict[str, Any], first_id: int) -> dict[int, KnownFailure]:
    """Row → what is known of the candidates that a journalled generation records as failed.

    Not those that were measured, of which the outcomes only gave no number: they will again.

    Raises:
        RunDirError: the line is not one that was written.
    """
    known = {}
    try:
        measured = line.get("measured", {})
        for key, reason in line.get("failures", {}).items():
            row = int(key) - first_id
            if row < 0:
                raise IndexError(row)
            blocks = None
            if measured:
                one = measured["measurements"][measured["allocations"][row]]
                if "outcomes" in one:
                    continue
                blocks = len(one["blocks"])
            known[row] = KnownFailure(str(reason), blocks)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise RunDirError(
            f"journal.jsonl: `failures` of generation {line.get('generation')} does not fit its candidates: the "
            f"journal was changed. Start a new run."
        ) from None
    return known


class _NumberTexts(dict[float, str]):
    """Float → JSON text, kept: the same few thousand numbers come again in every generation."""

    def __missing__(self, value: float) -> str:
        text = _number(value)
        if not math.isnan(value):
            if len(self) >= NUMBERS_KEPT:
                self.clear()
            self[value] = text
        return text


def _number(value: float) -> str:
    """JSON of a number: whole ones without their point, NaN as null."""
    if math.isnan(value):
        return "null"
    return canonical_json(int(value) if value.is_integer() else value)


_TEXTS = _NumberTexts()


def _object(texts: Mapping[str, str]) -> str:
    """Canonical JSON of an object, from those of its values."""
    return "{" + ",".join(f"{canonical_json(key)}:{texts[key]}" for key in sorted(texts)) + "}"


def _array(texts: Iterable[str]) -> str:
    return "[" + ",".join(texts) + "]"


def _pair(one: int, other: int) -> str:
    """The parents that there are."""
    if other >= 0:
        return f"[{one},{other}]" if one >= 0 else f"[{other}]"
    return f"[{one}]" if one >= 0 else "[]"


def _numbers(values: Iterable[float]) -> str:
    return _array(map(_TEXTS.__getitem__, values))


def _summary(evaluations: EvaluationBatch) -> dict[str, Any]:
    fitness = evaluations.fitness[evaluations.status == OK]
    functions: dict[str, Callable[[NDArray[np.float64]], Any]]
    functions = {"min": np.min, "median": np.median, "mean": np.mean, "max": np.max}
    figures = {name: float(function(fitness)) for name, function in functions.items()} if len(fitness) else None
    counts = {name: int((evaluations.status == code).sum()) for code, name in enumerate(STATUS)}
    return {"fitness": figures, "status": counts}


def _listed(batch: CandidateBatch, evaluations: EvaluationBatch) -> dict[str, str]:
    """Key → JSON text of all candidates."""
    names = list(batch.operators)
    operators = {name: canonical_json(name) for name in set(names)}
    population = {
        "first_id": str(batch.first_id),
        "size": str(len(batch)),
        "fitness": _numbers(evaluations.fitness.tolist()),
        "parents": _array(map(_pair, *batch.parents.T.tolist())),
        "operators": _array(map(operators.__getitem__, names)),
    }
    if evaluations.costs:
        population["costs"] = canonical_json({name: found.tolist() for name, found in evaluations.costs.items()})
    if batch.asked:
        population["asked"] = canonical_json(list(batch.asked))
    if batch.genes is not None:
        population["genes"] = _table(batch.genes)
    else:
        population["genomes"] = canonical_json([genome.to_dict() for genome in batch.genomes])
        population["labels"] = canonical_json(list(batch.labels))
        population["retention"] = _numbers(_own(batch, evaluations.retention))
        population["compression"] = _numbers(_own(batch, evaluations.compression))
    return population


def _table(genes: NDArray[np.float64]) -> str:
    """JSON of `(n, genes)` rows: a look-up for each number, and as many strings joined as there are."""
    n, width = genes.shape
    if width == 0 or n == 0:
        return _array(["[]"] * n)
    texts = list(map(_TEXTS.__getitem__, genes.ravel().tolist()))
    rows = zip(*[iter(texts)] * width, strict=True)
    return "[[" + "],[".join(map(",".join, rows)) + "]]"


def _own(batch: CandidateBatch, table: NDArray[np.float64]) -> list[float]:
    """Each candidate's figure on the one model it is judged on, else on the first."""
    columns: Sequence[int] = [0] * len(batch) if batch.on is None else batch.on.tolist()
    return [float(table[row, column]) for row, column in enumerate(columns)]
