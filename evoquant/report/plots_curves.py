"""Fitness by generation, and the gate's comparison, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.palette import CHAMPION, CLIFF, QUIET, SERIES
from evoquant.report.plots_style import DARK, DOUBLE, SINGLE, SMALL, cut, legend_above, light_grid, new_figure, printed
from evoquant.report.series import bands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evoquant.report.series import Breakthrough, Curve, GateRow, Goal

MOST_NOTES = 4  # breakthroughs that the key below tells of
KEY_LENGTH = 69  # characters of its lines
NOTABLE = 0.01  # of the whole rise: what gains less is marked, without words
VERDICTS = {"ahead": (SERIES[0], "o"), "tie": (QUIET, "s"), "behind": (CLIFF, "D")}
SAID = {"ahead": "champion ahead", "tie": "a tie", "behind": "champion behind"}


def fitness_figure(curve: Curve, goal: Goal) -> Figure:
    """The champion's fitness by generation, over the population's median and quartiles; the cliff drawn."""
    figure = new_figure(SINGLE, 2.6)
    axes = figure.add_subplot()
    x, shown = curve.generation, bands(curve)
    handles: list[Any] = []
    known = ~np.isnan(shown.lower)
    if (known[1:] & known[:-1]).any():  # a band needs two neighbours
        limits = (shown.generation, shown.lower, shown.upper)
        handles.append(axes.fill_between(*limits, color=QUIET, alpha=0.28, linewidth=0, label="quartiles"))
    lone = "o" if len(curve) == 1 or np.isnan(shown.median).any() else None
    dashes: Any = {"color": QUIET, "linewidth": 0.9, "linestyle": "--", "marker": lone, "markersize": 3}
    handles += axes.plot(shown.generation, shown.median, label="median", **dashes)
    handles += axes.plot(x, curve.champion, color=CHAMPION, drawstyle="steps-post", linewidth=1.5, label="best so far")
    steps = curve.breakthroughs
    handles += axes.plot(
        [step.generation for step in steps],
        [step.after for step in steps],
        color=CHAMPION,
        marker="o",
        markersize=3.5,
        markerfacecolor="white",
        linestyle="none",
        label="breakthrough",
    )
    _limits(axes, curve, goal)
    if goal.fitness is not None:
        handles.append(axes.axhline(goal.fitness, color=CLIFF, linewidth=0.9, linestyle=":", label=_cliff(goal)))
    told = _told(steps)
    _number(axes, told)
    grouped = f" (the population in groups of {shown.each})" if shown.each > 1 else ""
    axes.set_xlabel(f"generation{grouped}")
    axes.set_ylabel(curve.label.replace(", ", ",\n"))
    light_grid(axes)
    legend_above(figure, handles)
    if told:
        figure.supxlabel(_key(told), x=0.01, ha="left", fontsize=SMALL)
    return figure


def _limits(axes: Axes, curve: Curve, goal: Goal) -> None:
    """The whole of what is drawn, and room for words above the curve."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(curve.generation[0]), float(curve.generation[-1])
    margin = 0.5 if low == high else 0.02 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    if low == high:
        axes.set_xticks([low])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    shown = bands(curve)
    drawn = np.concatenate([shown.lower, shown.median, shown.upper, curve.champion])
    drawn = np.append(drawn[~np.isnan(drawn)], [] if goal.fitness is None else goal.fitness)
    bottom, top = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 1.0)
    height = max(top - min(bottom, 0.0), 1e-12)
    axes.set_ylim(min(bottom, 0.0) - 0.03 * height, top + 0.1 * height)


def _cliff(goal: Goal) -> str:
    """What the line of the goal says: below it nobody keeps the limit."""
    if goal.others:
        return "below: not within all limits"
    if goal.floor is not None:
        return f"below: retention under {goal.floor:.6g}"
    return f"below: over {goal.budget_words('bits')}" if goal.effective_bits is not None else "below: over budget"


def _told(steps: Sequence[Breakthrough]) -> list[Breakthrough]:
    """The breakthroughs that gained most, in order; the first of all left out: it is no change."""
    if not steps:
        return []
    rise = steps[-1].after - steps[0].after
    notable = [step for step in steps[1:] if step.gain >= NOTABLE * rise]
    return sorted(sorted(notable, key=lambda step: -step.gain)[:MOST_NOTES], key=lambda step: step.generation)


def _number(axes: Axes, told: Sequence[Breakthrough]) -> None:
    """A number at each that the key below tells of; neighbours take turns above and below."""
    left, right = axes.get_xlim()
    below = False
    for number, step in enumerate(told, 1):
        close = number > 1 and step.generation - told[number - 2].generation < 0.05 * (right - left)
        below = not below if close else False
        offset = (4, -8) if below else (-1, 4)
        axes.annotate(str(number), (step.generation, step.after), offset, textcoords="offset points", fontsize=SMALL)


def _key(told: Sequence[Breakthrough]) -> str:
    lines = []
    for number, step in enumerate(told, 1):
        crosses = " over the cliff" if step.crosses else ""
        begin = f"{number}  gen {step.generation}: +{step.gain:.3g}{crosses}, {printed(step.operator, 16)}: "
        lines.append(begin + cut(step.change, KEY_LENGTH - len(begin)))
    return "\n".join(lines)


def gate_figure(rows: Sequence[GateRow]) -> Figure:
    """The champion's lead in fitness over each rival with its 95% interval; above 0 the champion is better."""
    from matplotlib.lines import Line2D

    figure = new_figure(DOUBLE, 0.75 + 0.19 * len(rows))
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=[3.2, 1.0])
    axes.axvline(0, color=DARK, linewidth=0.8)
    for place, row in enumerate(rows):
        if row.interval is None:
            axes.plot([row.lead], [place], marker="*", markersize=9, color=CHAMPION, markeredgecolor=DARK, mew=0.4)
            continue
        colour, marker = VERDICTS.get(row.verdict, (QUIET, "s"))
        axes.plot(row.interval, [place, place], color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot([row.lead], [place], color=colour, marker=marker, markersize=4)
    axes.set_yticks(range(len(rows)), [_named(row) for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.recommended else "normal")
    axes.set_ylim(len(rows) - 0.4, -1.4)
    axes.set_xlabel("champion's lead in fitness on the gate's data, with 95% intervals")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    light_grid(axes, "x")
    _figures_beside(beside, rows)
    said = [verdict for verdict in VERDICTS if any(row.verdict == verdict for row in rows)]
    handles = [
        Line2D([], [], color=VERDICTS[v][0], marker=VERDICTS[v][1], markersize=4, linewidth=1.4, label=SAID[v])
        for v in said
    ]
    if handles:
        legend_above(figure, handles)
    return figure


def _figures_beside(axes: Axes, rows: Sequence[GateRow]) -> None:
    """Each row's figures, in columns."""
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    lines = [(-1.0, ("fitness", "retention", "compr."), "normal")]
    for place, row in enumerate(rows):
        figures = (f"{row.fitness:.4g}", f"{row.retention:.2%}", f"{row.compression:.2f}×")
        lines.append((float(place), figures, "bold" if row.recommended else "normal"))
    for height, texts, weight in lines:
        for text, right in zip(texts, (0.28, 0.66, 1.0), strict=True):
            axes.text(right, height, text, fontsize=SMALL, va="center", ha="right", fontweight=weight)


def _named(row: GateRow) -> str:
    return f"{printed(row.name)} (recommended)" if row.recommended else printed(row.name)
