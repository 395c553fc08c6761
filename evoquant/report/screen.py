"""The live view on a terminal: one write for each frame, at most four a second, over the frame before.

The cursor stays visible and below the frame, so that whatever ends the process leaves a sane terminal. What others
write to stderr, or to stdout on the same terminal, appears as lines above the frame.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from evoquant.report.dashboard import Board
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evoquant.campaign.observer import Progress
    from evoquant.report.pace import Pace

    ClosingLine = Callable[[Progress, Pace], str]

EVERY_S = 0.25
SHARE = 0.01  # of the time at most goes into frames, unless they come at the pace of the clock
CLOCK_EVERY_S = 1.0
LARGE_BATCH = 10_000  # candidates, whose arrays are not kept until the next generation
LONGEST_LINE = 10_000  # characters that somebody else may write before a line ends


class Live:
    """The live view on the terminal behind `stream`."""

    def __init__(self, stream: TextIO, closing_line: ClosingLine) -> None:
        """Show nothing yet.

        Args:
            stream: a terminal.
            closing_line: Progress, Pace → the plain line that stays when it ends.
        """
        self._stream = stream
        self._closing_line = closing_line
        console = Console(file=stream, force_terminal=True)
        coloured = console.color_system is not None and not console.no_color
        self._label = ("\x1b[36m", "\x1b[0m") if coloured else ("", "")
        self._lock = threading.RLock()
        self._board = Board(time.monotonic(), unicode="utf" in (stream.encoding or "").lower())
        self._widths: list[int] = []  # of the lines on the screen
        self._drawn = -EVERY_S
        self._gone = False
        self._pause = EVERY_S
        self._last: Progress | str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="clock of the live view", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        with self._lock:
            self._frame("" if self._last is None else f"{self._said(self._last)}\n")

    def generation(self, progress: Progress) -> None:
        """Note it, and draw where the last frame is a while ago."""
        now = time.monotonic()
        with self._lock:
            self._board.hear(progress, now)
            self._last = progress if len(progress.batch) < LARGE_BATCH else self._said(progress)
            if now - self._drawn >= self._pause:
                self._board.look(progress)
                self._frame()
                self._pause = min(max(EVERY_S, (time.monotonic() - now) / SHARE), CLOCK_EVERY_S)

    def _said(self, last: Progress | str) -> str:
        """The plain line about a generation."""
        return last if isinstance(last, str) else self._closing_line(last, self._board.pace)

    def message(self, text: str) -> None:
        """Lines above the frame."""
        with self._lock:
            self._frame(plain(text).rstrip("\n") + "\n")

    def _tick(self) -> None:
        """Clocks go on while a generation takes long."""
        while not self._ended.wait(CLOCK_EVERY_S):
            with self._lock:
                if not self._ended.is_set() and time.monotonic() - self._drawn >= CLOCK_EVERY_S:
                    self._frame()

    def _frame(self, above: str = "") -> None:
        columns, height = self._size()
        lines = [] if self._ended.is_set() else self._board.frame(time.monotonic(), columns - 1, height - 2)
        self._draw(lines, above)
        self._drawn = time.monotonic()

    def _draw(self, lines: list[tuple[str, str]], above: str) -> None:
        """Put lines in the place of those on the screen, in one write."""
        if self._gone:
            return
        columns, _ = self._size()
        # A terminal that was made narrower has broken the lines that it shows.
        up = sum(max(1, -(-width // max(columns, 1))) for width in self._widths)
        colour, reset = self._label
        drawn = "".join(f"{colour}{label}{reset}{text}\x1b[K\n" for label, text in lines)
        start = f"\r\x1b[{up}A" if up else "\r"
        self._widths = [cell_len(label) + cell_len(text) for label, text in lines]
        said = above.replace("\n", "\x1b[K\n")
        try:
            self._stream.write(f"{start}{said}{drawn}\x1b[J")
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the run is not
            self._gone = True

    def _size(self) -> tuple[int, int]:
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return (found.columns or 80), (found.lines or 24)


class Beside:
    """A stream whose lines go above the frame; all else is asked of the stream itself."""

    def __init__(self, stream: TextIO, live: Live) -> None:
        self._stream = stream
        self._live = live
        self._owner = os.getpid()
        self._line = ""

    def write(self, text: str) -> int:
        """Whole lines, without their colours; what does not end in a line break waits for it."""
        if os.getpid() != self._owner:  # a forked child, which has no part in the view
            return self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) > LONGEST_LINE:
            lines, self._line = [*lines, self._line], ""
        if lines:
            self._live.message("\n".join(Text.from_ansi(line).plain for line in lines))
        return len(text)

    def flush(self) -> None:
        """Nothing: a line is shown when it is whole."""

    def rest(self) -> str:
        """What still waits for its line break."""
        return self._line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def live(closing_line: ClosingLine) -> Iterator[Live]:
    """The live view on stderr while a run goes; a terminal that hangs up ends the view and not the run."""
    stream, out = sys.stderr, sys.stdout
    view = Live(stream, closing_line)
    taken = [Beside(stream, view)]
    if out is not None and out.isatty():
        taken.append(Beside(out, view))
    with _no_hangup(), view:
        sys.stderr = taken[0]
        if len(taken) > 1:
            sys.stdout = taken[1]
        try:
            yield view
        finally:
            sys.stderr, sys.stdout = stream, out
            for one in taken:
                if one.rest():
                    view.message(one.rest())


@contextlib.contextmanager
def _no_hangup() -> Iterator[None]:
    """Ignore SIGHUP, as nohup does: the run directory holds all that the terminal would have shown."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)
