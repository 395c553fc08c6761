"""The page's figures for plotly, as plain data, each with what it says in words and its numbers as tables.

Names are somebody's: what plotly would read as markup is escaped here, the page escapes the rest.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.palette import CHAMPION, CLIFF, QUIET, series_colour
from evoquant.report.table import Table
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evoquant.report.series import Breakthrough, Curve, Goal, RunSeries

MOST_GENERATIONS = 1500  # of a curve that are drawn
MOST_BLOCKS = 250  # points of the population's lines, which zigzag
MOST_ROWS = 200  # of a table of a figure's numbers
APART = 0.03  # of the figure's width, between numbers
NUMBERED = 8  # breakthroughs with a number in the figure and a line below it
LONGEST = 160  # characters of a name or a change in what one hovers over
INK, GRID = "#1f2328", "#e3e5e8"


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    Attributes:
        name: for ids.
        kind: of chart, for whoever does not see it.
        title: its heading.
        finding: what it shows, in words.
        plot: `data` and `layout` for plotly.
        notes: what has to be said below it.
        listed: a numbered list below it: what the numbers in the figure are.
        tables: its numbers.
        slider: what the page's script needs for the slider; None for no slider.
        views: named ranges of the axes, the first is shown.
    """

    name: str
    kind: str
    title: str
    finding: str
    plot: dict[str, Any]
    notes: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    slider: dict[str, Any] | None = None
    views: dict[str, dict[str, Any]] = field(default_factory=dict)


def label(name: str, longest: int = LONGEST) -> str:
    """A name for plotly, which reads a little HTML: escaped, and cut where it is very long."""
    shown = plain(" ".join(name.split()))
    shown = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    return html.escape(shown, quote=False)


def numbers(values: Iterable[float], digits: int = 6) -> list[float | None]:
    """For JSON: rounded to so many significant digits, None for NaN."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in map(float, values)]


def layout(x: str, y: str, height: int = 380, **more: Any) -> dict[str, Any]:
    """What all figures look like."""
    axis = {"gridcolor": GRID, "linecolor": QUIET, "zeroline": False, "automargin": True, "ticks": "outside"}
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 13, "color": INK},
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"color": INK}},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "font": {"size": 12}},
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
        **more,
    }


def limit_line(axis: str, value: float, said: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A dashed line across the figure, and its label, as a shape and an annotation."""
    across = "x" if axis == "y" else "y"
    style = {"color": CLIFF, "width": 1.5, "dash": "dash"}
    shape = {
        "type": "line",
        f"{across}ref": f"{across} domain",
        f"{axis}ref": axis,
        f"{across}0": 0,
        f"{across}1": 1,
        f"{axis}0": value,
        f"{axis}1": value,
        "line": style,
    }
    note = {
        f"{across}ref": f"{across} domain",
        f"{axis}ref": axis,
        f"{across}": 0.99 if axis == "y" else 0.02,
        f"{axis}": value,
        "text": said,
        "showarrow": False,
        "xanchor": "right" if axis == "y" else "left",
        "yanchor": "bottom",
        "font": {"color": CLIFF, "size": 12},
        "bgcolor": "rgba(255,255,255,0.7)",
    }
    return shape, note


def evenly(count: int, most: int) -> list[int]:
    """Indices of at most so many of `count`, the first and the last among them."""
    if count <= most:
        return list(range(count))
    kept: list[int] = np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
    return kept


def goal_words(goal: Goal, *, alone: bool = False) -> str:
    """What the objective asks for, in a few words; empty where it has no limit. `alone`: the floor without others."""
    if goal.floor is not None:
        others = f", {goal.others}" if goal.others and not alone else ""
        return f"{goal.name} at {100.0 * goal.floor:.4g}% retention{others}"
    if goal.effective_bits is not None:
        return f"budget of {goal.budget_words()}"
    return ""


def met_words(goal: Goal, met: bool) -> str:
    """What an allocation does that meets the goal, or misses it: `stays above the cliff at 95% retention`."""
    if goal.name == "cliff":
        return f"{'stays above' if met else 'IS BELOW'} the {goal_words(goal)}"
    return f"{'keeps' if met else 'MISSES'} the {goal_words(goal, alone=True)}"


