"""Progress and tables on a terminal, with rich; plain lines where there is none."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from evoquant.report.on_stderr import JsonLines, Lines, RichBar, moves_its_cursor, require_mode
from evoquant.report.pace import Pace, reused

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
    require_mode(mode, MODES)
    if mode in ("json", "none"):
        yield Json() if mode == "json" else Nothing()
    elif mode == "plain" or not moves_its_cursor():
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


class Plain(Lines):
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


class Json(JsonLines):
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
        self.event(
            "generation",
            generation=progress.generation,
            generations=progress.generations,
            replayed=progress.replayed,
            seconds=round(progress.seconds, 6),
            elapsed_s=round(now - self._began, 3),
            remaining_s=None if left is None else round(left, 1),
            asked=progress.asked,
            distinct=progress.distinct,
            passes=progress.passes if progress.campaign.measured else None,
            store_hits=progress.store_hits,
            failures=len(record["failures"]),
            since_improvement=progress.since_improvement,
            executor=executor.name,
            workers=executor.workers,
            best=None if champion is None else {key: champion[key] for key in kept},
            population=record["summary"]["fitness"],
        )


class Bar(RichBar):
    """A rich progress bar on stderr."""

    def __init__(self) -> None:
        super().__init__("generation", 20, left=True)
        self._pace = Pace()

    def generation(self, progress: Step) -> None:
        """Advance the bar."""
        best, reuse = _figures(progress)
        self._pace.hear(progress, time.monotonic())
        rate = "" if self._pace.rate is None else f"{self._pace.rate:,.0f}/s  "
        self._show(progress.generation + 1, progress.generations, f"{best}  {rate}{reuse}")
