"""Lines of a run directory, appended in a thread of its own while the search goes on."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evoquant.campaign.storage import RunDir

WAITING_CHARACTERS = 2**26  # of lines that wait to be written, before whoever adds more waits, too


class Appender:
    """Appends lines to a file of a run in a thread of its own, in order; lines that come together are flushed together.

    What is added is durable after `drain`; a kill before that loses the last lines, never one in between.

    An interrupt may come at any place. Whoever waits does so for a queue that is written in C: it would leave the lock
    of a condition taken where it comes just behind it, and the thread that needs it waiting for ever.
    """

    def __init__(self, run: RunDir, name: str) -> None:
        self._run = run
        self._name = name
        self._waiting: SimpleQueue[str | SimpleQueue[None] | None] = SimpleQueue()  # a line, who waits for it, the end
        self._added = 0  # characters; of the one thread
        self._written = 0  # of the other
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def add(self, line: str) -> None:
        """One more line.

        Raises:
            RunDirError: the disk refused an earlier one.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._write, name=f"append to {self._name}", daemon=True)
            thread.start()
            self._thread = thread
        self._check()
        if self._added - self._written > WAITING_CHARACTERS:
            self.drain()
        self._added += len(line)
        self._waiting.put(line)

    def drain(self) -> None:
        """Wait until all that was added is durable.

        Raises:
            RunDirError: the disk refused it.
        """
        self._wait()
        self._check()

    def close(self) -> None:
        """Write what is left, and end; a line that the disk refuses is lost, which the next resume makes good."""
        self._wait()
        if self._thread is not None:
            self._thread = None
            self._waiting.put(None)

    def _wait(self) -> None:
        if self._thread is not None:
            done: SimpleQueue[None] = SimpleQueue()
            self._waiting.put(done)
            done.get()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        ends = False
        while not ends:
            lines, told = [], []
            item = self._waiting.get()
            while True:
                if isinstance(item, str):
                    lines.append(item)
                elif item is None:
                    ends = True
                else:
                    told.append(item)
                if self._waiting.empty():  # nobody else takes from it
                    break
                item = self._waiting.get()
            try:
                if lines and self._error is None:
                    self._run.append_line(self._name, "\n".join(lines))
            except Exception as error:  # whatever it is, who waits for this thread has to hear of it
                self._error = error
            self._written += sum(map(len, lines))
            for done in told:
                done.put(None)
