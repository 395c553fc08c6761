"""The Ray executor: actors that hold the state, on a cluster of its own or an existing one."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError
from evoquant.execution.actors import GIVEN_BACK, TRIES, Pool
from evoquant.execution.base import NOT_YET, Factory, Failure, not_started, stuck
from evoquant.execution.cluster import connect, disconnect, is_connected
from evoquant.execution.need import Need

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_END: Any = object()


class RayExecutor:
    """One actor per worker.

    A cluster of its own is shut down by `close`; a connection that the caller made is used as it is and left open.

    On an existing cluster there are more when nodes join, up to `workers`, and fewer when nodes leave.

    Args:
        workers: actors; by default as many as the nodes can hold. On a full cluster there may be fewer.
        address: of an existing cluster; by default RAY_ADDRESS, else a local cluster is started.
        need: what each of them takes of its node.
        runtime_env: what they get beside evoquant and the user's own code, by the keys of Ray's runtime environment.
    """

    name = "ray"
    elsewhere = True

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        *,
        need: Need | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        self.need = need or Need()
        self._environment = runtime_env
        self.workers = workers or max(1, int((os.cpu_count() or 1) / self.need.cpus))
        self._given = workers
        address = address or os.environ.get("RAY_ADDRESS")
        self._address = None if address == "local" else address
        self._pool: Pool | None = None
        self._owns = False
        self._mode: str | None = None
        self._turn = 0

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state in every actor; see `Executor.start`.

        Raises:
            CampaignError: the factory raised, or no actor can be started.
            InputError: the cluster cannot be reached, or no node of it can hold an actor.
        """
        self._connect()
        self._stop_actors()
        self._pool = Pool(factory, payload, limit_s, own=self._owns and self._address is None, need=self.need)
        try:
            self._pool.fill(self._given)
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

    def _results(self, pool: Pool, queue: _Queue, turn: int, eager: bool) -> Iterator[tuple[int, Any | Failure]]:
        """Results as they come; `eager`: workers get their next batches before a result is yielded, not after."""
        self._still(turn)
        pool.free_all()
        self.workers = max(1, pool.ready)
        arrived: deque[tuple[int, Any | Failure]] = deque()
        while True:
            if pool.grow():
                self.workers = max(1, pool.ready)
            queue.feed(pool)
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
            # With more to a worker than a CPU, the machine's own number counts: else nothing would be refused.
            cpus = self.workers if self.need.cpus <= 1 else os.cpu_count() or 1
            self._mode = connect(self._address, cpus, self._environment)
            self._owns = True

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
                disconnect(self._mode)
        self._pool, self._owns = None, False


class _Queue:
    """Batches that are to be worked on: those of lost workers again first, then the next of the iterable."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = iter(batches)
        self._count = 0
        self._begun: dict[int, Any] = {}
        self._lost: dict[int, int] = {}  # index → how often its worker was lost
        self._again: deque[int] = deque()
        self._ended = False

    def feed(self, pool: Pool) -> None:
        """Give batches to the workers that have room.

        What was with a worker that died is worked on alone from then on: of two, the wrong one may seem guilty, since
        the first one's result can be lost with the worker. While such a batch waits nothing is given to the busy.
        """
        while (seat := pool.room()) is not None:
            busy = bool(seat.flight)
            if self._again and not busy:
                index = self._again.popleft()
                pool.give(seat, index, self._begun[index], alone=True)
                continue
            batch = NOT_YET if self._ended or self._again else next(self._batches, _END)
            if batch is _END:
                self._ended = True
            if batch is not _END and batch is not NOT_YET:
                index, self._count = self._count, self._count + 1
                self._begun[index] = batch
            elif busy or (waiting := pool.recall()) is None:
                return
            else:  # an idle worker is better than the place behind a slow batch
                index = waiting
            pool.give(seat, index, self._begun[index])

    def settled(self, found: list[tuple[int, Any | Failure]]) -> list[tuple[int, Any | Failure]]:
        """What of it is final; batches whose worker was lost are tried again."""
        final = []
        for index, outcome in found:
            lost = isinstance(outcome, Failure) and outcome.reason == "worker_lost"
            if lost:
                self._lost[index] = self._lost.get(index, 0) + 1
            if outcome is GIVEN_BACK or (lost and self._lost[index] < TRIES):
                self._again.append(index)
            else:
                del self._begun[index]
                self._lost.pop(index, None)
                final.append((index, outcome))
        return final

    def require_end(self) -> None:
        """Refuse to end while the iterable waits for a result.

        Raises:
            CampaignError: it has not ended.
        """
        if not self._ended:
            raise stuck()
