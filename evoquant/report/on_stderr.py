"""What all progress on stderr is made of: lines, JSON objects, a bar. That nobody can read it any more ends no run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


def require_mode(mode: str | None, modes: Sequence[str]) -> None:
    """Whether `--progress` names one of these, or nothing.

    Raises:
        InputError: it does not.
    """
    if mode is not None and mode not in modes:
        raise InputError(f"--progress {mode}: choose {', '.join(modes[:-1])} or {modes[-1]}.")


def moves_its_cursor() -> bool:
    """Whether stderr is a terminal that can draw over what it has drawn."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Lines:
    """Messages as lines of text."""

    def message(self, text: str) -> None:
        """One line."""
        _write(plain(text))


class JsonLines:
    """Messages, and events, as a JSON object on a line each."""

    def message(self, text: str) -> None:
        """One line."""
        self.event("message", text=text)

    def event(self, name: str, **record: Any) -> None:
        """One line."""
        _write(json.dumps({"event": name, **record}, allow_nan=False))  # ASCII: nothing in it steers a terminal


class RichBar:
    """A bar with figures behind it, and messages above it.

    Args:
        label: before the bar.
        width: of the bar, in characters.
        left: whether the time that is left stands at the end; else the time that has passed.
    """

    def __init__(self, label: str, width: int, *, left: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn(label),
            BarColumn(bar_width=width),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn() if left else TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()

    def message(self, text: str) -> None:
        """One line above the bar."""
        from rich.text import Text

        with contextlib.suppress(OSError):
            self._console.print(Text(plain(text)))

    def _show(self, completed: int, total: int | None, figures: str) -> None:
        """Advance the bar."""
        with contextlib.suppress(OSError):
            if self._task is None:
                self._task = self._progress.add_task("", total=total, figures=figures)
            self._progress.update(self._task, completed=completed, figures=figures)


def _write(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
