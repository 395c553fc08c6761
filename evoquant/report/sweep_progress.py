"""How a sweep goes, for people: a bar on a terminal; elsewhere messages alone."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from evoquant.report.on_stderr import JsonLines, Lines, RichBar, moves_its_cursor, require_mode

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


class Messages(Lines):
    """Messages alone, on stderr."""

    def turn(self, progress: SweepProgress) -> None:
        """Nothing: a log wants no line for each of thousands of turns."""


class Json(JsonLines):
    """A JSON object on a line of stderr for each turn and message, for programs; a figure not known is null."""

    def turn(self, progress: SweepProgress) -> None:
        """One line."""
        self.event("turn", **asdict(progress))


class Bar(RichBar):
    """A rich progress bar on stderr: how many are done, running, failed, and how long it will take."""

    def __init__(self) -> None:
        super().__init__("campaigns", 14, left=False)

    def turn(self, progress: SweepProgress) -> None:
        """Advance the bar."""
        figures = f"{progress.running} running, {progress.failed} failed"
        if progress.eta_s is not None:
            figures += f", {duration(progress.eta_s)} left"
        self._show(progress.finished + progress.failed, progress.campaigns, figures)


@contextlib.contextmanager
def sweep_observer(mode: str | None = None) -> Iterator[SweepObserver]:
    """Who tells on stderr how a sweep goes.

    Args:
        mode: one of `MODES`; by default `bar` on a terminal that can move its cursor, else `plain`: messages alone.

    Raises:
        InputError: no such mode.
    """
    require_mode(mode, MODES)
    if mode in ("json", "none"):
        yield Json() if mode == "json" else Nothing()
    elif mode == "plain" or not moves_its_cursor():
        yield Messages()
    else:
        with Bar() as bar:
            yield bar


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
