"""The Ray executor: actors that hold the state, on a cluster of its own or an existing one."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError, InputError
from evoquant.execution.base import Factory, Failure, not_started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TRIES = 3
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Worker:
    """An actor: state built once, then batch after batch."""

    def __init__(self, factory: Factory, payload: Any) -> None:
        self._function = factory(payload)

    def work(self, batch: Any) -> Any | Failure:
        """The result for a batch; an exception becomes a `Failure`."""
        try:
            return self._function(batch)
        except Exception as error:
            return Failure(f"raised:{type(error).__name__}", str(error))

    def ready(self) -> bool:
        """Whether the state is built."""
        return True


class RayExecutor:
    """One actor per worker.

    Args:
        workers: actors; by default one for each CPU of the cluster.
        address: of an existing cluster; by default RAY_ADDRESS, else a local cluster is started.
    """

    name = "ray"

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._given = workers
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._actors: list[Any] = []
        self._new_actor: Any = None
        self._limit_s: float | None = None
        self._owns = False

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state in every actor; see `Executor.start`."""
        import ray

        self._connect()
        self._stop_actors()
        placed = ray.put(payload)  # shipped once, not once per worker
        remote = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self._new_actor = lambda: remote.remote(factory, placed)
        self._limit_s = limit_s
        self._actors = [self._new_actor() for _ in range(self.workers)]
        try:
            ray.get([actor.ready.remote() for actor in self._actors])
        except ray.exceptions.RayError as error:
            self._stop_actors()
            cause = getattr(error, "cause", None) or error
            raise CampaignError(f"a worker cannot start: {_first_line(cause)}") from None

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; see `Executor.map`."""
        if not self._actors:
            raise CampaignError(not_started(self.name))
        results: dict[int, Any] = {}
        waiting = list(range(len(batches)))[::-1]
        tries = dict.fromkeys(waiting, 0)
        idle = list(range(len(self._actors)))
        running: dict[Any, tuple[int, int, float]] = {}  # reference → batch, actor, start
        following = 0
        while following < len(batches):
            while waiting and idle:
                index, actor = waiting.pop(), idle.pop(0)
                tries[index] += 1
                reference = self._actors[actor].work.remote(batches[index])
                running[reference] = (index, actor, time.monotonic())
            for reference, outcome in self._finished(running):
                index, actor, _ = running.pop(reference)
                idle.append(actor)
                if isinstance(outcome, Failure) and outcome.reason in ("time_limit", "worker_lost"):
                    self._replace(actor)
                    if outcome.reason == "worker_lost" and tries[index] < TRIES:
                        waiting.append(index)
                        continue
                results[index] = outcome
            while following in results:
                yield results.pop(following)
                following += 1

    def _finished(self, running: dict[Any, tuple[int, int, float]]) -> list[tuple[Any, Any]]:
        """References that came back, died or ran out of time, with their outcome."""
        import ray

        timeout = None
        if self._limit_s is not None:
            oldest = min(start for _, _, start in running.values())
            timeout = max(0.0, oldest + self._limit_s - time.monotonic())
        ready, _ = ray.wait(list(running), num_returns=1, timeout=timeout)
        found: list[tuple[Any, Any]] = []
        for reference in ready:
            try:
                found.append((reference, ray.get(reference)))
            except ray.exceptions.RayError as error:
                found.append((reference, Failure("worker_lost", _first_line(error))))
        if not ready and self._limit_s is not None:
            now = time.monotonic()
            for reference, (_, _, start) in running.items():
                if now - start >= self._limit_s:
                    found.append((reference, Failure("time_limit", f"stopped after {self._limit_s:g} s")))
        return found

    def _replace(self, actor: int) -> None:
        import ray

        ray.kill(self._actors[actor])
        self._actors[actor] = self._new_actor()

    def _connect(self) -> None:
        """Start a local cluster, or join the given one; a connection that the caller made is used as it is."""
        import ray

        if ray.is_initialized():
            return
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self._address is not None:
                ray.init(address=self._address, **quiet)
            else:
                kept = {name: os.environ.get(name) for name in ONE_THREAD}
                os.environ.update(ONE_THREAD)  # the cluster's processes inherit it; ours has loaded its BLAS already
                try:
                    ray.init(num_cpus=self.workers, include_dashboard=False, **quiet)
                finally:
                    for name, value in kept.items():
                        os.environ.pop(name) if value is None else os.environ.update({name: value})
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"at {self._address}" if self._address else "here"
            raise InputError(f"Ray cannot be reached {where}: {_first_line(error)}. Try --executor local.") from None
        self._owns = True
        if self._given is None and self._address is not None:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self.workers = max(1, int(resources.get("CPU", 1)))

    def _stop_actors(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def close(self) -> None:
        """Stop the actors, and the cluster where this executor started it."""
        import sys

        if "ray" not in sys.modules:
            return
        import ray

        if ray.is_initialized():
            self._stop_actors()
            if self._owns:
                ray.shutdown()
        self._owns = False


def _first_line(error: BaseException | Any) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
