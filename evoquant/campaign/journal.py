"""The journal's line: one generation as plain data, in a form that repeats byte for byte."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from deap import tools

from evoquant.campaign.evaluate import KnownFailure, genome_at
from evoquant.search.base import FAILED, OK, STATUS, CandidateBatch, EvaluationBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.campaign.evaluate import Counters
    from evoquant.genomes.base import Space

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
    if batch.labels:
        record["label"] = batch.labels[row]
    if batch.on is not None:
        record["on"] = int(batch.on[row])
    return record


def generation_record(
    generation: int,
    batch: CandidateBatch,
    evaluations: EvaluationBatch,
    space: Space | None,
    *,
    best: dict[str, Any] | None,
    champion: dict[str, Any] | None,
    counters: Counters,
    measured: bool,
) -> dict[str, Any]:
    """The whole line.

    Args:
        generation: counted from 0.
        batch, evaluations, space: what was asked and told.
        best: record of this generation's best candidate, None where all failed.
        champion: record of the best so far.
        counters: totals up to and with this generation.
        measured: measured generations always list every candidate.
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
        "population": _population(batch, evaluations, listed=measured or len(batch) <= LISTED),
    }
    if measured:
        line["passes"] = counters.passes
        line["measured"] = dict(evaluations.details or {})
    return line


def failures_of(line: dict[str, Any], first_id: int) -> dict[int, KnownFailure]:
    """Row → what is known of the candidates that a journalled generation records as failed."""
    measured = line.get("measured", {})
    known = {}
    for key, reason in line.get("failures", {}).items():
        row = int(key) - first_id
        blocks = None
        if measured:
            blocks = len(measured["measurements"][measured["allocations"][row]]["blocks"])
        known[row] = KnownFailure(str(reason), blocks)
    return known


def plain_numbers(values: Iterable[float]) -> list[float | int | None]:
    """Floats for JSON: whole numbers without their point, NaN as null."""
    return [None if math.isnan(v) else int(v) if float(v).is_integer() else float(v) for v in values]


def _summary(evaluations: EvaluationBatch) -> dict[str, Any]:
    fitness = evaluations.fitness[evaluations.status == OK]
    statistics = tools.Statistics()
    for name, function in (("min", np.min), ("median", np.median), ("mean", np.mean), ("max", np.max)):
        statistics.register(name, function)
    figures = {name: float(value) for name, value in statistics.compile(fitness).items()} if len(fitness) else None
    counts = {name: int((evaluations.status == code).sum()) for code, name in enumerate(STATUS)}
    return {"fitness": figures, "status": counts}


def _population(batch: CandidateBatch, evaluations: EvaluationBatch, *, listed: bool) -> dict[str, Any]:
    if not listed:
        genes = batch.genes if batch.genes is not None else np.empty(0)
        arrays = (genes, evaluations.fitness, batch.parents)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
        return {"first_id": batch.first_id, "size": len(batch), "digest": digest}
    population: dict[str, Any] = {
        "first_id": batch.first_id,
        "size": len(batch),
        "fitness": plain_numbers(evaluations.fitness.tolist()),
        "parents": [[p for p in pair if p >= 0] for pair in batch.parents.tolist()],
        "operators": list(batch.operators),
    }
    if batch.asked:
        population["asked"] = list(batch.asked)
    if batch.genes is not None:
        population["genes"] = [plain_numbers(row) for row in batch.genes.tolist()]
    else:
        population["genomes"] = [genome.to_dict() for genome in batch.genomes]
        population["labels"] = list(batch.labels)
        population["retention"] = _own(batch, evaluations.retention)
        population["compression"] = _own(batch, evaluations.compression)
    return population


def _own(batch: CandidateBatch, table: np.ndarray) -> list[float | int | None]:
    """Each candidate's figure on the one model it is judged on, else on the first."""
    columns: Sequence[int] = [0] * len(batch) if batch.on is None else batch.on.tolist()
    return plain_numbers(table[row, column] for row, column in enumerate(columns))
