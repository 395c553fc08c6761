"""Measured retention without generations: every candidate runs a race of its own, and arrives when that is over.

What becomes of a candidate is decided by what was known when it was asked: the best by then, and a part of the budget
that pays for all of its samples, which it keeps until it arrives. So the order of arrival tells all there is to tell:
neither a look nor the budget depends on how far the others were at that moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.measure import MeasuredEstimator
from evoquant.campaign.racing import OUT_OF_PASSES
from evoquant.execution.base import NOT_YET
from evoquant.models.base import Failed, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.evaluate import KnownFailure
    from evoquant.campaign.runner import Result, Runner
    from evoquant.execution.base import Executor
    from evoquant.models.base import Outcome
    from evoquant.search.base import CandidateBatch, EvaluationBatch


@dataclass(eq=False)
class Flight:
    """A candidate that was asked and has not been told.

    Attributes:
        number: in the order of asking.
        candidate: alone in its batch.
        allocation: `(1, units)`.
        runner: its race.
        best: lower limit of the fitness of the best candidate when it was asked.
        spared: goes on whatever the limits say, so that there is a champion.
        begun: the budget pays for it.
        stage: of the race, counted from 0.
        asked: blocks of this stage, once they have been asked for.
        waiting: batches of requests that no worker has yet.
        outcomes: block → what came back.
    """

    number: int
    candidate: CandidateBatch
    allocation: NDArray[np.int8]
    runner: Runner
    best: float
    spared: bool
    begun: bool = False
    stage: int = 0
    asked: range | None = None
    waiting: list[list[Request]] = field(default_factory=list)
    outcomes: dict[int, Outcome | Failed] = field(default_factory=dict)


class SteadyEstimator(MeasuredEstimator):
    """Measures candidates one beside the other; an allocation that has arrived is not raced again."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._results: dict[str, Result] = {}
        self._flights: Mapping[int, Flight] = {}
        self._stream: Iterator[tuple[int, Any]] | None = None
        self._given: dict[int, tuple[Flight, list[Request]]] = {}  # by number of the stream's batch
        self._batches = 0

    def use(self, executor: Executor) -> None:
        """Measure on this executor from now on; what the last one was at is measured again."""
        super().use(executor)
        for flight, requests in reversed(self._given.values()):
            flight.waiting.insert(0, requests)
        self._stream, self._given, self._batches = None, {}, 0

    @property
    def spent(self) -> bool:
        """Whether what has arrived leaves less than a candidate may take."""
        return not self._budget.fits(self._budget.total)

    def begin(self, candidate: CandidateBatch, flights: Mapping[int, Flight]) -> Flight:
        """A candidate alone in its batch joins those in flight, measured as soon as the budget pays for it."""
        allocation, (runner,) = self._entrants(candidate)
        spared = self._leader[0] == -math.inf and not any(flight.spared for flight in flights.values())
        flight = Flight(candidate.first_id, candidate, allocation, runner, self._leader[1], spared)
        self.admit(flight, flights)
        return flight

    def admit(self, flight: Flight, flights: Mapping[int, Flight]) -> None:
        """Let it begin where the budget pays for all of its samples beside those of all that have begun."""
        racing = {other.runner.digest for other in flights.values() if other.begun} | {flight.runner.digest}
        everything = len(self._budget.blocks)
        unpaid = (self._budget.cost(digest, 0, everything) for digest in racing if digest not in self._results)
        flight.begun = flight.runner.digest in self._results or self._budget.fits(sum(unpaid))

    def next_arrival(self, flights: Mapping[int, Flight]) -> Flight:
        """Measure until one of those in flight has arrived.

        On one worker they arrive in the order of asking, but for allocations that are in flight twice.

        Args:
            flights: at least one, by number in the order of asking.
        """
        self._flights = flights
        while True:
            flight = self._arrived()
            if flight is not None:
                return flight
            if self._stream is None:
                self._stream = self.measurer.stream(self._work())
            index, result = next(self._stream)
            flight, requests = self._given.pop(index)
            answers = self.measurer.take(requests, result)
            flight.outcomes.update((request.block, one) for request, one in zip(requests, answers, strict=True))

    def replay(self, flight: Flight, known: KnownFailure | None) -> None:
        """Let one of those in flight arrive, measuring now what the store lacks.

        Args:
            flight: whose turn it is by the journal.
            known: as the journal has it, where it failed.
        """
        flight.runner.known = known
        while flight.begun and not self._over(flight):
            requests = [request for batch in flight.waiting for request in batch]
            flight.waiting.clear()
            answers = self.measurer.outcomes(requests)
            flight.outcomes.update((request.block, one) for request, one in zip(requests, answers, strict=True))

    def arrive(self, flight: Flight) -> EvaluationBatch:
        """Count what it has taken; its evaluation, alone in its batch."""
        runner = flight.runner
        self.counters.asked += 1
        if not flight.begun:
            runner.stop("censored", OUT_OF_PASSES)
        if runner.digest not in self._results:
            self._charge(runner.digest, runner.blocks)
            self._note_complete(runner, flight.allocation[0])
            if runner.status == "ok":
                self._lead(runner)
            self._results[runner.digest] = runner.result(self._standard_error(runner))
        return self._told(flight.candidate, flight.allocation, [runner.digest], self._results)

    def line(self, batch: CandidateBatch, flights: Sequence[Flight]) -> EvaluationBatch:
        """The evaluations of those that arrived as one batch."""
        self.counters.store_hits = self.measurer.store_hits
        self.counters.spent |= self.spent
        allocations = np.concatenate([flight.allocation for flight in flights])
        return self._told(batch, allocations, [flight.runner.digest for flight in flights], self._results)

    def _arrived(self) -> Flight | None:
        """The first whose race is over; nobody overtakes those that wait for a worker."""
        for flight in self._foremost():
            if self._over(flight):
                return flight
            if flight.waiting:
                return None
        first = next(iter(self._flights.values()))
        return None if first.begun else first

    def _work(self) -> Iterator[Any]:
        """Batches for workers, those of whoever was asked first first."""
        while True:
            needy = (flight for flight in self._foremost() if not self._over(flight) and flight.waiting)
            flight = next(needy, None)
            if flight is None:
                yield NOT_YET
                continue
            requests = flight.waiting.pop(0)
            self._given[self._batches] = flight, requests
            self._batches += 1
            yield requests

    def _foremost(self) -> Iterator[Flight]:
        """Those in flight by number, without those for whom one before them with the same allocation will speak."""
        seen: set[str] = set()
        for flight in self._flights.values():
            if flight.begun and flight.runner.digest not in seen:
                yield flight
            seen.add(flight.runner.digest)

    def _over(self, flight: Flight) -> bool:
        """Whether its race is over; takes it as far as it goes with what has come back."""
        runner = flight.runner
        while runner.status is None and runner.digest not in self._results:
            if flight.asked is None:
                self._ask_for(flight)
            elif len(flight.outcomes) < len(flight.asked):
                return False
            else:
                self._end_stage(flight)
        return True

    def _ask_for(self, flight: Flight) -> None:
        """Ask for the blocks of its stage: the store first."""
        runner, end = flight.runner, self._stages[flight.stage]
        flight.asked, runner.blocks = range(runner.blocks, end), end
        if runner.known is not None and end >= (runner.known.blocks or end):
            runner.stop("failed", runner.known.reason)
            self._take(runner, [])
            return
        requests = [Request(runner.widths, "calibration", block) for block in flight.asked]
        stored = self.measurer.stored(requests)
        flight.outcomes = {request.block: outcome for request, outcome in stored.items()}
        flight.waiting = self.measurer.batched([request for request in requests if request not in stored])

    def _end_stage(self, flight: Flight) -> None:
        runner = flight.runner
        self._take(runner, [flight.outcomes[block] for block in sorted(flight.outcomes)])
        if runner.status is not None:
            return
        if flight.stage == len(self._stages) - 1:
            self._finish(runner)
            return
        if not flight.spared:
            self._look_at(runner, flight.best)
        flight.stage, flight.asked, flight.outcomes = flight.stage + 1, None, {}
