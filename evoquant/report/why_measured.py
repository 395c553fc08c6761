"""The estimate beside what was measured: every distinct allocation of a journal with measurements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build import make_space
from evoquant.errors import RunDirError
from evoquant.report.why_subject import digest_of_widths
from evoquant.scoring.agreement import spearman
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import loss_sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Space
    from evoquant.report.data import RunData
    from evoquant.report.why_subject import Subject
    from evoquant.scoring.problem import Problem

SHOWN = 3  # allocations in each direction
CLEAR = 2.0  # standard errors that make a difference between two measurements a clear one
MOST_PAIRS = 3000  # allocations of which all pairs are compared


def measurements(run: RunData) -> dict[str, dict[str, Any]]:
    """Digest → `retention`, `standard_error`, `full`, `id` and `genes`, of what a journal has measured.

    Of an allocation that was measured more than once, such as on more samples later, the one on most samples.
    `full` says that it was not cut short.

    Raises:
        RunDirError: the journal does not hold measurements as they are written.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in run.journal:
        if "measured" not in record:
            continue
        try:
            for one in _of_line(record):
                known = found.get(one["digest"])
                if known is None or one["samples"] > known["samples"]:
                    found[one["digest"]] = {**one, "id": known["id"] if known else one["id"]}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise RunDirError(
                f"{run.path}: journal.jsonl: `measured` of generation {record.get('generation')} is not as it was "
                f"written; restore the journal, or start a new run."
            ) from None
    return found


def _of_line(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    measured, population = record["measured"], record["population"]
    genes = population.get("genes")
    asked = population.get("asked")
    seen = set()
    for row, digest in enumerate(measured["allocations"]):
        one = measured["measurements"][digest]
        if digest in seen or one.get("retention") is None:
            continue
        seen.add(digest)
        retention, error = float(one["retention"]), one.get("standard_error")
        if not math.isfinite(retention):
            raise ValueError(digest)
        yield {
            "digest": str(digest),
            "retention": retention,
            "standard_error": None if error is None else float(error),
            "samples": int(one["samples"]),
            "full": one["status"] == "ok",
            "id": int(asked[row]) if asked else int(population["first_id"]) + row,
            "genes": None if genes is None else genes[row],
        }


def agreement_data(run: RunData, subject: Subject) -> dict[str, Any]:
    """How the separable estimate orders and places the measured allocations, and where it is off near the floor.

    Raises:
        RunDirError: the journal's genes do not give the allocations that it names.
    """
    model, floor = subject.model, subject.floor
    space = make_space(run.config, (model.problem,))
    rows = [one for one in subject.measured.values() if one["genes"] is not None]
    allocations = _allocations(run, space, model.problem, rows)
    estimate = np.exp(-loss_sums(model.table, allocations) / LOSS_UNITS)
    retention = np.array([one["retention"] for one in rows], dtype=np.float64)
    errors = np.array([one["standard_error"] or 0.0 for one in rows], dtype=np.float64)
    gap = estimate - retention
    data: dict[str, Any] = {
        "estimate": model.estimate,
        "allocations": len(rows),
        "cut_short": sum(not one["full"] for one in rows),
        "standard_error": float(np.median(errors)),
        "spearman": spearman(estimate, retention),
        "mean": float(gap.mean()),
        "mean_absolute": float(np.abs(gap).mean()),
        **_misordered(estimate, retention, errors),
    }
    data["champion"] = _champion(subject)
    worst = int(np.argmax(np.abs(gap)))
    data["worst"] = _row(rows[worst], model.problem, allocations[worst], estimate[worst])
    if floor is not None:
        lowest = 2.0 * floor - 1.0  # as far below the floor as nothing lost is above it
        near = retention >= lowest
        data["near"] = {
            "floor": floor,
            "from": lowest,
            "allocations": int(near.sum()),
            "spearman": spearman(estimate[near], retention[near]),
            **_misordered(estimate[near], retention[near], errors[near]),
        }
        over = (estimate >= floor) & (retention < floor)
        under = (estimate < floor) & (retention >= floor)
        for key, wrong in (("promised", over), ("denied", under)):
            order = [i for i in np.argsort(-np.abs(gap), kind="stable").tolist() if wrong[i]]
            data["near"][key] = {
                "count": len(order),
                "rows": [_row(rows[i], model.problem, allocations[i], estimate[i]) for i in order[:SHOWN]],
            }
    known = run.champion.provenance.get("additivity") if run.champion is not None else None
    return data if known is None else {**data, "additivity": known}


def _champion(subject: Subject) -> dict[str, Any]:
    model, own = subject.model, subject.allocation
    summed = float(loss_sums(model.table, own[None])[0]) / LOSS_UNITS
    found = subject.measured.get(digest_of_widths(model.problem, own))
    data: dict[str, Any] = {"estimate": math.exp(-summed)}
    if found is not None:
        data |= {key: found[key] for key in ("retention", "standard_error", "full")}
    return data


def _allocations(run: RunData, space: Space, problem: Problem, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.int8]:
    """`(n, units)` of the genes that the journal lists, each checked against its digest."""
    fault = RunDirError(
        f"{run.path}: journal.jsonl lists genes that do not give the allocations beside them: it was changed, or "
        f"profile.json was. Restore them, or start a new run."
    )
    low, high = (np.array([getattr(gene, name) for gene in space.genes]) for name in ("low", "high"))
    try:
        genes = np.array([one["genes"] for one in rows], dtype=np.float64)
    except ValueError:
        raise fault from None
    coded = np.array([gene.kind not in ("fraction", "log") for gene in space.genes])
    if genes.ndim != 2 or genes.shape[1] != len(low):
        raise fault
    if not ((genes >= low) & (genes <= high) | ~coded).all():
        raise fault
    allocations = space.allocate(genes, problem)
    if any(digest_of_widths(problem, row) != one["digest"] for row, one in zip(allocations, rows, strict=True)):
        raise fault
    return allocations


def _misordered(
    estimate: NDArray[np.float64], retention: NDArray[np.float64], errors: NDArray[np.float64]
) -> dict[str, Any]:
    """Share of the pairs that differ by more than two standard errors and stand the wrong way round."""
    some = slice(0, MOST_PAIRS)
    first, second = np.triu_indices(len(estimate[some]), 1)
    apart = retention[first] - retention[second]
    clear = np.abs(apart) > CLEAR * np.hypot(errors[first], errors[second])
    wrong = (1.0 - np.sign(apart) * np.sign(estimate[first] - estimate[second])) / 2.0
    data: dict[str, Any] = {"clear_pairs": int(clear.sum())}
    if clear.any():
        data["clear_misordered"] = float(wrong[clear].mean())
    return data


def _row(one: Mapping[str, Any], problem: Problem, allocation: NDArray[np.int8], estimate: float) -> dict[str, Any]:
    counts = np.bincount(allocation[problem.unit_of_layer], minlength=len(problem.menu))
    return {
        "id": one["id"],
        "widths": {name: int(n) for name, n in zip(problem.menu.names, counts, strict=True) if n},
        "estimate": float(estimate),
        "retention": one["retention"],
        "standard_error": one["standard_error"],
        "full": one["full"],
    }
