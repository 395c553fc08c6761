"""Retention against compression, and the layers under the champion, with matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.palette import CHAMPION, CLIFF, FRONT, QUIET, width_colour
from evoquant.report.plots_style import DARK, DOUBLE, SMALL, legend_above, light_grid, new_figure, printed, small_print

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from evoquant.report.series import LayerStrip, Mark, RunSeries

NAMED = 40  # layers with their names below them
MANY = 2000  # points: of more, an SVG holds a picture
COLUMNS = 350  # of more layers, neighbours are drawn together
WIDE_SPAN = 30.0  # largest to smallest: from there on a log scale
LOSS_LABELS = {
    "loss": "loss at\nits width",
    "expected_loss": "expected\nloss",
    "divergence": "divergence\n(nats)",
    "fisher": "Fisher cost\n(nats)",
}
SOURCES = {"profile": "", "estimate": " (separable estimate)"}


def front_figure(series: RunSeries) -> Figure:
    """Retention against compression: population, champion, uniform widths and the front; whole, and near the goal."""
    figure = new_figure(DOUBLE, 2.9)
    whole, near = figure.subplots(1, 2)
    handles: list[Any] = []
    for axes in (whole, near):
        handles = _drawn(axes, series)
    x, y = _everything(series)
    _ticks(whole, *_padded(np.log2(x), least=0.5), *_padded(y, least=0.02))
    _ticks(near, *_near(series, x, y))
    for axes in (whole, near):
        _uniform_names(axes, series.marks)
    _framed(whole, near)
    whole.set_ylabel("retention of the FP32 metric")
    legend_above(figure, handles, columns=4)
    points = series.points
    said = [] if points is None else [f"model: {points.model}", *([f"shown: {points.note}"] if points.note else [])]
    small_print(figure, "; ".join(said))
    return figure


def _framed(whole: Axes, near: Axes) -> None:
    """The part that the second panel shows, as a thin frame in the first."""
    from matplotlib.patches import Rectangle

    (left, right), (bottom, top) = near.get_xlim(), near.get_ylim()
    whole.add_patch(
        Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor=QUIET, linewidth=0.6, zorder=4)
    )


def _drawn(axes: Axes, series: RunSeries) -> list[Any]:
    """Draws all of it; the scales come later. Returns the legend's handles."""
    handles: list[Any] = []
    points, front, goal = series.points, series.front, series.goal
    if points is not None and len(points):
        where = " (calibration data)" if points.measured else ""
        missed = "over the budget" if goal.floor is None else f"below the {_floor_name(series)}"
        missed = "not within all limits" if goal.others else missed
        ends = [(points.feasible, 1.0, f"candidates{where}"), (~points.feasible, 0.55, missed)]
        for mask, alpha, label in reversed(ends if not points.feasible.all() else ends[:1]):
            if mask.any():
                x, y, many = points.compression[mask], points.retention[mask], int(mask.sum()) > MANY
                style: Any = {"linestyle": "none", "marker": ".", "markeredgewidth": 0, "color": QUIET, "label": label}
                style["alpha"] = alpha
                axes.plot(x, y, markersize=3.5, rasterized=many, **style)
                handles.append(_mark(markersize=7, **style))
    if front is not None:
        dashes = "--" if front.estimate else "-"
        x, y = front.compression, front.retention
        handles += axes.plot(x, y, color=FRONT, linewidth=1.0, linestyle=dashes, label=front.label)
    if goal.floor is not None:
        label = f"{_floor_name(series)} at {goal.floor:.4g}"
        handles.append(axes.axhline(goal.floor, color=CLIFF, linestyle=":", linewidth=1.0, label=label))
    if goal.compression is not None:
        label = goal.amount if goal.floor is not None else f"budget, {goal.budget_words('bits a weight')}"
        handles.append(axes.axvline(goal.compression, color=CLIFF, linestyle=":", linewidth=1.0, label=label))
    return handles + _marked(axes, series.marks)


def _floor_name(series: RunSeries) -> str:
    return "cliff" if series.goal.name == "cliff" else "floor"


def _marked(axes: Axes, marks: Sequence[Mark]) -> list[Any]:
    handles: list[Any] = []
    for mark in sorted(marks, key=lambda mark: mark.width is None):  # the champion last, on top
        said = SOURCES.get(mark.source, f" ({mark.source} data)")
        if mark.width is not None:
            axes.plot(
                [mark.compression],
                [mark.retention],
                marker="s",
                markersize=4.5,
                linestyle="none",
                color=width_colour(_code_bits(mark.width)),
                markeredgecolor=DARK,
                markeredgewidth=0.6,
            )
            if not handles:
                edge = {"markeredgecolor": DARK, "markeredgewidth": 0.6, "linestyle": "none"}
                handles.append(_mark(marker="s", markersize=4.5, color="white", label=f"uniform widths{said}", **edge))
            continue
        if mark.interval is not None:
            ends = [mark.compression, mark.compression]
            axes.plot(ends, mark.interval, color=CHAMPION, linewidth=1.3, marker="_", markersize=5)
            said = said.replace(")", ", 95% interval)")
        handles += axes.plot(
            [mark.compression],
            [mark.retention],
            marker="*",
            markersize=10,
            linestyle="none",
            color=CHAMPION,
            markeredgecolor=DARK,
            markeredgewidth=0.5,
            zorder=5,
            label=f"champion{said}",
        )
    return handles


