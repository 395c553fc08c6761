"""Measured retention: candidates raced block by block on the calibration split, within a budget of passes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.evaluate import Counters, as_evaluations
from evoquant.campaign.measurer import allocation_digest, reference_outcomes
from evoquant.campaign.racing import OUT_OF_PASSES, SAFE, Racing, Size, fitness_at, stages, verdict
from evoquant.campaign.runner import Result, Runner
from evoquant.errors import InputError
from evoquant.models.base import REFERENCE, SCORE, Failed, Request
from evoquant.scoring.chance import Limits, confidence_limits
from evoquant.scoring.objective import Scores, amounts_of, score
from evoquant.scoring.separable import all_cost_sums
from evoquant.scoring.statistics import UNKNOWN, Retention, paired_retention, require_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.budget import Budget
    from evoquant.campaign.evaluate import KnownFailure
    from evoquant.campaign.measurer import Measurer, Widths
    from evoquant.execution.base import Executor
    from evoquant.genomes.base import Genome, Space
    from evoquant.models.base import Outcome, Split
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem
    from evoquant.search.base import CandidateBatch, EvaluationBatch

ONE_SIGMA = 0.15865525393145707  # the error of a one-sided limit one standard error away


class MeasuredEstimator:
    """Retention of a quantized network on its calibration split, paired with the FP32 network's outcomes.

    What does not fit into the budget is not measured: such a candidate is censored, and the generation that meets the
    limit is the last. No candidate is begun unless it could be measured in full if it turned out best.

    `complete` holds what was measured in full: digest → allocation and retention.
    """

    def __init__(
        self,
        space: Space,
        problem: Problem,
        objective: Objective,
        measurer: Measurer,
        budget: Budget,
        racing: Racing | None = None,
    ) -> None:
        self.counters = Counters()
        self.measurer = measurer
        self._space = space
        self._problem = problem
        self._objective = objective
        self._budget = budget
        self._racing = racing
        self._limit_s: float | None = None
        self._stages = stages(budget.blocks, racing=racing is not None)
        self._allocations: set[str] = set()
        self.complete: dict[str, tuple[NDArray[np.int8], Retention]] = {}
        self._leader: tuple[float, float] = (-math.inf, -math.inf)  # best fitness measured in full, its lower limit
        _check_budget(budget)
        self.reference = reference_outcomes(measurer, "calibration")
        require_reference(measurer.task.metric, float(self.reference[:, SCORE].mean(dtype=np.float64)))
        self._charge(allocation_digest((REFERENCE,) * len(problem.layers)), len(budget.blocks))

    def use(self, executor: Executor) -> None:
        """Measure on this executor from now on."""
        self.measurer.use(executor, self._limit_s)

    def limit(self, limit_s: float | None) -> None:
        """Cut off measurements that take longer, from the next `use` on."""
        self._limit_s = limit_s

    def evaluate(self, batch: CandidateBatch, known_failures: Mapping[int, KnownFailure]) -> EvaluationBatch:
        """Measure a batch; equal allocations are measured once."""
        allocations, runners = self._entrants(batch)
        for row, known in known_failures.items():
            runners[row].known = known
        distinct = list({runner.digest: runner for runner in runners}.values())
        self.counters.asked += len(batch)
        self._race_all(distinct)
        for runner, allocation in zip(runners, allocations, strict=True):
            self._note_complete(runner, allocation)
        self.counters.store_hits = self.measurer.store_hits
        self.counters.spent |= not self._budget.fits(self._budget.total)
        results = {runner.digest: runner.result(self._standard_error(runner)) for runner in distinct}
        return self._told(batch, allocations, [runner.digest for runner in runners], results)

    def _entrants(self, batch: CandidateBatch) -> tuple[NDArray[np.int8], list[Runner]]:
        """`(n, units)` allocations of a batch, and each row's runner; equal allocations share one."""
        assert batch.genes is not None
        allocations = self._space.allocate(batch.genes, self._problem)
        found = self._costs(allocations)
        sizes, seen = self._scores(np.zeros(len(batch)), found), amounts_of((self._problem,), found)
        runners: dict[str, Runner] = {}
        rows = []
        for row, allocation in enumerate(allocations):
            widths = self._problem.unfold(allocation)
            digest = allocation_digest(widths)
            costs = {name: amounts[row, 0].item() for name, amounts in seen.items()}
            size = Size(float(sizes.compression[row, 0]), float(sizes.effective_bits[row, 0]), costs)
            rows.append(runners.setdefault(digest, Runner(digest, widths, size)))
        return allocations, rows

    def _told(
        self, batch: CandidateBatch, allocations: NDArray[np.int8], digests: list[str], results: Mapping[str, Result]
    ) -> EvaluationBatch:
        """The evaluations of a batch from the results of its allocations."""
        rows = [results[digest] for digest in digests]
        retention = np.array([result.retention.value for result in rows], dtype=np.float64)
        return as_evaluations(
            batch,
            self._scores(retention, self._costs(allocations)),
            self._space,
            {row: str(result.reason) for row, result in enumerate(rows) if result.status == "failed"},
            {
                "allocations": digests,
                "measurements": {digest: results[digest].record for digest in dict.fromkeys(digests)},
            },
            censored={row: str(result.reason) for row, result in enumerate(rows) if result.status == "censored"},
            standard_error=np.array([result.standard_error for result in rows]),
            divergence=np.array([result.divergence for result in rows]),
        )

    def _costs(self, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
        return all_cost_sums(self._problem, allocations)[:, None]

    def _note_complete(self, runner: Runner, allocation: NDArray[np.int8]) -> None:
        if runner.status == "ok" and runner.blocks == self._stages[-1]:
            self.complete.setdefault(runner.digest, (allocation, runner.retention))

    def _scores(self, retention: NDArray[np.float64], costs: NDArray[np.int64]) -> Scores:
        return score(self._objective, (self._problem,), retention[:, None], costs)

    def _race_all(self, runners: list[Runner]) -> None:
        """Race; who did not fit beside the others gets what these have left, while that is enough for one."""
        waiting = runners
        while True:
            self._race(waiting)
            left = [runner for runner in waiting if runner.reason == OUT_OF_PASSES]
            if not left or len(left) == len(waiting):
                break
            for runner in left:
                runner.status = runner.reason = None
            waiting = left
        self.counters.spent |= bool(left)

    def _race(self, runners: list[Runner]) -> None:
        for end in self._stages:
            runners = self._admitted(runners, end)
            self._measure(runners, end)
            runners = [runner for runner in runners if runner.status is None]
            if end == self._stages[-1]:
                for runner in runners:
                    self._finish(runner)
                    if runner.status == "ok":
                        self._lead(runner)
            else:
                self._look(runners)
                runners = [runner for runner in runners if runner.status is None]

    def _admitted(self, runners: list[Runner], end: int) -> list[Runner]:
        """Those that go on to `end` blocks, the most promising first; the others are out of passes."""
        admitted: list[Runner] = []
        planned = reserve = 0
        for runner in sorted(runners, key=lambda runner: -runner.estimate):
            cost = self._budget.cost(runner.digest, 0, end)
            rest = max(reserve, self._budget.cost(runner.digest, end, len(self._budget.blocks)))
            if self._budget.fits(planned + cost + rest):
                admitted.append(runner)
                planned, reserve = planned + cost, rest
            else:
                runner.stop("censored", OUT_OF_PASSES)
        return admitted

    def _measure(self, runners: list[Runner], end: int) -> None:
        """Measure each on its blocks up to `end`."""
        asked: list[Runner] = []
        requests: list[Request] = []
        for runner in runners:
            first, runner.blocks = runner.blocks, max(runner.blocks, end)
            self._charge(runner.digest, end)
            if runner.known is not None and end >= (runner.known.blocks or end):
                runner.stop("failed", runner.known.reason)
                continue
            for block in range(first, end):
                asked.append(runner)
                requests.append(Request(runner.widths, "calibration", block))
        found: dict[str, list[Outcome | Failed]] = {runner.digest: [] for runner in runners}
        for runner, result in zip(asked, self.measurer.outcomes(requests), strict=True):
            found[runner.digest].append(result)
        for runner in runners:
            self._take(runner, found[runner.digest])

    def _take(self, runner: Runner, results: Sequence[Outcome | Failed]) -> None:
        """Give a runner the outcomes of its next blocks."""
        for result in results:
            if isinstance(result, Failed):
                runner.stop("failed", runner.reason or result.reason)
            else:
                runner.outcomes.append(result)
        if runner.status == "failed":  # of a part of the blocks nothing is claimed
            runner.outcomes, runner.retention, runner.estimate = [], UNKNOWN, -math.inf
            return
        quantized, fp32 = self._pair(runner)
        runner.retention = paired_retention(quantized, fp32, self.measurer.task.metric)
        if not math.isnan(runner.retention.value):
            runner.estimate = fitness_at(self._objective, runner.retention.value, runner.size)

    def _look(self, runners: list[Runner]) -> None:
        """Stop those of which enough is known.

        While nothing has been measured in full, the most promising goes on whatever the limits say, so that there is
        always a champion.
        """
        spared = max(runners, key=lambda runner: runner.estimate, default=None)
        for runner in runners:
            if runner is spared and self._leader[0] == -math.inf:
                continue
            self._look_at(runner, self._leader[1])
            if runner.status == "ok":
                self._lead(runner)

    def _look_at(self, runner: Runner, best: float) -> None:
        """Stop a runner of which enough is known, beside one whose fitness is at least `best`."""
        assert self._racing is not None
        limits = self._limits(runner)
        found = verdict(self._racing, self._objective, limits, runner.size, best)
        if found == SAFE:
            self._finish(runner)
        elif found is not None:
            runner.stop("censored", found)

    def _finish(self, runner: Runner) -> None:
        if math.isnan(runner.retention.value):
            runner.stop("failed", "not_finite")
        else:
            runner.stop("ok")

    def _lead(self, runner: Runner) -> None:
        """Let a runner that is ok lead, where it is the best."""
        if self._racing is not None and runner.estimate > self._leader[0]:
            low = fitness_at(self._objective, self._limits(runner).low, runner.size)
            self._leader = (runner.estimate, low)

    def _limits(self, runner: Runner) -> Limits:
        """With the error of all looks shared among them."""
        assert self._racing is not None
        error = (1.0 - self._racing.confidence) / max(len(self._stages) - 1, 1)
        return confidence_limits(*self._pair(runner), self.measurer.task.metric, error)

    def _pair(self, runner: Runner) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        samples = runner.samples
        return samples[:, SCORE], self.reference[: len(samples), SCORE]

    def _standard_error(self, runner: Runner) -> float:
        """Of retention; not 0 where the few samples of a runner happen to agree."""
        if not runner.outcomes:
            return math.nan
        limits = confidence_limits(*self._pair(runner), self.measurer.task.metric, ONE_SIGMA)
        return max(runner.retention.standard_error, (limits.high - limits.low) / 2.0)

    def uncounted(self, widths: Widths) -> float:
        """Passes over what the search left out of an allocation, because a part of the samples was enough."""
        blocks = len(self._budget.blocks)
        return self._budget.cost(allocation_digest(widths), 0, blocks) / self._budget.total

    def _charge(self, digest: str, end: int) -> None:
        self._budget.charge(digest, end)
        self.counters.passes = self._budget.passes
        if digest not in self._allocations:
            self._allocations.add(digest)
            self.counters.distinct += 1

    def state(self) -> dict[str, Any]:
        """Counters, what was asked for, and the best so far."""
        return {
            "asked": self.counters.asked,
            "distinct": self.counters.distinct,
            "spent": self.counters.spent,
            "allocations": sorted(self._allocations),
            "budget": self._budget.state(),
            "leader": None if self._leader[0] == -math.inf else list(self._leader),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._budget.restore(state["budget"])
        self.counters = Counters(
            int(state["asked"]), int(state["distinct"]), self._budget.passes, spent=bool(state["spent"])
        )
        self._allocations = set(state["allocations"])
        low_to_high = state["leader"] or (-math.inf, -math.inf)
        self._leader = (float(low_to_high[0]), float(low_to_high[1]))


def _check_budget(budget: Budget) -> None:
    if not budget.fits(2 * budget.total):
        needed = math.ceil((budget.signals + 2.0) * 100.0) / 100.0
        raise InputError(
            f"stop.passes: {budget.limit:g} is less than the {needed:g} that the signals ({budget.signals:g}), the "
            f"FP32 network (1) and one candidate (1) take; raise it, or name cheaper signals under `signals`."
        )


def measure_genomes(
    genomes: Sequence[Genome], problem: Problem, measurer: Measurer, split: Split, objective: Objective
) -> tuple[Scores, list[Retention], list[Outcome | Failed]]:
    """Scores, retentions and outcomes of a few genomes on all of a split: finalists, champion, baselines.

    A failed measurement has retention NaN, and so has its fitness.
    """
    allocations = np.stack([genome.allocate(problem) for genome in genomes])
    return measure_allocations(allocations, problem, measurer, split, objective)


def measure_allocations(
    allocations: NDArray[np.int8], problem: Problem, measurer: Measurer, split: Split, objective: Objective
) -> tuple[Scores, list[Retention], list[Outcome | Failed]]:
    """The same of `(n, units)` allocations."""
    outcomes = measurer.split([problem.unfold(row) for row in allocations], split)
    reference = reference_outcomes(measurer, split)
    retentions = [
        UNKNOWN if isinstance(o, Failed) else paired_retention(o[:, SCORE], reference[:, SCORE], measurer.task.metric)
        for o in outcomes
    ]
    values = np.array([[r.value] for r in retentions])
    scores = score(objective, (problem,), values, all_cost_sums(problem, allocations)[:, None])
    return scores, retentions, outcomes
