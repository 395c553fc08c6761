"""The population as points of retention and compression, with the front, for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.counted import Counted, size_heading, size_text
from evoquant.report.figures import INK, MOST_ROWS, Figure, evenly, goal_words, label, layout, limit_line, numbers
from evoquant.report.palette import CHAMPION, FRONT, QUIET, series_colour, width_colour
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.report.series import FrontLine, Mark, Points, RunSeries

TICKS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
NEAR = 0.12  # retention below the goal, or below the champion, that the first view still shows
FRONT_ROWS = 24


def front_figure(series: RunSeries, width_bits: Mapping[str, float]) -> Figure | None:
    """The scatter; None where neither candidates nor a front are known.

    Args:
        series: of the run.
        width_bits: code bits of the menu's widths.
    """
    points, front, marks, goal = series.points, series.front, series.marks, series.goal
    if points is None:
        return None
    traces = _population(points)
    if front is not None:
        traces.append(_front(front, series.counted))
    traces += _marks(marks, width_bits, series.counted)
    shapes, annotations = [], []
    for axis, value in (("y", goal.floor), ("x", goal.compression)):
        if value is not None:
            # On a logarithmic axis shapes take the value, annotations its logarithm.
            words = goal.amount if axis == "x" and goal.floor is not None else goal_words(goal, alone=True)
            shape, note = limit_line(axis, value, words)
            if axis == "x":
                note["x"] = float(np.log10(value))
            shapes.append(shape)
            annotations.append(note)
    views = _views(series)
    plot = layout("times smaller than FP32 (log scale)", "retention", height=460)
    plot["xaxis"] |= {"type": "log", "tickvals": list(TICKS), "ticktext": [f"{tick:g}x" for tick in TICKS]}
    plot["yaxis"] |= {"tickformat": ".0%"}
    first = next(iter(views.values()))
    plot["xaxis"]["range"], plot["yaxis"]["range"] = first["xaxis.range"], first["yaxis.range"]
    plot |= {"shapes": shapes, "annotations": annotations, "hovermode": "closest"}
    return Figure(
        "front",
        "Scatter chart",
        "Retention and size",
        _finding(series),
        {"data": traces, "layout": plot},
        _notes(series, first),
        (),
        _tables(series),
        _slider(points),
        views,
    )


def _population(points: Points) -> list[dict[str, Any]]:
    """All candidates, in grey, and those of the generation that the slider shows: the last."""
    order = np.argsort(points.generation, kind="stable")
    everything: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": "all candidates",
        "x": numbers(points.compression[order], 5),
        "y": numbers(points.retention[order], 5),
        "customdata": [
            [int(generation), value]
            for generation, value in zip(
                points.generation[order].tolist(), numbers(points.fitness[order], 5), strict=True
            )
        ],
        "marker": {
            "color": QUIET,
            "size": 4,
            "opacity": 0.35,
            "symbol": ["circle" if full else "x-thin-open" for full in points.whole[order].tolist()]
            if not points.whole.all()
            else "circle",
        },
        "hovertemplate": "%{x:.3f}x, retention %{y:.2%}<br>generation %{customdata[0]}, fitness %{customdata[1]:.4f}"
        "<extra></extra>",
    }
    last = points.generation[order] == points.generation.max() if len(points) else np.zeros(0, dtype=bool)
    rows = np.flatnonzero(last).tolist()
    chosen = {
        **everything,
        "name": f"generation {int(points.generation.max())}" if len(points) else "generation",
        **{key: [everything[key][i] for i in rows] for key in ("x", "y", "customdata")},
        "marker": {"color": series_colour(0), "size": 6, "opacity": 0.9, "line": {"color": "#ffffff", "width": 0.5}},
    }
    return [everything, chosen]


def _slider(points: Points) -> dict[str, Any] | None:
    """For each generation the place where its points begin in the first trace."""
    generations, starts = np.unique(np.sort(points.generation), return_index=True)
    if len(generations) < 2:
        return None
    return {
        "from": 0,
        "to": 1,
        "labels": [f"generation {number}" for number in generations.tolist()],
        "starts": [*starts.tolist(), len(points)],
    }


def _front(front: FrontLine, counted: Counted | None) -> dict[str, Any]:
    sizes: list[Any] = numbers(front.effective_bits, 4)
    size = "%{customdata:.4g} bits per weight"
    if counted is not None:
        sizes, size = [label(counted.text(value)) for value in front.compression.tolist()], "%{customdata}"
    return {
        "type": "scatter",
        "mode": "lines" if len(front) > 60 else "lines+markers",
        "name": front.label,
        "x": numbers(front.compression),
        "y": numbers(front.retention),
        "customdata": sizes,
        "line": {"color": FRONT, "width": 2, "shape": "vh", "dash": "dash" if front.estimate else "solid"},
        "marker": {"color": FRONT, "size": 4},
        "hovertemplate": f"%{{x:.3f}}x, retention %{{y:.2%}}<br>{size}<extra>{label(front.label)}</extra>",
    }


def _marks(marks: tuple[Mark, ...], width_bits: Mapping[str, float], counted: Counted | None) -> list[dict[str, Any]]:
    """Uniform widths as diamonds in their colours, and the champion as a star, on top."""
    uniform = [mark for mark in marks if mark.width is not None]
    traces: list[dict[str, Any]] = []
    if uniform:
        traces.append(
            {
                **_marked(uniform, counted),
                "mode": "markers+text",
                "name": "uniform widths",
                "text": [label(mark.width or "", 24) for mark in uniform],
                "textposition": "bottom right",
                "textfont": {"size": 11, "color": INK},
                "marker": {
                    "symbol": "diamond",
                    "size": 11,
                    "color": [width_colour(width_bits.get(mark.width or "", 32)) for mark in uniform],
                    "line": {"color": INK, "width": 1},
                },
            }
        )
    for mark in marks:
        if mark.width is None:
            trace = {
                **_marked([mark], counted),
                "mode": "markers",
                "name": mark.name,
                "marker": {"symbol": "star", "size": 17, "color": CHAMPION, "line": {"color": "#ffffff", "width": 1}},
            }
            if mark.interval is not None:
                low, high = mark.interval
                trace["error_y"] = {
                    "type": "data",
                    "symmetric": False,
                    "array": numbers([high - mark.retention]),
                    "arrayminus": numbers([mark.retention - low]),
                    "color": CHAMPION,
                    "thickness": 2,
                }
            traces.append(trace)
    return traces


def _marked(marks: list[Mark], counted: Counted | None) -> dict[str, Any]:
    bits = " bits per weight" if counted is None else ""
    return {
        "type": "scatter",
        "x": numbers(mark.compression for mark in marks),
        "y": numbers(mark.retention for mark in marks),
        "customdata": [
            [label(mark.name), SOURCES.get(mark.source, mark.source), label(_size(counted, mark))] for mark in marks
        ],
        "hovertemplate": f"%{{customdata[0]}}: %{{x:.3f}}x, retention %{{y:.2%}}<br>%{{customdata[2]}}{bits}, "
        "%{customdata[1]}<extra></extra>",
    }


def _size(counted: Counted | None, mark: Mark) -> str:
    return size_text(counted, mark.compression, mark.effective_bits)


SOURCES = {
    "profile": "separable, from the profile",
    "estimate": "an estimate",
    "gate": "measured on the gate's data",
    "calibration": "measured on the calibration split",
}


def _views(series: RunSeries) -> dict[str, dict[str, Any]]:
    """Ranges of the axes: near the goal, and all of it; the compression's are logarithms."""
    retention, compression = _everything(series)
    champion = next((mark for mark in series.marks if mark.width is None), None)
    wanted = [series.goal.floor] if series.goal.floor is not None else []
    wanted += [champion.retention] if champion is not None else []
    whole = _range(retention, compression)
    if not wanted or not len(retention):
        return {"all": whole}
    lowest = min(wanted) - NEAR
    near = retention >= lowest
    if near.all() or not near.any():
        return {"all": whole}
    return {
        "near the goal": _range(np.append(retention[near], lowest), compression[near]),
        "all": whole,
    }