def _mark(**style: Any) -> Any:
    """A mark that stands in the legend alone."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def _everything(series: RunSeries) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compression and retention of all that is drawn."""
    pairs = [(mark.compression, y) for mark in series.marks for y in (mark.retention, *(mark.interval or ()))]
    x, y = [np.array([p[0] for p in pairs])], [np.array([p[1] for p in pairs])]
    for part in (series.points, series.front):
        if part is not None:
            x.append(part.compression)
            y.append(part.retention)
    compression, retention = np.concatenate(x).astype(np.float64), np.concatenate(y).astype(np.float64)
    if not len(compression):
        return np.array([1.0]), np.array([1.0])
    return compression, np.maximum(retention, 0.0)  # a metric may fall far below 0; nobody looks there


def _near(series: RunSeries, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Where the decision falls: retention from a little below the goal up, and the widths that can be had for it."""
    floor = series.goal.floor
    champion = next((mark for mark in series.marks if mark.width is None), None)
    if floor is None:
        floor = 0.95 if champion is None else min(max(champion.retention, 0.0), 1.0)
    drop = max(1.0 - floor, 0.02)
    bottom, top = max(floor - drop, 0.0), max(float(y.max()), floor + drop / 2)
    if champion is not None:
        bottom = min(bottom, max(champion.retention - drop / 2, 0.0))
    inside = x[(y >= bottom)]
    if champion is not None:
        inside = np.append(inside, champion.compression)
    if series.goal.compression is not None:
        inside = np.append(inside, series.goal.compression)
    low, high = _padded(np.log2(inside), least=0.3) if len(inside) else _padded(np.log2(x), least=0.3)
    return low, high, bottom, top + 0.06 * (top - bottom)


def _padded(values: NDArray[np.float64], least: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = max(0.06 * (high - low), least / 2 if high - low < least else 0.0)
    return low - margin, high + margin


def _ticks(axes: Axes, left: float, right: float, bottom: float, top: float) -> None:
    """A log scale of compression with round figures, and retention in percent."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xlim(2.0**left, 2.0**right)
    axes.set_ylim(bottom, top)
    span = right - left
    if span < 2.0:
        places = [
            float(value) for value in MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(2.0**left, 2.0**right)
        ]
    else:
        places = [float(2.0**exponent) for exponent in range(math.ceil(left), math.floor(right) + 1)]
    axes.xaxis.set_major_locator(FixedLocator([v for v in places if v > 0 and left <= math.log2(v) <= right]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    levels = np.asarray(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(bottom, top))
    axes.yaxis.set_major_locator(FixedLocator([v for v in levels.tolist() if bottom <= v <= top]))
    digits = max(0, -math.floor(math.log10(float(levels[1] - levels[0])) + 2.0 + 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{digits}%}"))
    axes.set_xlabel("compression (FP32 size / size)")
    light_grid(axes, "both")


def _uniform_names(axes: Axes, marks: Sequence[Mark]) -> None:
    """The width beside each uniform point that this panel shows."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    for mark in marks:
        if mark.width is None or not (left < mark.compression < right and bottom <= mark.retention <= top):
            continue
        at_right = math.log(mark.compression / left) > 0.85 * math.log(right / left)
        low = (mark.retention - bottom) / (top - bottom) > 0.12
        axes.annotate(
            mark.width.partition("-")[0],
            (mark.compression, mark.retention),
            (-4 if at_right else 4, -7 if low else 5),
            textcoords="offset points",
            fontsize=SMALL,
            ha="right" if at_right else "left",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4},
        )


def layers_figure(strip: LayerStrip) -> Figure:
    """Bits per weight, share of the size, sensitivity and loss of each layer, in order of execution.

    Of many layers, neighbours are one column: bits are the mean by weights, in the colours of its widths; shares and
    losses are sums, of sensitivities the largest is drawn.
    """
    rows = 2 + (strip.sensitivity is not None) + (strip.loss is not None)
    figure = new_figure(DOUBLE, 0.95 + 0.72 * rows + (0.5 if len(strip) <= NAMED else 0.0))
    panels = list(np.atleast_1d(figure.subplots(rows, 1, sharex=True, height_ratios=[1.6, *[1.0] * (rows - 1)])))
    edges = np.unique(np.linspace(0, len(strip), min(len(strip), COLUMNS) + 1).round().astype(np.intp))
    starts = edges[:-1]
    _bits_panel(panels[0], strip, edges)
    share = np.add.reduceat(strip.share, starts) * 100.0
    _bars(panels[1], edges, share, "% of\nsize", log=False)
    rest = panels[2:]
    if strip.sensitivity is not None:
        largest = np.maximum.reduceat(strip.sensitivity, starts)
        _bars(rest.pop(0), edges, largest, _sensitivity_label(strip.sensitivity_name))
    if strip.loss is not None:
        _bars(
            rest.pop(0),
            edges,
            np.add.reduceat(np.nan_to_num(strip.loss), starts),
            LOSS_LABELS.get(strip.loss_name or "", ""),
        )
    _layer_names(panels[-1], strip, edges)
    legend_above(figure, _width_handles(strip), columns=3)
    small_print(figure, f"model: {strip.model}")
    figure.align_ylabels(panels)
    return figure


def _sensitivity_label(name: str | None) -> str:
    """On two short lines: `fisher cost at INT2-channel` is said of the codes alone."""
    if name == "gradient_sensitivity":
        return "gradient\nsensitivity"
    return f"Fisher cost\nat {(name or '').rpartition(' ')[2].partition('-')[0]}"


def _bits_panel(axes: Axes, strip: LayerStrip, edges: NDArray[np.intp]) -> None:
    """Bits per weight of each column, stacked by width, the widest at the bottom."""
    starts = edges[:-1]
    weights = np.add.reduceat(strip.parameters.astype(np.float64), starts)
    base = np.zeros(len(starts))
    for width, bits in _widths(strip):
        mine = np.array([name == width for name in strip.width], dtype=bool)
        part = np.where(mine, strip.size_bytes * 8.0, 0.0)
        height = np.add.reduceat(part, starts) / weights
        axes.stairs(base + height, edges, baseline=base, fill=True, color=width_colour(bits), linewidth=0, label=width)
        base = base + height
    if len(edges) <= NAMED + 1:
        axes.vlines(edges, 0, np.maximum(np.append(base, 0), np.append(0, base)), color="white", linewidth=0.8)
    axes.set_ylim(0, float(base.max()) * 1.08)
    axes.set_ylabel("bits per\nweight")
    light_grid(axes)


def _bars(axes: Axes, edges: NDArray[np.intp], values: NDArray[np.float64], label: str, *, log: bool = True) -> None:
    """One bar a column; on a log scale where that is allowed, and the values span a lot."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    positive = values[values > 0]
    spans = log and len(positive) and (values >= 0).all() and positive.max() / positive.min() > WIDE_SPAN
    base = float(positive.min()) / 2.0 if spans else 0.0
    shown = np.maximum(values, base) if spans else values
    axes.stairs(shown, edges, baseline=base, fill=True, color=QUIET, linewidth=0)
    if len(edges) <= NAMED + 1:
        axes.vlines(
            edges, base, np.maximum(np.append(shown, base), np.append(base, shown)), color="white", linewidth=0.8
        )
    if spans:
        axes.set_yscale("log")
        axes.set_ylim(base, float(positive.max()) * 1.5)
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel(label)
    light_grid(axes)


def _layer_names(axes: Axes, strip: LayerStrip, edges: NDArray[np.intp]) -> None:
    """Names where there is room, else numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, len(strip))
    if len(strip) <= NAMED:
        places = np.arange(len(strip)) + 0.5
        rotation = 0 if len(strip) <= 4 else 90
        axes.set_xticks(places, [printed(name, 24) for name in strip.name], rotation=rotation)
        axes.tick_params(axis="x", length=0)
        return
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    text = "layer, in order of execution"
    if len(edges) - 1 < len(strip):
        text += f" ({len(edges) - 1} columns for {len(strip):,} layers)"
    axes.set_xlabel(text)


def _widths(strip: LayerStrip) -> list[tuple[str, int]]:
    """The widths that occur, widest first, each with its code bits."""
    found = dict(zip(strip.width, strip.code_bits.tolist(), strict=True))
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))


def _width_handles(strip: LayerStrip) -> list[Any]:
    from matplotlib.patches import Patch

    total = float(strip.parameters.sum())
    handles = []
    for width, bits in reversed(_widths(strip)):
        mine = np.array([name == width for name in strip.width], dtype=bool)
        share = float(strip.parameters[mine].sum()) / total
        part = "<0.1%" if 0 < share < 0.001 else ">99.9%" if 0.999 < share < 1 else f"{share:.1%}"
        label = f"{width}: {int(mine.sum()):,} layer{'s' if mine.sum() > 1 else ''}, {part} of weights"
        handles.append(Patch(facecolor=width_colour(bits), edgecolor=DARK, linewidth=0.4, label=label))
    return handles


def _code_bits(width: str) -> float:
    from evoquant.quantization.precision import Precision

    return Precision.parse(width).code_bits
