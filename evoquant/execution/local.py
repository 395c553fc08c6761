"""The local executor: in this process, or in one child process where batches have a time limit."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from multiprocessing import connection, resource_tracker
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.context import SpawnProcess

TRIES = 2


class LocalExecutor:
    """One worker: this process, or a child that can be killed."""

    name = "local"
    workers = 1

    def __init__(self) -> None:
        self._call: Callable[[Any], Any | Failure] | None = None
        self._child: _Child | None = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state; see `Executor.start`.

        Raises:
            CampaignError: the factory raised, or the child process died while it ran.
        """
        self.close()
        if limit_s is not None:
            self._child = _Child(factory, payload, limit_s)
            self._child.start()
            self._call = self._child.call
            return
        try:
            function = factory(payload)
        except CAUGHT as error:
            raise CampaignError(cannot_start(f"{type(error).__name__}: {error}")) from error
        self._call = lambda batch: guarded(function, batch)

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; see `Executor.map`.

        Raises:
            CampaignError: `start` was not called, or the child process cannot be started again.
        """
        if self._call is None:
            raise CampaignError(not_started(self.name))
        return map(self._call, batches)

    def stream(self, batches: Iterable[Any]) -> Iterator[tuple[int, Any | Failure]]:
        """Results one after another, in the order of the batches; see `Executor.stream`.

        Raises:
            CampaignError: `start` was not called, the child process cannot be started again, or a batch is `NOT_YET`.
        """
        if self._call is None:
            raise CampaignError(not_started(self.name))
        return enumerate(map(self._call, _made(batches)))

    def close(self) -> None:
        """Let the state go, and stop the child."""
        self._call = None
        if self._child is not None:
            self._child.stop()
            self._child = None


def _made(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; here none is ever at work when the next is asked for."""
    for batch in batches:
        if batch is NOT_YET:
            raise stuck()
        yield batch


class _Child:
    """A spawned process that works on one batch at a time; started again, when next needed, after it hung or died."""

    def __init__(self, factory: Factory, payload: Any, limit_s: float) -> None:
        self._state = (factory, payload)
        self._limit_s = limit_s
        self._process: SpawnProcess | None = None
        self._pipe: connection.Connection[Any, Any] | None = None

    def start(self) -> connection.Connection[Any, Any]:
        """The pipe to a process that is ready for a batch."""
        if self._pipe is not None:
            return self._pipe
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        try:
            self._spawn(theirs)
            theirs.close()  # else the pipe would never end for us when the child dies
            fault = self._pipe.recv()
        except (EOFError, OSError):
            fault = "its process died (a script that gets here needs `if __name__ == '__main__':` around its work)."
        except Exception as error:
            fault = f"{type(error).__name__}: {error} (the factory and its payload are sent to another process)."
        except BaseException:
            self.stop()
            raise
        finally:
            theirs.close()
        if fault is not None:
            self.stop()
            raise CampaignError(cannot_start(fault))
        return self._pipe

    def _spawn(self, theirs: connection.Connection[Any, Any]) -> None:
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, *self._state), daemon=True
        )
        # Ctrl-C reaches the whole foreground group; the child inherits the blocked signal and leaves the answer to us.
        # The tracker would unblock it while it starts, so it starts first.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def call(self, batch: Any) -> Any | Failure:
        """The result for a batch, or why there is none."""
        for _ in range(TRIES):
            pipe = self.start()
            try:
                pipe.send(batch)
                if pipe.poll(self._limit_s):
                    return pipe.recv()
            except (EOFError, OSError):
                self.stop()
                continue
            except BaseException:
                self.stop()  # it would answer the next batch with this one's result
                raise
            self.stop()
            return timed_out(self._limit_s)
        return Failure("worker_lost", f"the worker process died {TRIES} times")

    def stop(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.pid is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: connection.Connection[Any, Any], factory: Factory, payload: Any) -> None:
    _die_with_parent()
    try:
        function = factory(payload)
    except CAUGHT as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send(None)
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        result = guarded(function, batch)
        try:
            pipe.send(result)
        except OSError:
            return
        except Exception as error:  # the result cannot be pickled
            pipe.send(raised(error))


def _die_with_parent() -> None:
    """A batch that hangs never reads the end of the pipe: without this it would outlive a killed campaign."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if hasattr(fcntl, "F_SETSIG"):  # Linux: also where C code keeps the interpreter, or signals are blocked
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
