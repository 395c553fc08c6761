"""A run on many workers, event by event: the driver, workers with a batch that waits, and the generation's barrier.

Everything is counted, nothing is waited for: a thousand workers are simulated with costs that were measured on two.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from evoquant.execution.sizing import Sizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Mode = Literal["generational", "steady"]
Reason = Literal[
    "start-up", "search", "driver", "way to workers", "barrier (slowest item)", "too few candidates", "the run's end"
]
DEPTH = 2  # batches that a worker has, as the Ray executor gives them
SATURATED = 0.8  # below this efficiency workers are said to be too many


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What is spent besides the items, in seconds.

    Attributes:
        start_s: until the workers are there.
        driver_s: of the driver for each batch: sending it, and taking its result.
        worker_s: of a worker for each batch: from the end of one to the beginning of the next that waits.
        generation_s: between two generations, while no worker works: tell, journal, ask.
        candidate_s: the same for one candidate, where there are no generations.
    """

    start_s: float = 0.0
    driver_s: float = 0.0
    worker_s: float = 0.0
    generation_s: float = 0.0
    candidate_s: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """How a run went.

    Attributes:
        wall_s: of the whole run.
        efficiency: seconds of items over seconds of all workers.
        speedup: over one worker without any overhead.
        losses: reason → the share of the workers' time that it costs; with the efficiency they sum to 1.
    """

    wall_s: float
    efficiency: float
    speedup: float
    losses: dict[Reason, float]

    @property
    def saturated_by(self) -> Reason | None:
        """What costs most; None where little is lost."""
        if self.efficiency >= SATURATED:
            return None
        largest, _ = max(self.losses.items(), key=lambda loss: loss[1])
        return largest


def simulate(items: Sequence[Sequence[float]], workers: int, costs: Costs, mode: Mode = "generational") -> Simulated:
    """A run of generations, each a list of seconds that its items take.

    Losses are told apart by taking one cause away after the other: the start, the search between generations, the
    driver, the workers' own time, the spread of the items, and what then is left is that there are not enough items
    for all workers.
    """
    work = sum(map(sum, items))
    count = sum(map(len, items))
    even = [[work / count] * len(generation) for generation in items]
    walls = [
        _wall(items, workers, costs, mode),
        _wall(items, workers, replace(costs, start_s=0.0), mode),
        _wall(items, workers, Costs(driver_s=costs.driver_s, worker_s=costs.worker_s), mode),
        _wall(items, workers, Costs(worker_s=costs.worker_s), mode),
        _wall(items, workers, Costs(), mode),
        _wall(even, workers, Costs(), mode),
        work / workers,
    ]
    slowest: Reason = "barrier (slowest item)" if mode == "generational" else "the run's end"
    reasons: tuple[Reason, ...] = ("start-up", "search", "driver", "way to workers", slowest, "too few candidates")
    # Scheduling has anomalies: with less to do it may end a little later.
    gone = [max(0.0, before - after) for before, after in itertools.pairwise(walls)]
    total = sum(gone)
    lost = walls[0] - walls[-1]
    losses = {
        reason: lost / walls[0] * (part / total if total else 0.0) for reason, part in zip(reasons, gone, strict=True)
    }
    return Simulated(walls[0], work / (workers * walls[0]), work / walls[0], losses)


def _wall(items: Sequence[Sequence[float]], workers: int, costs: Costs, mode: Mode) -> float:
    if mode == "steady":
        every = (item + costs.worker_s for generation in items for item in generation)
        return costs.start_s + span(every, workers, costs.driver_s + costs.candidate_s)
    wall = costs.start_s
    for generation in items:
        batches = [batch + costs.worker_s for batch in batched(generation, workers)]
        wall += span(batches, workers, costs.driver_s) + costs.generation_s
    return wall


def batched(items: Sequence[float], workers: int) -> list[float]:
    """Seconds of the batches in which items travel, sized as measured requests are."""
    if not items:
        return []
    sizer = Sizer()
    sizer.observe(len(items), sum(items), 1)
    left = iter(items)
    return [sum(next(left) for _ in range(size)) for size in sizer.sizes(len(items), workers)]


def span(batches: Iterable[float], workers: int, driver_s: float = 0.0) -> float:
    """Seconds from the first batch's sending to the last result's taking.

    Half of `driver_s` goes into sending a batch, half into taking its result; the driver does one thing at a time. A
    worker begins the batch that waits as soon as it has ended one. Once there are no more, one that waits behind
    another goes to a worker that is idle.
    """
    return _Machine(iter(batches), workers, driver_s / 2.0).run()


class _Machine:
    """The state of one simulated map."""

    def __init__(self, batches: Iterable[float], workers: int, step_s: float) -> None:
        self._batches = iter(batches)
        self._step_s = step_s
        self._driver = 0.0  # until when it is busy
        self._flight: list[deque[tuple[float, float, int]]] = [deque() for _ in range(workers)]  # begin, seconds, id
        self._ends: list[tuple[float, int, int]] = []  # when, id, worker
        self._count = 0
        self._moved: set[int] = set()
        self._looked = 0  # workers before this one have nothing that waits, and get nothing more that will

    def run(self) -> float:
        for _ in range(DEPTH):
            for worker in range(len(self._flight)):
                self._give(worker, next(self._batches, None))
        while self._ends:
            end, number, worker = heapq.heappop(self._ends)
            if number in self._moved:
                continue
            self._flight[worker].popleft()
            self._driver = max(self._driver, end) + self._step_s
            following = next(self._batches, None)
            self._give(worker, following)
            if following is None and not self._flight[worker]:
                self._give(worker, self._recalled())
        return self._driver

    def _give(self, worker: int, seconds: float | None) -> None:
        if seconds is None:
            return
        self._driver += self._step_s
        flight = self._flight[worker]
        begin = max(self._driver, flight[-1][0] + flight[-1][1]) if flight else self._driver
        self._count += 1
        flight.append((begin, seconds, self._count))
        heapq.heappush(self._ends, (begin + seconds, self._count, worker))

    def _recalled(self) -> float | None:
        """The seconds of a batch that waits behind another, taken from its worker."""
        while self._looked < len(self._flight):
            flight = self._flight[self._looked]
            if len(flight) > 1 and flight[-1][0] > self._driver:
                _, seconds, number = flight.pop()
                self._moved.add(number)
                return seconds
            self._looked += 1
        return None