def _range(retention: np.ndarray, compression: np.ndarray) -> dict[str, Any]:
    low, high = (float(retention.min()), float(retention.max())) if len(retention) else (0.0, 1.0)
    left, right = (float(compression.min()), float(compression.max())) if len(compression) else (1.0, 2.0)
    room = max(high - low, 0.02)
    ends = np.log10([left, max(right, left * 1.05)])
    slack = 0.04 * float(ends[1] - ends[0])
    return {
        "xaxis.range": numbers([ends[0] - slack, ends[1] + 3 * slack]),
        "yaxis.range": numbers([low - 0.02 * room, high + 0.05 * room]),
    }


def _everything(series: RunSeries) -> tuple[np.ndarray, np.ndarray]:
    """`(n,)` retention and compression of all that is drawn."""
    pairs = [(np.array([mark.retention]), np.array([mark.compression])) for mark in series.marks]
    for part in (series.points, series.front):
        if part is not None:
            pairs.append((part.retention, part.compression))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _notes(series: RunSeries, view: Mapping[str, Any]) -> tuple[str, ...]:
    points, front = series.points, series.front
    assert points is not None
    how = "measured over the calibration split" if points.measured else "the separable estimate from the profile"
    notes = [f"Points: {points.note or 'all candidates'}. Model: {points.model}. Their retention is {how}."]
    if not points.whole.all():
        notes.append("Crosses were cut short by racing: measured on a part of the data only.")
    outside = int((points.retention < view["yaxis.range"][0]).sum())
    if outside:
        notes.append(f"{outside:,} of the points lie below the first view.")
    if front is not None and front.estimate:
        notes.append(
            "The front is of the separable estimate, not of measured retention: measured points can lie on either side."
        )
    if front is not None and len(front) < front.of:
        notes.append(f"The front is drawn by {len(front):,} of its {front.of:,} points.")
    if front is None:
        notes.append("No front is drawn: the signals that it takes are not in the run directory.")
    return tuple(notes)


