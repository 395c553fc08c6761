"""What the live view of a run shows, as plain rows: no terminal here.

Board.hear(step)      after every generation: a few numbers are noted
Board.look(step)      now and then: what takes looking through the population
Board.frame(…)        lines of text, cut to a width and a height
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len, set_cell_size

from evoquant.report.pace import Pace, reused
from evoquant.report.terminal import plain
from evoquant.search.base import OK, Archiving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.campaign.build import Campaign
    from evoquant.campaign.observer import Progress

LOOKED_AT = 2000  # candidates of a large population whose genomes are compared
CHEAP_UNITS = 2000  # of all models together: their optimum is certified in a moment, and the report needs it anyway
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
LABEL = 11  # columns
NARROWEST = 20


@dataclass(frozen=True)
class Row:
    """A label and what stands beside it: chunks that are kept whole where they fit. Less `weight` goes first."""

    label: str
    chunks: tuple[str, ...]
    weight: int
    cut: bool = False  # one line that is cut at its end, instead of several


class Board:
    """All that has been heard of a run."""

    def __init__(self, began: float, *, unicode: bool = True) -> None:
        """Start at the time `began` in seconds."""
        self.pace = Pace()
        self._began = began
        self._blocks = BLOCKS if unicode else ASCII_BLOCKS
        self._step: _Facts | None = None
        self._best: list[float] = []
        self._median: list[float] = []
        self._failed = 0
        self._first = 0
        self._champion: dict[str, Any] | None = None
        self._error: float | None = None
        self._breakthrough: tuple[str, ...] = ()
        self._looked: dict[str, tuple[str, ...]] = {}
        self._optima: list[float] | None = None

    def hear(self, step: Progress, now: float) -> None:
        """Note a generation."""
        if self._step is None:
            self._first = step.generation
        self.pace.hear(step, now)
        self._step = _Facts.of(step)
        summary = step.record["summary"]["fitness"]
        champion = step.record["champion"]
        self._failed += len(step.record["failures"])
        self._best.append(math.nan if champion is None else champion["fitness"])
        self._median.append(math.nan if summary is None else summary["median"])
        if champion is not None and (self._champion is None or champion["id"] != self._champion["id"]):
            self._crown(step, champion)

    def _crown(self, step: Progress, champion: dict[str, Any]) -> None:
        """A new champion, and what it came from."""
        before, self._champion, self._error = self._champion, champion, None
        row = champion["id"] - step.batch.first_id
        errors = step.evaluations.standard_error
        if errors is not None and 0 <= row < len(errors) and math.isfinite(errors[row]):
            self._error = float(errors[row])
        if before is not None and champion["fitness"] > before["fitness"]:
            fathers = " and ".join(f"#{parent}" for parent in champion["parents"])
            change = f"{before['fitness']:.4f} → {champion['fitness']:.4f}"
            how = f"by {plain(str(champion['operator']))}" + (f" of {fathers}" if fathers else "")
            self._breakthrough = (f"generation {step.generation + 1}", change, how)

    def look(self, step: Progress) -> None:
        """What takes looking through the population; only between a tell and the next ask."""
        fitness = step.evaluations.fitness[step.evaluations.status == OK]
        if len(fitness):
            low, middle, high = np.quantile(fitness, (0.25, 0.5, 0.75)).tolist()
            self._looked["population"] = (f"median {middle:.4f}", f"quartiles {low:.4f} to {high:.4f}")
        share, few = distinct_share(step)
        found = [f"{share:.0%} distinct" + (f" (of {LOOKED_AT:,})" if few else "")]
        if isinstance(step.campaign.search, Archiving):
            found.append(f"archive {len(step.campaign.search.archive()):,}")
        self._looked["diversity"] = tuple(found)
        if self._optima is None:
            self._optima = cheap_optima(step.campaign)

    def rows(self, now: float, width: int) -> list[Row]:
        """What there is to show, for so many columns."""
        step = self._step
        if step is None:
            return [Row("run", (f"preparing  {_clock(now - self._began)}",), 9)]
        rows = [
            Row("run", (plain(step.name), f"seed {step.seed}", f"{plain(step.executor)}, {_count(step.workers)}"), 5),
            Row("generation", self._time(step, now), 9),
            Row("budget", step.budget(now - self._began), 6),
            Row("best", self._champion_figures(), 10),
        ]
        room = max(width - LABEL - 2, 8)
        rows += [Row("", (line,), 4) for line in self._curves(room)]
        rows.append(Row("population", self._looked.get("population", ()), 7))
        rows.append(Row("diversity", self._looked.get("diversity", ()), 3))
        rows.append(Row("speed", self._speed(step), 3))
        if self._breakthrough:
            rows.append(Row("better", self._breakthrough, 4))
        if self._champion is not None:
            rows.append(Row("champion", (plain(" ".join(self._champion["text"].split())),), 5, cut=True))
        return [row for row in rows if row.chunks]

    def _time(self, step: _Facts, now: float) -> tuple[str, ...]:
        chunks = [f"{step.generation + 1:,}/{step.generations:,}", f"{_clock(now - self._began)} elapsed"]
        left = self.pace.left(now)
        if left is not None:
            chunks.append(f"at most {_clock(left)} left")
        return tuple(chunks)

    def _champion_figures(self) -> tuple[str, ...]:
        best = self._champion
        if best is None:
            return ("no candidate yet",)
        on = best.get("on", 0)
        retention = f"retention {best['retention'][on]:.2%}"
        if self._error:
            retention += f" ± {1.96 * self._error:.2%}"
        chunks = [f"fitness {best['fitness']:.4f}", retention, f"{best['compression'][on]:.3f}x"]
        optima = self._optima or []
        if on < len(optima) and (len(optima) == 1 or "on" in best) and optima[on] > 0 and best["fitness"] > 0:
            chunks.append(f"{best['fitness'] / optima[on]:.2%} of optimum")
        if len(best["retention"]) > 1 and "on" not in best:
            chunks.append(f"(the first of {len(best['retention'])} models)")
        return tuple(chunks)

    def _curves(self, room: int) -> tuple[str, ...]:
        """Best and median of the generations so far, on one scale; none before there are two."""
        label = len("median ")
        both = [value for value in (*self._best, *self._median) if math.isfinite(value)]
        if len(self._best) < 2 or not both:
            return ()
        return tuple(
            f"{name:{label}}{sparkline(values, min(both), max(both), room - label, self._blocks)}"
            for name, values in (("best", self._best), ("median", self._median))
        )

    def _speed(self, step: _Facts) -> tuple[str, ...]:
        rate = [] if self.pace.rate is None else [f"{self.pace.rate:,.0f} candidates/s"]
        store = [f"{step.store_hits:,} from the store"] if step.store_hits else []
        since = f" since generation {self._first + 1}" if self._first else ""
        return (*rate, f"{step.reused:.0%} reused", *store, f"{self._failed:,} failed{since}")

    def frame(self, now: float, width: int, height: int) -> list[tuple[str, str]]:
        """Pairs of label and text, each as wide as `width` columns at most, `height` at most."""
        rows = self.rows(now, width)
        lines = [_lines(row, width) for row in rows]
        while sum(map(len, lines)) > height and len(lines) > 1:
            least = min(range(len(rows)), key=lambda i: (rows[i].weight, i))
            del rows[least], lines[least]
        return [line for group in lines for line in group][: max(height, 1)]


@dataclass(frozen=True)
class _Facts:
    """What is kept of a generation: numbers and names, none of its arrays."""

    name: str
    seed: int
    executor: str
    workers: int
    generation: int
    generations: int
    asked: int
    passes: float
    reused: float
    store_hits: int
    idle: int
    limits: tuple[int | None, float | None, int | None, float | None, float | None]
    measured: bool

    @classmethod
    def of(cls, step: Progress) -> _Facts:
        config, executor = step.campaign.config, step.campaign.executor
        stop = config.stop
        return cls(
            config.name,
            config.seed,
            executor.name,
            executor.workers,
            step.generation,
            step.generations,
            step.asked,
            step.passes,
            reused(step),
            step.store_hits,
            step.since_improvement,
            (stop.evaluations, stop.passes, stop.stagnation, stop.wall_time_s, stop.target),
            step.campaign.measured,
        )

    def budget(self, elapsed: float) -> tuple[str, ...]:
        """What has been spent, and of how much, where there is a limit."""
        evaluations, passes, stagnation, wall_time, target = self.limits
        chunks = [f"{self.asked:,}" + (f" of {evaluations:,}" if evaluations else "") + " evaluations"]
        if self.measured:
            chunks.append(f"{self.passes:,.1f}" + (f" of {passes:,g}" if passes else "") + " passes over the data")
        if wall_time is not None:
            chunks.append(f"{_clock(max(wall_time - elapsed, 0.0))} of wall time left")
        if stagnation is not None:
            chunks.append(f"{self.idle} of {stagnation} generations without a better one")
        if target is not None:
            chunks.append(f"until fitness {target:g}")
        return tuple(chunks)


def distinct_share(step: Progress) -> tuple[float, bool]:
    """Share of distinct genomes in a generation, and whether only the first of a large one were compared."""
    batch = step.batch
    size = min(len(batch), LOOKED_AT)
    if not size:
        return 0.0, False
    if batch.genes is not None:
        some = np.ascontiguousarray(batch.genes[:size])
        distinct = len({row.tobytes() for row in some})
    else:
        distinct = len(set(batch.genomes[:size]))
    return distinct / size, size < len(batch)


def cheap_optima(campaign: Campaign) -> list[float]:
    """Certified best fitness of each model that is searched, where that is known soon; else none.

    Of several models it says something only where each candidate is judged on one of them.
    """
    split = "replay" if campaign.space is None else "train"
    problems = campaign.problems.get(split, ())
    if campaign.config.relative_to_optimum and len(problems) == 1:
        return [1.0]
    if (len(problems) > 1 and campaign.space is not None) or sum(len(p.types) for p in problems) > CHEAP_UNITS:
        return []
    optima = campaign.optimum(split) if problems else None
    return [] if optima is None else [float(value) for value in optima]


def sparkline(values: Sequence[float], least: float, most: float, width: int, blocks: str = BLOCKS) -> str:
    """One character a value, `width` at most, evenly picked with the last; a blank where there is no number."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / max(width - 1, 1))] for i in range(width)]
    span = most - least

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        return blocks[round((value - least) / span * (len(blocks) - 1)) if span > 0 else 0]

    return "".join(map(block, values))


def _lines(row: Row, width: int) -> list[tuple[str, str]]:
    """A row on as many lines as it needs: label, then chunks, below each other where they do not fit."""
    margin = LABEL if row.label or width > 2 * LABEL else 0
    if width < NARROWEST:
        margin = 0
    room = max(width - margin, 1)
    texts: list[str] = []
    for chunk in row.chunks:
        joined = f"{texts[-1]}  {chunk}" if texts else chunk
        if texts and cell_len(joined) <= room:
            texts[-1] = joined
        else:
            texts.append(chunk)
    if row.cut:
        texts = texts[:1]
    labels = [row.label, *[""] * (len(texts) - 1)]
    return [(label[:margin].ljust(margin), shortened(text, room)) for label, text in zip(labels, texts, strict=True)]


def shortened(text: str, width: int) -> str:
    """Text in at most so many columns of a terminal; three dots stand for what is left out."""
    text = text.expandtabs(1).replace("\n", " ")
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width) if width < 8 else set_cell_size(text, width - 3).rstrip() + "..."


def _count(workers: int) -> str:
    return f"{workers} worker{'s' if workers != 1 else ''}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
