"""Work goes on where it is while another executor starts, and moves there once it is ready."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from evoquant.execution.base import NOT_YET, Factory, Failure, stuck
from evoquant.execution.cluster import signal_handlers, take_signals_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from evoquant.execution.base import Executor


class Rising:
    """An executor at work that another one takes over from; results are the same on either.

    Args:
        first: started already with the state that `start` will be given; works on one batch at a time in order, so that
            between two results nothing is under way. It is closed when the other takes over.
        second: not started yet.
        say: is told what a `close` that takes seconds waits for.
    """

    def __init__(self, first: Executor, second: Executor, say: Callable[[str], None] | None = None) -> None:
        self._first: Executor | None = first
        self._second = second
        self._say = say
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._closing = threading.Event()
        self._error: BaseException | None = None

    elsewhere = True  # the second's workers, who get the same payload, may be on other machines

    @property
    def name(self) -> str:
        """Of the one at work."""
        return (self._first or self._second).name

    @property
    def workers(self) -> int:
        """Of the one at work."""
        return (self._first or self._second).workers

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Start the second in the background; another call ends the first, and waits until all is ready."""
        if self._thread is None:
            # Ray's processes end with the thread that started them: it stays until `close`. One that is a daemon
            # does not keep an interrupted program from its end.
            self._thread = threading.Thread(target=self._hold, args=(factory, payload, limit_s), daemon=True)
            self._thread.start()
            return
        self._started.wait()
        self._move()
        self._second.start(factory, payload, limit_s)

    def _hold(self, factory: Factory, payload: Any, limit_s: float | None) -> None:
        try:
            self._second.start(factory, payload, limit_s)
        except BaseException as error:
            self._error = error
        self._started.set()
        self._closing.wait()
        self._second.close()

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; see `Executor.map`.

        Raises:
            CampaignError: as for `Executor.map`, or the second could not be started.
            InputError: the second's machines cannot be reached.
        """
        done = 0
        while done < len(batches) and not self._ready():
            yield from self._at_first(batches[done])
            done += 1
        if done < len(batches):
            yield from self._second.map(batches[done:])

    def stream(self, batches: Iterable[Any]) -> Iterator[tuple[int, Any | Failure]]:
        """Results as they come; see `Executor.stream`.

        Raises:
            CampaignError: as for `Executor.stream`, or the second could not be started.
            InputError: the second's machines cannot be reached.
        """
        done, left = 0, iter(batches)
        while not self._ready():
            for batch in left:
                for result in self._at_first(batch):
                    yield done, result
                done += 1
                break
            else:
                return
        for index, result in self._second.stream(left):
            yield done + index, result

    def _at_first(self, batch: Any) -> Iterator[Any | Failure]:
        if batch is NOT_YET:
            raise stuck()
        assert self._first is not None
        return self._first.map([batch])

    def _ready(self) -> bool:
        """Whether the second is at work."""
        if self._first is not None and self._started.is_set():
            self._move()
        return self._first is None

    def _move(self) -> None:
        if self._error is not None:
            raise self._error
        if self._first is not None:
            self._first.close()
            self._first = None
            take_signals_back(signal_handlers())  # Ray has started in a thread, which cannot

    def close(self) -> None:
        """Stop both; a start that is in progress is waited for, so that nothing of it stays behind."""
        if self._first is not None:
            self._first.close()
        self._closing.set()
        if self._thread is not None and self._thread.ident is not None:
            if self._say is not None and not self._started.is_set():
                self._say(f"{self._second.name} is still starting; it is stopped as soon as it can be, within seconds")
            self._thread.join()
        else:
            self._second.close()
