"""The Ray executor: actors that hold the state, on a cluster of its own or an existing one."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError
from evoquant.execution.base import (
    CAUGHT,
    NOT_YET,
    Factory,
    Failure,
    cannot_start,
    guarded,
    not_started,
    raised,
    stuck,
    timed_out,
)
from evoquant.execution.cluster import cluster_cpus, connect, first_line, free_cpus, is_connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

TRIES = 3
PLACE_S = 30.0  # patience with a cluster that has no free CPU for a worker
_END: Any = object()
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Worker:
    """An actor: state built once, then batch after batch."""

    def __init__(self) -> None:
        # Before anything imports NumPy or PyTorch, which read it while they load: so the factory is sent later.
        os.environ.update(ONE_THREAD)
        self._function: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Come back once the actor has a place on the cluster."""

    def build(self, factory: Factory, payload: Any) -> str | None:
        """Build the state; what the factory raised, or None."""
        try:
            self._function = factory(payload)
        except CAUGHT as error:
            return f"{type(error).__name__}: {error}"
        return None

    def work(self, batch: Any) -> Any | Failure:
        """The result for a batch; an exception becomes a `Failure`."""
        assert self._function is not None
        return guarded(self._function, batch)


class RayExecutor:
    """One actor per worker.

    A cluster of its own is shut down by `close`; a connection that the caller made is used as it is and left open.

    Args:
        workers: actors; by default one for each CPU. On a full cluster there may be fewer.
        address: of an existing cluster; by default RAY_ADDRESS, else a local cluster is started.
    """

    name = "ray"

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._given = workers
        address = address or os.environ.get("RAY_ADDRESS")
        self._address = None if address == "local" else address
        self._pool: _Pool | None = None
        self._owns = False
        self._turn = 0

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state in every actor; see `Executor.start`.

        Raises:
            CampaignError: the factory raised, or no actor can be started.
            InputError: the cluster cannot be reached.
        """
        self._connect()
        self._stop_actors()
        self._pool = _Pool(factory, payload, limit_s)
        try:
            self._pool.fill(self._given or self.workers)
        except BaseException:
            self._stop_actors()
            raise
        self.workers = len(self._pool.seats)

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; see `Executor.map`.

        Raises:
            CampaignError: `start` was not called, or a lost actor cannot be started again.
        """
        return self._in_order(self._stream(batches, eager=True), self._turn)

    def stream(self, batches: Iterable[Any]) -> Iterator[tuple[int, Any | Failure]]:
        """Results in the order in which they come; see `Executor.stream`.

        Raises:
            CampaignError: `start` was not called, a lost actor cannot be started again, or nothing can arrive that
                `NOT_YET` waits for.
        """
        return self._stream(batches, eager=False)

    def _stream(self, batches: Iterable[Any], *, eager: bool) -> Iterator[tuple[int, Any | Failure]]:
        if self._pool is None:
            raise CampaignError(not_started(self.name))
        self._turn += 1
        return self._results(self._pool, _Queue(batches), self._turn, eager)

    def _results(self, pool: _Pool, queue: _Queue, turn: int, eager: bool) -> Iterator[tuple[int, Any | Failure]]:
        """Results as they come; `eager`: workers get their next batches before a result is yielded, not after."""
        self._still(turn)
        pool.free_all()
        arrived: deque[tuple[int, Any | Failure]] = deque()
        while True:
            while (seat := pool.room()) is not None and (following := queue.take()) is not None:
                pool.give(seat, *following)
            if not arrived:
                if not pool.working() and pool.room() is not None:
                    queue.require_end()
                    return
                arrived += queue.settled(pool.finished())
                if eager or not arrived:  # the caller may take its time
                    continue
            yield arrived.popleft()
            self._still(turn)

    def _in_order(self, results: Iterator[tuple[int, Any | Failure]], turn: int) -> Iterator[Any | Failure]:
        early: dict[int, Any | Failure] = {}
        following = 0
        for index, outcome in results:
            early[index] = outcome
            while following in early:
                yield early.pop(following)
                self._still(turn)
                following += 1

    def _still(self, turn: int) -> None:
        """Refuse to go on after another map, or after `close`, where any call would make Ray start a cluster."""
        if turn != self._turn:
            raise CampaignError("this map ended when start, map or close was called; take its results before that.")

    def _connect(self) -> None:
        """Start a local cluster, or join the given one; a connection that the caller made is used as it is."""
        if not is_connected():
            connect(self._address, self.workers)
            self._owns = True
        if self._given is None:
            self.workers = cluster_cpus()

    def _stop_actors(self) -> None:
        self._turn += 1
        if self._pool is not None:
            self._pool.stop()
            self._pool = None

    def close(self) -> None:
        """Stop the actors, and the cluster or the connection where this executor made it."""
        self._turn += 1
        if self._pool is None and not self._owns:
            return
        import ray

        if ray.is_initialized():
            self._stop_actors()
            if self._owns:
                ray.shutdown()
        self._pool, self._owns = None, False


