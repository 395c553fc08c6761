"""Progress and tables on a terminal, with rich; plain lines where there is none."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evoquant.campaign.observer import Progress as Step
    from evoquant.report.table import Table

PLAIN_EVERY_S = 5.0
WIDE = 150  # columns assumed where output is no terminal, so that nothing is cut in a log


def draw(tables: Sequence[Table]) -> None:
    """Draw tables on stdout, with what belongs to each below it."""
    _draw(tables, sys.stdout)


def draw_messages(tables: Sequence[Table]) -> None:
    """The same on stderr, where stdout is for something else."""
    _draw(tables, sys.stderr)


def _draw(tables: Sequence[Table], stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, width=None if stream.isatty() else WIDE, highlight=False)
    for table in tables:
        console.print(Text(plain(table.title), style="bold"))
        drawn = RichTable(box=box.SIMPLE_HEAD)
        for i, column in enumerate(table.columns):
            drawn.add_column(Text(plain(column)), justify="right" if i in table.numeric else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(plain(cell)) for cell in row))
        console.print(drawn)
        for note in table.notes:
            console.print(Text(f"  {plain(note)}", style="dim"))
        if table.notes:
            console.print()


@contextlib.contextmanager
def observer() -> Iterator[Bar | Plain]:
    """A progress bar where stderr is a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield Plain()
        return
    with Bar() as bar:
        yield bar


def _figures(step: Step) -> tuple[str, str]:
    """Best fitness, retention, compression; and how much was evaluated and reused."""
    champion: dict[str, Any] | None = step.record["champion"]
    best = "no candidate yet"
    if champion is not None:
        i = champion.get("on", 0)
        best = (
            f"fitness {champion['fitness']:.4f}  retention {champion['retention'][i]:.2%}  "
            f"{champion['compression'][i]:.3f}x"
        )
    reused = max(1.0 - step.distinct / step.asked, 0.0) if step.asked else 0.0
    store = f", {step.store_hits} from the store" if step.store_hits else ""
    return best, f"{reused:.0%} reused{store}"


class Plain:
    """A line every few seconds on stderr."""

    def __init__(self) -> None:
        self._last = 0.0
        self._seconds = 0.0

    def generation(self, progress: Step) -> None:
        """A line now and then, and for the last generation."""
        now = time.monotonic()
        self._seconds += progress.seconds
        last = progress.generation + 1 == progress.generations
        if now - self._last < PLAIN_EVERY_S and not last:
            return
        self._last = now
        best, reuse = _figures(progress)
        rate = progress.asked / self._seconds
        self.message(
            f"generation {progress.generation + 1}/{progress.generations}: {best}  {rate:,.0f} evaluations/s, {reuse}"
        )

    def message(self, text: str) -> None:
        """One line; that nobody can read it any more does not end a run."""
        with contextlib.suppress(OSError):
            sys.stderr.write(plain(text) + "\n")
            sys.stderr.flush()


class Bar:
    """A rich progress bar on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: Any = None
        self._seconds = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()

    def generation(self, progress: Step) -> None:
        """Advance the bar."""
        best, reuse = _figures(progress)
        self._seconds += progress.seconds
        rate = progress.asked / self._seconds
        figures = f"{best}  {rate:,.0f}/s  {reuse}"
        if self._task is None:
            self._task = self._progress.add_task("generation", total=progress.generations, figures=figures)
        with contextlib.suppress(OSError):  # the terminal is gone; the run is not
            self._progress.update(self._task, completed=progress.generation + 1, figures=figures)

    def message(self, text: str) -> None:
        """One line above the bar."""
        from rich.text import Text

        with contextlib.suppress(OSError):
            self._console.print(Text(plain(text)))