def fitness_figure(series: RunSeries) -> Figure:
    """Fitness by generation: the best so far, the population, the cliff, and the breakthroughs with numbers."""
    curve, goal = series.curve, series.goal
    shown = sorted({*evenly(len(curve), MOST_GENERATIONS), *(step.index for step in curve.breakthroughs)})
    numbered = _numbered(curve)
    x = curve.generation[shown].tolist()
    asked = curve.asked[shown].tolist()
    traces = _population(curve)
    traces.append(
        {
            **_line(x, numbers(curve.champion[shown]), "best so far", CHAMPION, 2.5),
            "line": {"color": CHAMPION, "width": 2.5, "shape": "hv"},
            "customdata": asked,
            "hovertemplate": "generation %{x}: %{y:.4f}<br>%{customdata:,} candidates asked<extra>best so far</extra>",
        }
    )
    traces.append(_breakthroughs(curve, numbered))
    plot = layout("generation", label(curve.label))
    span = max(float(curve.generation[-1] - curve.generation[0]), 1.0)
    plot["xaxis"] |= {"range": [float(curve.generation[0]) - 0.02 * span, float(curve.generation[-1]) + 0.02 * span]}
    if span <= 10:
        plot["xaxis"] |= {"dtick": 1}
    if goal.fitness is not None:
        shape, note = limit_line("y", goal.fitness, goal_words(goal))
        plot |= {"shapes": [shape], "annotations": [note]}
    notes = []
    if goal.fitness is not None:
        notes.append(f"What misses the {goal_words(goal)} has no more fitness than the dashed line.")
    if len(shown) < len(curve):
        notes.append(
            f"{len(shown):,} of {len(curve):,} generations of the best so far are drawn, evenly spaced, and every "
            f"breakthrough."
        )
    if (length := block_length(curve)) > 1:
        notes.append(f"The population's lines: medians of {length} generations at a time.")
    if len(numbered) < len(curve.breakthroughs):
        notes.append(
            f"Of {len(curve.breakthroughs)} gains {len(numbered)} have numbers, the largest of each time; the tables "
            f"below have more."
        )
    if failures := int(curve.failures.sum()):
        notes.append(f"{failures:,} candidates failed; they have no fitness.")
    return Figure(
        "fitness",
        "Line chart",
        "Fitness by generation",
        _fitness_finding(series),
        {"data": traces, "layout": plot},
        tuple(notes),
        tuple(_step_words(step) for step in numbered),
        (_steps_table(curve), _curve_table(curve)),
    )


def _population(curve: Curve) -> list[dict[str, Any]]:
    """The quartiles as a band, the median, and the best of each generation; of a long run by blocks of generations."""
    traces: list[dict[str, Any]] = []
    colour = series_colour(0)
    x, (lower, upper, median, best) = blocks_of(curve)
    if any(value is not None for value in lower):
        edges = {"mode": "lines", "line": {"width": 0, "color": colour}, "hoverinfo": "skip", "type": "scatter"}
        traces += [
            {**edges, "x": x, "y": lower, "showlegend": False},
            {
                **edges,
                "x": x,
                "y": upper,
                "fill": "tonexty",
                "fillcolor": "rgba(0,114,178,0.18)",
                "name": "middle half of the population",
            },
        ]
    traces.append({**_line(x, median, "median", colour, 1.2), "hovertemplate": "median %{y:.4f}"})
    dotted: dict[str, Any] = {**_line(x, best, "best of the generation", QUIET, 1.2), "hovertemplate": "best %{y:.4f}"}
    dotted["line"] = {"color": QUIET, "width": 1.2, "dash": "dot"}
    return [*traces, dotted]


