"""The figures of results/: drawn from committed rows, the same bytes for the same rows and the same matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.files import write_atomic
from evoquant.report.figures_speed import SEARCHES
from evoquant.report.palette import CHAMPION, CLIFF, QUIET, series_colour
from evoquant.report.plots_style import DOUBLE, SMALL, light_grid, new_figure, picture, style
from evoquant.report.study import read_rows
from evoquant.report.tabular import mean_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Row = dict[str, Any]
    Rows = Callable[[str], Sequence[Row]]

THRESHOLD = 0.95
GENERATIONS = ("1", "2–3", "4", "5", "6")  # as published; the last record of the journal came afterwards
# Of each generation's champion: what stands beside its point, and where.
LABELS = (
    ("Gen 1", 0, -10, "center"),
    ("Gen 2–3", 0, -10, "center"),
    ("Gen 4", -5, -1, "right"),
    ("Gen 5, 6", 6, -1, "left"),
    ("", 0, 0, "left"),
)


def draw_figures(root: Path) -> list[Path]:
    """Write the figures below results/; those that changed.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    changed = []
    for name, data in drawn(lambda stem: read_rows(root / f"results/{stem}.jsonl")).items():
        path = root / "results" / name
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
            changed.append(path)
    return changed


def drawn(rows: Rows) -> dict[str, bytes]:
    """File below results/ → its bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with style():
        figures = {"journey": journey(rows), "tabular": tabular(rows), "own_models": own_models(rows)}
        return {f"{name}.svg": picture(figure, "svg") for name, figure in figures.items()}


def journey(rows: Rows) -> Figure:
    """The published journey: the best of each generation, and every candidate by compression and retention."""
    records = rows("journey")[: len(GENERATIONS)]
    figure = new_figure(DOUBLE, 2.5)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
    best = [record["champion"]["fitness"] for record in records]
    for i, record in enumerate(records):
        candidates = record["population"]["fitness"]
        left.plot([i] * len(candidates), candidates, ".", color=QUIET, markersize=3, alpha=0.6)
    left.plot(range(len(best)), best, "o-", color=CHAMPION, markersize=4)
    for i, value in enumerate(best):
        if i in (0, 2, len(best) - 1):
            left.annotate(f"{value:.4f}", (i, value), (0, 5), textcoords="offset points", fontsize=SMALL, ha="center")
    left.set(xticks=range(len(best)), xticklabels=GENERATIONS, xlabel="generation", ylabel="fitness on test")
    left.set(ylim=(-0.15, 4.4), xlim=(-0.5, len(best) - 0.5))
    light_grid(left)
    for record in records:
        shown = record["population"]
        right.plot(shown["compression"], shown["retention"], ".", color=QUIET, markersize=3, alpha=0.6)
    right.axhline(THRESHOLD, color=CLIFF, linewidth=1, linestyle="--")
    below = "the cliff: below it fitness is 0.1 · retention"
    right.text(16, THRESHOLD - 0.012, below, color=CLIFF, fontsize=SMALL, ha="right", va="top")
    for record, (label, dx, dy, side) in zip(records, LABELS, strict=True):
        mine, on = record["champion"], record["champion"]["on"]
        x, y = mine["compression"][on], mine["retention"][on]
        right.plot([x], [y], "o", color=CHAMPION, markersize=4)
        place = {"xytext": (dx, dy), "textcoords": "offset points", "ha": side}
        right.annotate(label, (x, y), **place, fontsize=SMALL, color=CHAMPION)
    right.set(xscale="log", xlabel="compression", ylabel="retention", ylim=(0.5, 1.03))
    right.set_xticks([1, 2, 4, 8, 16], labels=["1x", "2x", "4x", "8x", "16x"])
    right.minorticks_off()
    light_grid(right)
    return figure


def tabular(rows: Rows) -> Figure:
    """Searches on the frozen tables: mean share of the true optimum after so many measured allocations."""
    figure = new_figure(DOUBLE, 2.6)
    tables = tuple(dict.fromkeys(row["table"] for row in rows("tabular")))
    panels = figure.subplots(1, len(tables), sharey=True)
    for panel, table in zip(panels, tables, strict=True):
        for number, (search, name) in enumerate(SEARCHES.items()):
            mine = [row["share"] for row in rows("tabular") if (row["table"], row["search"]) == (table, search)]
            points = sorted(mine[0], key=int)
            means = np.array([mean_interval(np.array([share[point] for share in mine])) for point in points])
            x, colour = [int(point) for point in points], series_colour(number)
            width = 2.0 if search == "surrogate" else 1.0
            panel.plot(x, 100 * means[:, 0], "o-", color=colour, label=name, markersize=2.5, linewidth=width)
            panel.fill_between(x, 100 * means[:, 1], 100 * means[:, 2], color=colour, alpha=0.15, linewidth=0)
        panel.set_title(table, fontsize=SMALL + 1, loc="left")
        panel.set(xscale="log", xlabel="measured allocations", ylim=(70, 101))
        panel.set_xticks(x, labels=map(str, x))
        panel.minorticks_off()
        light_grid(panel)
    panels[0].set_ylabel("best found, % of the true optimum")
    panels[0].legend(loc="lower right")
    return figure


TASKS = ("fashion_cnn", "fashion_vit", "char_lm", "tabular")
OURS = {"direct": "evoquant, one width per layer", "tree": "evoquant, trees"}
OTHERS = {
    "plain evolution": "plain evolution",
    "random search": "random search",
    "greedy flips": "greedy flips (AMP)",
    "one at a time, optimum": "one at a time, exact solver",
    "uniform INT4-channel": "uniform INT4",
}
LEAST_PASSES = 3.0  # where what spends nothing is drawn


def own_models(rows: Rows) -> Figure:
    """evoquant beside today's ways: test fitness, median and range of seeds, against the passes that were spent."""
    figure = new_figure(DOUBLE, 4.2)
    panels = figure.subplots(2, 2, sharex=True).flatten()
    for panel, task in zip(panels, TASKS, strict=True):
        mine = [row for row in rows("own_models") if row["task"] == task]
        for number, (kind, label) in enumerate(OURS.items()):
            names = [f"evoquant {kind}, {passes} passes" for passes in (15, 25, 80, 400)]
            _ways(panel, mine, names, label, series_colour(number), "o-" if number == 0 else "s--")
        for number, (name, label) in enumerate(OTHERS.items(), len(OURS)):
            _ways(panel, mine, [name], label, series_colour(number), "v^D<>"[number - len(OURS)])
        panel.set_title(task, fontsize=SMALL + 1, loc="left")
        panel.set(xscale="log", ylim=(0, None))
        panel.set_xticks([LEAST_PASSES, 15, 25, 80, 400], labels=["0", "15", "25", "80", "400"])
        panel.minorticks_off()
        light_grid(panel)
    for panel in panels[2:]:
        panel.set_xlabel("full passes over the calibration data")
    for panel in panels[::2]:
        panel.set_ylabel("test fitness")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _ways(panel: Axes, rows: Sequence[Row], names: Sequence[str], label: str, colour: str, form: str) -> None:
    """One line of medians, with the range of seeds at each point."""
    found = [[row for row in rows if row["name"] == name] for name in names]
    x = [max(float(np.median([row["passes"] for row in some])), LEAST_PASSES) for some in found]
    y = [[row["scores"]["test"]["fitness"] for row in some] for some in found]
    panel.vlines(x, [min(values) for values in y], [max(values) for values in y], color=colour, alpha=0.35, linewidth=2)
    panel.plot(x, [float(np.median(values)) for values in y], form, color=colour, label=label, markersize=4)