def _finding(series: RunSeries) -> str:
    points, front = series.points, series.front
    assert points is not None
    feasible = int(points.feasible.sum())
    said = f"{len(points):,} candidates by compression and retention"
    limits = goal_words(series.goal)
    above = "lie above" if series.goal.name == "cliff" else "keep"
    said += f"; {feasible:,} {above} the {limits}." if limits else "."
    champion = next((mark for mark in series.marks if mark.width is None), None)
    if champion is None:
        return said
    said += f" The champion has {champion.retention:.2%} at {champion.compression:.3f}x."
    if front is not None:
        # The front falls: a point of it that is no smaller has at least what any allocation of the champion's size has.
        larger = front.retention[front.compression <= champion.compression * (1 + 1e-9)]
        if len(larger) and not front.estimate:
            said += f" No allocation of that size has more than {float(larger.min()) + front.epsilon:.2%}."
        elif len(larger):
            said += f" By the estimate no allocation of that size has more than {float(larger.min()):.2%}."
    return said


def _tables(series: RunSeries) -> tuple[Table, ...]:
    points, front = series.points, series.front
    assert points is not None
    rows = [
        (
            mark.name,
            f"{mark.retention:.2%}",
            "" if mark.interval is None else f"{mark.interval[0]:.2%} to {mark.interval[1]:.2%}",
            f"{mark.compression:.4f}x",
            _size(series.counted, mark),
            SOURCES.get(mark.source, mark.source),
        )
        for mark in series.marks
    ]
    size = size_heading(series.counted)
    columns = ("Allocation", "Retention", "95% interval", "Compression", size, "Retention is")
    tables = [Table("Champion and uniform widths", columns, rows, (), frozenset(range(1, 5)))] if rows else []
    if front is not None and len(front):
        kept = evenly(len(front), FRONT_ROWS)
        lines = [
            (
                f"{front.compression[i]:.4f}x",
                size_text(series.counted, float(front.compression[i]), float(front.effective_bits[i])),
                f"{front.retention[i]:.2%}",
            )
            for i in kept
        ]
        tables.append(
            Table(
                f"The {front.label}: {len(kept)} of {front.of:,} points",
                ("Compression", size, "Retention"),
                lines,
                (),
                frozenset(range(3)),
            )
        )
    return (*tables, _generations(points))


def _generations(points: Points) -> Table:
    found = np.unique(points.generation)
    kept = evenly(len(found), MOST_ROWS)
    rows = []
    for generation in found[kept].tolist():
        mine = points.generation == generation
        feasible = mine & points.feasible
        most = f"{points.compression[feasible].max():.4f}x" if feasible.any() else ""
        rows.append(
            (
                str(generation),
                str(int(mine.sum())),
                str(int(feasible.sum())),
                most,
                f"{np.median(points.retention[mine]):.2%}",
                f"{np.median(points.compression[mine]):.4f}x",
            )
        )
    columns = (
        "Generation",
        "Points",
        "Within the limits",
        "Most compression of those",
        "Median retention",
        "Median compr.",
    )
    return Table("The population by generation", columns, rows, (), frozenset(range(6)))