def block_length(curve: Curve) -> int:
    """So many generations stand for one point of the population's lines."""
    return -(-len(curve) // MOST_BLOCKS)


def blocks_of(curve: Curve) -> tuple[list[int], list[list[float | None]]]:
    """Generation, lower and upper quartile, median and best: of each block of generations the medians of them."""
    length = block_length(curve)
    columns = (curve.lower, curve.upper, curve.median, curve.best)
    made: list[list[float]] = [[] for _ in columns]
    x = []
    for start in range(0, len(curve), length):
        block = slice(start, start + length)
        x.append(int(np.median(curve.generation[block])))
        for values, column in zip(made, columns, strict=True):
            known = column[block][np.isfinite(column[block])]
            values.append(float(np.median(known)) if len(known) else math.nan)
    return x, [numbers(values) for values in made]


def _line(x: Sequence[float], y: Sequence[float | None], name: str, colour: str, width: float) -> dict[str, Any]:
    one = {"marker": {"size": 7, "color": colour}, "mode": "lines+markers"} if len(x) == 1 else {"mode": "lines"}
    return {"type": "scatter", "x": x, "y": y, "name": name, "line": {"color": colour, "width": width}, **one}


def _breakthroughs(curve: Curve, numbered: Sequence[Breakthrough]) -> dict[str, Any]:
    steps = curve.breakthroughs
    place = {step.index: str(number) for number, step in enumerate(numbered, 1)}
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "breakthrough",
        "x": [step.generation for step in steps],
        "y": numbers(step.after for step in steps),
        "text": [place.get(step.index, "") for step in steps],
        "textposition": _positions(steps, place, float(len(curve))),
        "textfont": {"size": 12, "color": INK},
        "cliponaxis": False,
        "marker": {
            "color": CHAMPION,
            "size": [9 if step.index in place else 5 for step in steps],
            "symbol": ["star" if step.crosses else "circle" for step in steps],
            "line": {"color": "#ffffff", "width": 1},
        },
        "customdata": [
            [
                f"{step.gain:+.4f}",
                label(step.by),
                label(step.change),
                f"{step.retention:.2%}",
                f"{step.compression:.3f}x",
            ]
            for step in steps
        ],
        "hovertemplate": "generation %{x}: fitness %{y:.4f} (%{customdata[0]})<br>retention %{customdata[3]}, "
        "%{customdata[4]}<br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    }


def _numbered(curve: Curve) -> list[Breakthrough]:
    """The breakthroughs that get a number: all or, of many, the largest gains that do not lie on each other."""
    steps = curve.breakthroughs
    if len(steps) <= NUMBERED:
        return list(steps)
    chosen: list[Breakthrough] = []
    for step in sorted(steps, key=lambda one: -one.gain):
        if all(abs(step.index - other.index) >= APART * len(curve) for other in chosen):
            chosen.append(step)
    return sorted(chosen[:NUMBERED], key=lambda one: one.index)


def _positions(steps: Sequence[Breakthrough], place: Mapping[int, str], span: float) -> list[str]:
    """Above the point; where the number before is near, below and to the right: none covers another."""
    positions: list[str] = []
    last = -span
    for step in steps:
        crowded = step.index in place and step.generation - last < 0.03 * span and positions[-1:] != ["bottom right"]
        positions.append("bottom right" if crowded else "top center")
        last = step.generation if step.index in place else last
    return positions


def _step_words(step: Breakthrough) -> str:
    crossing = " It is the first that keeps the floor." if step.crosses else ""
    gain = "" if step.before is None else f" ({step.gain:+.4f})"
    return (
        f"Generation {step.generation}: fitness {step.after:.4f}{gain}, retention {step.retention:.2%} at "
        f"{step.compression:.3f}x, by {step.by}: {step.change}.{crossing}"
    )


def _fitness_finding(series: RunSeries) -> str:
    curve = series.curve
    known = np.flatnonzero(np.isfinite(curve.champion))
    if not len(known):
        return f"In {len(curve)} generations no candidate has succeeded."
    first, last = known[0], known[-1]
    if not any(step.before is not None for step in curve.breakthroughs):
        said = f"The best {curve.label} is {curve.champion[last]:.4f} from generation {curve.generation[first]} on."
        return said + _goal_finding(series)
    said = (
        f"The best {curve.label} rises from {curve.champion[first]:.4f} in generation "
        f"{curve.generation[first]} to {curve.champion[last]:.4f} in generation {curve.generation[last]}, in "
        f"{_counted(len(curve.breakthroughs), 'step')}."
    )
    best = max((step for step in curve.breakthroughs if step.before is not None), key=lambda step: step.gain)
    said += f" The largest gain is {best.gain:+.4f}, in generation {best.generation}, by {best.by}."
    return said + _goal_finding(series)


def _goal_finding(series: RunSeries) -> str:
    """From when on the goal is met; nothing where it has no floor of retention."""
    crossing = next((step for step in series.curve.steps if step.crosses), None)
    if crossing is not None:
        return f" From generation {crossing.generation} on it {met_words(series.goal, True)}."
    return f" It never {met_words(series.goal, True)}." if series.goal.floor is not None else ""


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _steps_table(curve: Curve) -> Table:
    steps = curve.steps
    kept = evenly(len(steps), MOST_ROWS)
    rows = [
        (
            str(step.generation),
            f"{step.after:.6f}",
            "" if step.before is None else f"{step.gain:+.6f}",
            f"{step.retention:.2%}",
            f"{step.compression:.4f}x",
            step.by,
            step.change,
            "keeps the floor" if step.crosses else "",
        )
        for step in (steps[i] for i in kept)
    ]
    columns = ("Generation", "Fitness", "Gain", "Retention", "Compression", "By", "What changed", "")
    notes = ("Without a gain it is simpler or smaller.",)
    if len(kept) < len(steps):
        notes = (f"{len(kept)} of {len(steps):,} changes, evenly spaced. {notes[0]}",)
    return Table("Every change of the champion", columns, rows, notes, frozenset(range(5)))


def _curve_table(curve: Curve) -> Table:
    kept = evenly(len(curve), MOST_ROWS)
    columns: tuple[str, ...] = ("Generation", "Candidates asked", "Distinct")
    columns += ("Passes",) if curve.passes is not None else ()
    columns += ("Best so far", "Best of the generation", "Median", "Lower quartile", "Upper quartile", "Failed")
    rows = []
    for i in kept:
        cells = [str(curve.generation[i]), f"{curve.asked[i]:,}", f"{curve.distinct[i]:,}"]
        cells += [f"{curve.passes[i]:g}"] if curve.passes is not None else []
        for values in (curve.champion, curve.best, curve.median, curve.lower, curve.upper):
            cells.append(f"{values[i]:.6f}" if math.isfinite(values[i]) else "")
        rows.append((*cells, str(curve.failures[i])))
    notes = (f"{len(kept)} of {len(curve):,} generations, evenly spaced.",) if len(kept) < len(curve) else ()
    return Table("Fitness by generation", columns, rows, notes, frozenset(range(len(columns))))
