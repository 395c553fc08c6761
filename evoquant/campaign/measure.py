"""Measured retention: real forward passes, each (allocation, block of samples) measured once, ever."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.evaluate import Counters, as_evaluations
from evoquant.errors import CampaignError
from evoquant.execution.base import Failure
from evoquant.files import canonical_json
from evoquant.models.base import REFERENCE, SCORE, Failed, Request
from evoquant.quantization.numerics import QUANTIZER_VERSION
from evoquant.scoring.objective import Aggregate, Objective, Scores, score
from evoquant.scoring.separable import cost_sums
from evoquant.scoring.statistics import UNKNOWN, Retention, paired_retention
from evoquant.store import outcome_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.execution.base import Executor
    from evoquant.genomes.base import Genome, Space
    from evoquant.models.base import MeasuredTask, Outcome, Split
    from evoquant.scoring.problem import Problem
    from evoquant.search.base import CandidateBatch, EvaluationBatch
    from evoquant.store import Store

Widths = tuple[str, ...]
REQUESTS_PER_BATCH = 4


def allocation_digest(widths: Widths) -> str:
    """First 32 hex digits of the sha256 of the precision names, layer by layer."""
    return hashlib.sha256(canonical_json(list(widths)).encode()).hexdigest()[:32]


class Measurer:
    """Asks the store first, workers second; the driver alone writes the store."""

    def __init__(self, task: MeasuredTask, store: Store, *, limited: bool = False) -> None:
        self.task = task
        self.store_hits = 0
        self.messages: list[str] = []
        self._store = store
        self._limited = limited
        self._executor: Executor | None = None

    def use(self, executor: Executor, limit_s: float | None = None) -> None:
        """Place the network and the data on the executor's workers."""
        from evoquant.models.measurer import start_measurer

        executor.start(start_measurer, self.task.payload(), limit_s)
        self._executor = executor
        self._limited = limit_s is not None

    def outcomes(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """Per-sample outcomes of each request, in order; failures are never stored."""
        keys = [self._key(request) for request in requests]
        found: dict[str, Outcome | Failed] = dict(self._store.get(sorted(set(keys))))
        self.store_hits += len(found)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        if missing:
            measured = dict(zip(missing, self._measure(list(missing.values())), strict=True))
            self._store.put({key: value for key, value in measured.items() if not isinstance(value, Failed)})
            found.update(measured)
        return [found[key] for key in keys]

    def split(self, allocations: Sequence[Widths], split: Split) -> list[Outcome | Failed]:
        """Outcomes of each allocation over all blocks of a split, `(samples,)`; the first failure otherwise."""
        blocks = self.task.blocks(split)
        requests = [Request(widths, split, block.index) for widths in allocations for block in blocks]
        outcomes = self.outcomes(requests)
        return [_join(outcomes[i : i + len(blocks)]) for i in range(0, len(outcomes), len(blocks))]

    def _key(self, request: Request) -> str:
        block = self.task.blocks(request.split)[request.block]
        return outcome_key(
            request.widths, self.task.model_digest, block.digest, QUANTIZER_VERSION, self.task.numeric_environment
        )

    def _measure(self, requests: list[Request]) -> list[Outcome | Failed]:
        assert self._executor is not None
        size = 1 if self._limited else REQUESTS_PER_BATCH
        batches = [requests[i : i + size] for i in range(0, len(requests), size)]
        measured: list[Outcome | Failed] = []
        for batch, result in zip(batches, self._executor.map(batches), strict=True):
            if isinstance(result, Failure):
                self.messages.append(result.message)
                measured += [Failed(result.reason, result.message)] * len(batch)
            else:
                measured += result
        return measured


class MeasuredEstimator:
    """Retention of a quantized network on its calibration split, paired with the FP32 network's outcomes."""

    def __init__(
        self, space: Space, problem: Problem, objective: Objective, aggregate: Aggregate, measurer: Measurer
    ) -> None:
        self.counters = Counters()
        self.measurer = measurer
        self._space = space
        self._problem = problem
        self._objective = objective
        self._aggregate = aggregate
        self._limit_s: float | None = None
        self._asked: set[str] = set()
        self._allocations: set[str] = set()
        blocks = measurer.task.blocks("calibration")
        self._samples = sum(block.samples for block in blocks)
        self.reference = reference_outcomes(measurer, "calibration")
        self._charge((REFERENCE,) * len(problem.layers))

    def use(self, executor: Executor) -> None:
        """Measure on this executor from now on."""
        self.measurer.use(executor, self._limit_s)

    def limit(self, limit_s: float | None) -> None:
        """Cut off measurements that take longer, from the next `use` on."""
        self._limit_s = limit_s

    def evaluate(self, batch: CandidateBatch, known_failures: Mapping[int, str]) -> EvaluationBatch:
        """Measure a batch; equal allocations are measured once."""
        assert batch.genes is not None
        allocations = self._space.allocate(batch.genes, self._problem)
        widths = [self._problem.unfold(row) for row in allocations]
        digests = [allocation_digest(w) for w in widths]
        self.counters.asked += len(batch)
        for w in dict.fromkeys(widths):
            self._charge(w)
        wanted = {d: w for row, (d, w) in enumerate(zip(digests, widths, strict=True)) if row not in known_failures}
        results = dict(zip(wanted, self.measurer.split(list(wanted.values()), "calibration"), strict=True))
        self.counters.store_hits = self.measurer.store_hits
        retentions = {d: self._retention(result) for d, result in results.items()}
        reasons = dict(known_failures)
        for row, d in enumerate(digests):
            result = results.get(d)
            if row not in reasons and isinstance(result, Failed):
                reasons[row] = result.reason
        values = [float("nan") if row in reasons else retentions[d].value for row, d in enumerate(digests)]
        costs = cost_sums(self._problem, allocations)[:, None]
        scores = score(
            self._objective, (self._problem,), np.array(values, dtype=np.float64)[:, None], costs, self._aggregate
        )
        details = self._details(digests, results, retentions)
        return as_evaluations(batch, scores, self._space, reasons, details)

    def _retention(self, result: Outcome | Failed) -> Retention:
        if isinstance(result, Failed):
            return UNKNOWN
        return paired_retention(result[:, SCORE], self.reference[:, SCORE], self.measurer.task.metric)

    def _details(
        self,
        digests: list[str],
        results: Mapping[str, Outcome | Failed],
        retentions: Mapping[str, Retention],
    ) -> dict[str, Any]:
        blocks = [block.index for block in self.measurer.task.blocks("calibration")]
        measurements: dict[str, Any] = {}
        for digest, result in results.items():
            if isinstance(result, Failed):
                measurements[digest] = {"status": "failed", "reason": result.reason, "blocks": blocks}
                continue
            retention = retentions[digest]
            measurements[digest] = {
                "status": "ok",
                "blocks": blocks,
                "retention": retention.value,
                "standard_error": retention.standard_error,
                "samples": retention.samples,
                "outcomes": hashlib.sha256(result.tobytes()).hexdigest()[:32],
            }
        return {"allocations": digests, "measurements": measurements}

    def _charge(self, widths: Widths) -> None:
        """Count each distinct (allocation, block) once, whether or not the store has it."""
        digest = allocation_digest(widths)
        if digest not in self._allocations:
            self._allocations.add(digest)
            self.counters.distinct += 1
        for block in self.measurer.task.blocks("calibration"):
            key = f"{digest}/{block.index}"
            if key not in self._asked:
                self._asked.add(key)
                self.counters.passes += block.samples / self._samples

    def state(self) -> dict[str, Any]:
        """Counters, and what was asked for."""
        return {
            "asked": self.counters.asked,
            "distinct": self.counters.distinct,
            "passes": self.counters.passes,
            "allocations": sorted(self._allocations),
            "blocks": sorted(self._asked),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over counters."""
        self.counters = Counters(int(state["asked"]), int(state["distinct"]), float(state["passes"]))
        self._allocations = set(state["allocations"])
        self._asked = set(state["blocks"])


def reference_outcomes(measurer: Measurer, split: Split) -> Outcome:
    """The FP32 network's outcomes on a split.

    Raises:
        CampaignError: it cannot be measured.
    """
    (result,) = measurer.split([(REFERENCE,) * len(measurer.task.layers)], split)
    if isinstance(result, Failed):
        raise CampaignError(f"the FP32 network of task {measurer.task.name!r} cannot be measured: {result.message}")
    return result


def measure_genomes(
    genomes: Sequence[Genome],
    problem: Problem,
    measurer: Measurer,
    split: Split,
    objective: Objective,
) -> tuple[Scores, list[Retention], list[Outcome | Failed]]:
    """Scores, retentions and outcomes of a few genomes on a split: finalists, champion, baselines.

    A failed measurement has retention NaN, and so has its fitness.
    """
    allocations = np.stack([genome.allocate(problem) for genome in genomes])
    outcomes = measurer.split([problem.unfold(row) for row in allocations], split)
    reference = reference_outcomes(measurer, split)
    retentions = [
        UNKNOWN if isinstance(o, Failed) else paired_retention(o[:, SCORE], reference[:, SCORE], measurer.task.metric)
        for o in outcomes
    ]
    values = np.array([[r.value] for r in retentions])
    scores = score(objective, (problem,), values, cost_sums(problem, allocations)[:, None])
    return scores, retentions, outcomes


def _join(outcomes: Sequence[Outcome | Failed]) -> Outcome | Failed:
    parts = []
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            return outcome
        parts.append(outcome)
    return np.concatenate(parts)
