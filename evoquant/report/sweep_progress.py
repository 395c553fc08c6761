"""How a sweep goes, for people: a bar on a terminal; elsewhere messages alone."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from evoquant.errors import InputError
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = ("bar", "plain", "json", "none")


@dataclass(frozen=True)
class SweepProgress:
    """Where a sweep stands.

    Attributes:
        campaigns: in all.
        finished, failed, running, waiting: of them; the others wait for their first turn, or for their next.
        generations: that are journalled, of this session's campaigns.
        eta_s: seconds that are left at this pace; None before it is known.
    """

    campaigns: int
    finished: int
    failed: int
    running: int
    waiting: int
    generations: int
    eta_s: float | None


class SweepObserver(Protocol):
    """Anyone who wants to hear how a sweep goes."""

    def turn(self, progress: SweepProgress) -> None:
        """After each turn of a campaign."""
        ...

    def message(self, text: str) -> None:
        """Something worth knowing: where it goes on, a campaign that failed."""
        ...


class Nothing:
    """Says nothing."""

    def turn(self, progress: SweepProgress) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


class Messages:
    """Messages alone, on stderr."""

    def turn(self, progress: SweepProgress) -> None:
        """Nothing: a log wants no line for each of thousands of turns."""

    def message(self, text: str) -> None:
        """One line; that nobody can read it any more does not end a sweep."""
        with contextlib.suppress(OSError):
            sys.stderr.write(plain(text) + "\n")
            sys.stderr.flush()


class Json:
    """A JSON object on a line of stderr for each turn and message, for programs; a figure not known is null."""

    def turn(self, progress: SweepProgress) -> None:
        """One line."""
        self._write({"event": "turn", **asdict(progress)})

    def message(self, text: str) -> None:
        """One line."""
        self._write({"event": "message", "text": text})

    def _write(self, record: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(json.dumps(record, allow_nan=False) + "\n")
            sys.stderr.flush()


class Bar:
    """A rich progress bar on stderr: how many are done, running, failed, and how long it will take."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("campaigns"),
            BarColumn(bar_width=14),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()

    def turn(self, progress: SweepProgress) -> None:
        """Advance the bar."""
        figures = f"{progress.running} running, {progress.failed} failed"
        if progress.eta_s is not None:
            figures += f", {duration(progress.eta_s)} left"
        done = progress.finished + progress.failed
        with contextlib.suppress(OSError):  # the terminal is gone; the sweep is not
            if self._task is None:
                self._task = self._progress.add_task("", total=progress.campaigns, figures=figures)
            self._progress.update(self._task, completed=done, figures=figures)

    def message(self, text: str) -> None:
        """One line above the bar."""
        from rich.text import Text

        with contextlib.suppress(OSError):
            self._console.print(Text(plain(text)))


@contextlib.contextmanager
def sweep_observer(mode: str | None = None) -> Iterator[SweepObserver]:
    """Who tells on stderr how a sweep goes.

    Args:
        mode: one of `MODES`; by default `bar` on a terminal that can move its cursor, else `plain`: messages alone.

    Raises:
        InputError: no such mode.
    """
    if mode is not None and mode not in MODES:
        raise InputError(f"--progress {mode}: choose {', '.join(MODES[:-1])} or {MODES[-1]}.")
    if mode in ("json", "none"):
        yield Json() if mode == "json" else Nothing()
    elif mode == "plain" or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield Messages()
    else:
        with Bar() as bar:
            yield bar


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