class _Queue:
    """Batches that are to be worked on: those of lost workers again first, then the next of the iterable."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = iter(batches)
        self._count = 0
        self._begun: dict[int, tuple[Any, int]] = {}  # index → batch, tries
        self._again: deque[int] = deque()
        self._ended = False

    def take(self) -> tuple[int, Any] | None:
        """The next batch with its number; None where there is none, or not yet."""
        if self._again:
            index = self._again.popleft()
            batch, tries = self._begun[index]
            self._begun[index] = (batch, tries + 1)
            return index, batch
        batch = NOT_YET if self._ended else next(self._batches, _END)
        if batch is _END:
            self._ended = True
        if batch is _END or batch is NOT_YET:
            return None
        index, self._count = self._count, self._count + 1
        self._begun[index] = (batch, 1)
        return index, batch

    def settled(self, found: list[tuple[int, Any | Failure]]) -> list[tuple[int, Any | Failure]]:
        """What of it is final; batches whose worker was lost are tried again."""
        final = []
        for index, outcome in found:
            lost = isinstance(outcome, Failure) and outcome.reason == "worker_lost"
            if lost and self._begun[index][1] < TRIES:
                self._again.appendleft(index)
            else:
                del self._begun[index]
                final.append((index, outcome))
        return final

    def require_end(self) -> None:
        """Refuse to end while the iterable waits for a result.

        Raises:
            CampaignError: it has not ended.
        """
        if not self._ended:
            raise stuck()


@dataclass(eq=False)
class _Seat:
    """One worker's place: its actor and what it is waiting for.

    Attributes:
        reference: to the build or the batch in progress; None when idle.
        index: of the batch in progress.
        since: when it was sent.
        placed: a reference that is there once the actor has a place on the cluster.
        deaths: how often in a row it died while building.
    """

    actor: Any = None
    reference: Any = None
    index: int | None = None
    since: float = 0.0
    placed: Any = None
    deaths: int = 0


class _Pool:
    """Actors with the same state, each with one batch at a time: who dies takes no second batch along."""

    def __init__(self, factory: Factory, payload: Any, limit_s: float | None) -> None:
        import ray

        self._limit_s = limit_s
        self._factory = factory
        self._new: Any = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        try:
            self._payload = ray.put(payload)  # shipped once, not once per worker
        except TypeError as error:
            raise CampaignError(cannot_start(f"the payload cannot be sent: {first_line(error)}")) from error
        self.seats: list[_Seat] = []

    def fill(self, workers: int) -> None:
        """Start actors and wait until their state is built."""
        self.seats = [_Seat() for _ in range(workers)]
        for seat in self.seats:
            self._build(seat)
        while any(seat.reference is not None for seat in self.seats):
            self.finished()

    def room(self) -> _Seat | None:
        """A seat that can take a batch."""
        return next((seat for seat in self.seats if seat.reference is None), None)

    def working(self) -> bool:
        """Whether a batch is being worked on."""
        return any(seat.index is not None for seat in self.seats)

    def give(self, seat: _Seat, index: int, batch: Any) -> None:
        """Send a seat with room a batch."""
        seat.reference, seat.index, seat.since = seat.actor.work.remote(batch), index, time.monotonic()

    def free_all(self) -> None:
        """Start those again that still work for a map that nobody follows any more."""
        for seat in self.seats:
            if seat.index is not None:
                self._build(seat)

    def finished(self) -> list[tuple[int, Any | Failure]]:
        """Wait until something happens; the batches that came back, died or ran out of time."""
        import ray

        pending = {seat.reference: seat for seat in self.seats if seat.reference is not None}
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=self._patience())
        found: list[tuple[int, Any | Failure]] = []
        for reference in ready:
            seat = pending[reference]
            if seat.index is None:
                self._built(seat)
                continue
            outcome, lives = _outcome(reference)
            found.append((seat.index, outcome))
            if lives:
                seat.reference = seat.index = None
            else:
                self._build(seat)
        if not ready:
            self._drop_unplaced()
        return found + self._overdue()

    def _patience(self) -> float | None:
        """Seconds until the next limit; None where only an event can follow."""
        working = [seat.since for seat in self.seats if seat.index is not None]
        ends = [since + self._limit_s for since in working if self._limit_s is not None]
        if not working:
            ends = [seat.since + PLACE_S for seat in self.seats if seat.placed is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _overdue(self) -> list[tuple[int, Failure]]:
        found: list[tuple[int, Failure]] = []
        for seat in self.seats:
            late = self._limit_s is not None and time.monotonic() - seat.since >= self._limit_s
            if self._limit_s is not None and seat.index is not None and late:
                found.append((seat.index, timed_out(self._limit_s)))
                self._build(seat)
        return found

    def _build(self, seat: _Seat) -> None:
        """Send a new actor the factory, in place of the seat's old one."""
        import ray

        if seat.actor is not None:
            ray.kill(seat.actor)
        seat.actor = self._new.remote()
        seat.placed = seat.actor.ready.remote()
        seat.reference = seat.actor.build.remote(self._factory, self._payload)
        seat.index, seat.since = None, time.monotonic()

    def _built(self, seat: _Seat) -> None:
        outcome, lives = _outcome(seat.reference)
        seat.deaths = 0 if lives else seat.deaths + 1
        if 0 < seat.deaths < TRIES:
            self._build(seat)
            return
        if isinstance(outcome, Failure):  # it died, or the factory or its payload cannot be unpickled there
            outcome = f"{outcome.reason.removeprefix('raised:')}: {outcome.message}"
        if outcome is not None:
            raise CampaignError(cannot_start(outcome))
        seat.reference = seat.placed = None

    def _drop_unplaced(self) -> None:
        """Go on without the actors that the cluster has had no CPU for, where there are others."""
        import ray

        for seat in list(self.seats):
            if seat.placed is None or time.monotonic() - seat.since < PLACE_S:
                continue
            if ray.wait([seat.placed], timeout=0)[0]:
                seat.placed = None  # it has a place, and its factory takes its time
            else:
                ray.kill(seat.actor)
                self.seats.remove(seat)
        if not self.seats:
            found = f"the Ray cluster has {cluster_cpus()} CPUs, {free_cpus()} of them free, and a worker takes one"
            raise CampaignError(
                f"no worker found a place within {PLACE_S:g} s: {found}. Wait, or use --executor local."
            )

    def stop(self) -> None:
        """Kill the actors."""
        import ray

        for seat in self.seats:
            if seat.actor is not None:
                ray.kill(seat.actor)
        self.seats = []


def _outcome(reference: Any) -> tuple[Any, bool]:
    """What a call to an actor came to, and whether the actor lives."""
    import ray

    try:
        return ray.get(reference), True
    except ray.exceptions.RayTaskError as error:  # not from the function, which is guarded: what cannot be (un)pickled
        return raised(error.cause), True
    except ray.exceptions.RayError as error:
        return Failure("worker_lost", first_line(error)), False
