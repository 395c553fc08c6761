"""Progress and tables on a terminal, with rich; plain lines where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError
from evoquant.report.pace import Pace, reused
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evoquant.campaign.observer import Observer
    from evoquant.campaign.observer import Progress as Step

PLAIN_EVERY_S = 5.0


MODES = ("live", "bar", "plain", "json", "none")


@contextlib.contextmanager
def observer(mode: str | None = None) -> Iterator[Observer]:
    """Who tells on stderr how a run goes.

    Args:
        mode: one of `MODES`; by default `live` on a terminal that can move its cursor, else `plain`. On anything that
            is no such terminal `live` and `bar` are `plain` lines.

    Raises:
        InputError: no such mode.
    """
    if mode is not None and mode not in MODES:
        raise InputError(f"--progress {mode}: choose {', '.join(MODES[:-1])} or {MODES[-1]}.")
    if mode in ("json", "none"):
        yield Json() if mode == "json" else Nothing()
    elif mode == "plain" or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield Plain()
    elif mode == "bar":
        with Bar() as bar:
            yield bar
    else:
        from evoquant.report.screen import live

        with live(_line) as view:
            yield view


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
    store = f", {step.store_hits} from the store" if step.store_hits else ""
    return best, f"{reused(step):.0%} reused{store}"


def _line(step: Step, pace: Pace) -> str:
    """A generation in one line."""
    best, reuse = _figures(step)
    rate = "" if pace.rate is None else f"{pace.rate:,.0f} evaluations/s, "
    return f"generation {step.generation + 1}/{step.generations}: {best}  {rate}{reuse}"


class Nothing:
    """Says nothing; errors come from the command line itself."""

    def generation(self, progress: Step) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


class Plain:
    """A line every few seconds on stderr."""

    def __init__(self) -> None:
        self._last = 0.0
        self._pace = Pace()

    def generation(self, progress: Step) -> None:
        """A line now and then, and for the last generation."""
        now = time.monotonic()
        self._pace.hear(progress, now)
        last = progress.generation + 1 == progress.generations
        if now - self._last < PLAIN_EVERY_S and not last:
            return
        self._last = now
        self.message(_line(progress, self._pace))

    def message(self, text: str) -> None:
        """One line; that nobody can read it any more does not end a run."""
        with contextlib.suppress(OSError):
            sys.stderr.write(plain(text) + "\n")
            sys.stderr.flush()


class Json:
    """A JSON object on a line of stderr for each generation and message, for programs.

    Keys stay; more may come. A number that is not known is null.

        {"event": "generation", "generation": 0, "generations": 120, "replayed": false, "seconds": 0.01,
         "elapsed_s": 0.5, "remaining_s": 3.2, "asked": 100, "distinct": 98, "passes": null, "store_hits": 0,
         "failures": 0, "since_improvement": 0, "executor": "local", "workers": 1,
         "best": {"id": 17, "fitness": 3.2, "retention": [0.97], "compression": [2.1], "text": "else FP16"},
         "population": {"min": 0.01, "median": 0.08, "mean": 0.5, "max": 3.2}}
        {"event": "message", "text": "search ended: 120 generations"}

    `generation` counts from 0, `best` is the best so far, `population` the fitness of this generation. Retention and
    compression are lists, one figure a model. Errors that end the command stay text that begins with `evoquant: `.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._pace = Pace()

    def generation(self, progress: Step) -> None:
        """One line."""
        now = time.monotonic()
        self._pace.hear(progress, now)
        record, executor = progress.record, progress.campaign.executor
        champion, left = record["champion"], self._pace.left(now)
        kept = ("id", "fitness", "retention", "compression", "text")
        self._write(
            {
                "event": "generation",
                "generation": progress.generation,
                "generations": progress.generations,
                "replayed": progress.replayed,
                "seconds": round(progress.seconds, 6),
                "elapsed_s": round(now - self._began, 3),
                "remaining_s": None if left is None else round(left, 1),
                "asked": progress.asked,
                "distinct": progress.distinct,
                "passes": progress.passes if progress.campaign.measured else None,
                "store_hits": progress.store_hits,
                "failures": len(record["failures"]),
                "since_improvement": progress.since_improvement,
                "executor": executor.name,
                "workers": executor.workers,
                "best": None if champion is None else {key: champion[key] for key in kept},
                "population": record["summary"]["fitness"],
            }
        )

    def message(self, text: str) -> None:
        """One line."""
        self._write({"event": "message", "text": text})

    def _write(self, record: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(json.dumps(record, allow_nan=False) + "\n")  # ASCII: nothing in it steers a terminal
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
        self._pace = Pace()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()

    def generation(self, progress: Step) -> None:
        """Advance the bar."""
        best, reuse = _figures(progress)
        self._pace.hear(progress, time.monotonic())
        rate = "" if self._pace.rate is None else f"{self._pace.rate:,.0f}/s  "
        figures = f"{best}  {rate}{reuse}"
        if self._task is None:
            self._task = self._progress.add_task("generation", total=progress.generations, figures=figures)
        with contextlib.suppress(OSError):  # the terminal is gone; the run is not
            self._progress.update(self._task, completed=progress.generation + 1, figures=figures)

    def message(self, text: str) -> None:
        """One line above the bar."""
        from rich.text import Text

        with contextlib.suppress(OSError):
            self._console.print(Text(plain(text)))
