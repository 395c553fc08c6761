"""The front over named objectives, for the page: projections side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.figures import MOST_ROWS, Figure, evenly, label, layout, numbers
from evoquant.report.palette import CHAMPION, series_colour
from evoquant.report.table import Table

if TYPE_CHECKING:
    from evoquant.report.series_archive import ArchivePoints

GAP = 0.09  # between two panels, a share of the width


def archive_figure(archive: ArchivePoints | None) -> Figure | None:
    """The archive's projections; None where there is none."""
    if archive is None:
        return None
    pairs = archive.pairs()
    wide = (1.0 - GAP * (len(pairs) - 1)) / len(pairs)
    plot = layout("", "", height=400)
    axis = {key: dict(plot.pop(key)) for key in ("xaxis", "yaxis")}
    traces: list[dict[str, Any]] = []
    for place, (x, y) in enumerate(pairs):
        number = "" if place == 0 else str(place + 1)
        left = place * (wide + GAP)
        plot[f"xaxis{number}"] = axis["xaxis"] | {
            "title": {"text": label(archive.axes[x]), "standoff": 8},
            "domain": [round(left, 4), round(left + wide, 4)],
            "anchor": f"y{number}",
        }
        plot[f"yaxis{number}"] = axis["yaxis"] | {
            "title": {"text": label(archive.axes[y]), "standoff": 8},
            "anchor": f"x{number}",
        }
        if y == 0:
            plot[f"yaxis{number}"]["tickformat"] = ".0%"
        on = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "kept",
                "showlegend": place == 0,
                "x": numbers(archive.values[:, x]),
                "y": numbers(archive.values[:, y]),
                "text": [label(text, 60) for text in archive.texts],
                "marker": {"color": series_colour(0), "size": 7},
                "hovertemplate": "%{x}, %{y}<br>%{text}<extra>kept</extra>",
                **on,
            }
        )
        if archive.champion is not None:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": "champion",
                    "showlegend": place == 0,
                    "x": numbers(archive.champion[[x]]),
                    "y": numbers(archive.champion[[y]]),
                    "marker": {"color": CHAMPION, "size": 12, "symbol": "star"},
                    "hovertemplate": "%{x}, %{y}<extra>champion</extra>",
                    **on,
                }
            )
    named = ", ".join(archive.axes)
    finding = (
        f"{archive.of:,} that nothing found beats in {named} together where it was searched, shown on {archive.split}; "
        f"what looks beaten in one panel is ahead in another."
    )
    return Figure(
        "archive",
        "Scatter charts",
        "The front over all objectives",
        finding,
        {"data": traces, "layout": plot},
        ("evoquant pick takes one of them by its limits, without searching again.",),
        tables=(_table(archive),),
    )


def _table(archive: ArchivePoints) -> Table:
    kept = evenly(len(archive.values), MOST_ROWS)
    rows = [
        (
            f"{archive.values[row, 0]:.2%}",
            *(f"{value:,.5g}" for value in archive.values[row, 1:].tolist()),
            archive.texts[row],
        )
        for row in kept
    ]
    title = f"The archive: {len(kept)} of {archive.of:,}"
    return Table(title, (*archive.axes, "Heuristic"), rows, (), frozenset(range(len(archive.axes))))
