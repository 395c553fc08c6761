"""The local executor: in this process, or in one child process where batches have a time limit."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError
from evoquant.execution.base import Factory, Failure, not_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

TRIES = 2


class LocalExecutor:
    """One worker: this process, or a child that can be killed."""

    name = "local"
    workers = 1

    def __init__(self) -> None:
        self._function: Callable[[Any], Any] | None = None
        self._child: _Child | None = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state; see `Executor.start`."""
        self.close()
        if limit_s is not None:
            self._child = _Child(factory, payload, limit_s)
            return
        try:
            self._function = factory(payload)
        except Exception as error:
            raise CampaignError(f"a worker cannot start: {type(error).__name__}: {error}") from error

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; see `Executor.map`."""
        if self._child is not None:
            for batch in batches:
                yield self._child.call(batch)
            return
        if self._function is None:
            raise CampaignError(not_started(self.name))
        for batch in batches:
            yield _guarded(self._function, batch)

    def close(self) -> None:
        """Let the state go."""
        self._function = None
        if self._child is not None:
            self._child.stop()
            self._child = None


def _guarded(function: Callable[[Any], Any], batch: Any) -> Any | Failure:
    try:
        return function(batch)
    except Exception as error:
        return Failure(f"raised:{type(error).__name__}", str(error))


class _Child:
    """A spawned process that works on one batch at a time and is replaced when it hangs or dies."""

    def __init__(self, factory: Factory, payload: Any, limit_s: float) -> None:
        self._factory = factory
        self._payload = payload
        self._limit_s = limit_s
        self._spawn()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._factory, self._payload), daemon=True)
        self._process.start()
        theirs.close()
        try:
            fault = self._pipe.recv()
        except (EOFError, ConnectionError):
            fault = "the process died"
        if fault is not None:
            self.stop()
            raise CampaignError(f"a worker cannot start: {fault}")

    def call(self, batch: Any) -> Any | Failure:
        """The result for a batch, or why there is none."""
        for _ in range(TRIES):
            try:
                self._pipe.send(batch)
                if self._pipe.poll(self._limit_s):
                    return self._pipe.recv()
            except (EOFError, ConnectionError):
                self._replace()
                continue
            self._replace()
            return Failure("time_limit", f"stopped after {self._limit_s:g} s")
        return Failure("worker_lost", f"the worker process died {TRIES} times")

    def _replace(self) -> None:
        self.stop()
        self._spawn()

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, factory: Factory, payload: Any) -> None:
    try:
        function = factory(payload)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send(None)
    while True:
        try:
            batch = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        pipe.send(_guarded(function, batch))
