"""The champion beside its rivals, for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.report.figures import INK, Figure, label, layout, limit_line, numbers
from evoquant.report.palette import CLIFF, QUIET, series_colour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.report.series import GateRow


def gate_figure(rows: Sequence[GateRow]) -> Figure | None:
    """The champion's lead over each rival with its interval; None where there was no gate."""
    rivals = [row for row in rows if row.interval is not None]
    if not rivals:
        return None
    colours = {"ahead": series_colour(2), "behind": CLIFF, "tie": QUIET}
    words = {"ahead": "beaten", "behind": "beats the champion", "tie": "a tie"}
    traces = []
    for verdict, colour in colours.items():
        mine = [row for row in rivals if row.verdict == verdict]
        if not mine:
            continue
        intervals = [row.interval or (row.lead, row.lead) for row in mine]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": words[verdict],
                "x": numbers(row.lead for row in mine),
                "y": [label(row.name, 40) for row in mine],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": numbers(high - row.lead for row, (_, high) in zip(mine, intervals, strict=True)),
                    "arrayminus": numbers(row.lead - low for row, (low, _) in zip(mine, intervals, strict=True)),
                    "color": colour,
                    "thickness": 2,
                },
                "marker": {"color": colour, "size": 9, "symbol": "diamond" if verdict == "tie" else "circle"},
                "customdata": [[f"{row.retention:.2%}", f"{row.compression:.3f}x"] for row in mine],
                "hovertemplate": "%{y}: retention %{customdata[0]}, %{customdata[1]}<br>the champion leads by %{x:.4f}"
                "<extra></extra>",
            }
        )
    plot = layout("the champion's lead in fitness (95% interval)", "", height=110 + 30 * len(rivals))
    plot["yaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [label(row.name, 40) for row in reversed(rivals)],
    }
    plot["shapes"] = [limit_line("x", 0.0, "")[0] | {"line": {"color": INK, "width": 1}}]
    count = {verdict: sum(row.verdict == verdict for row in rivals) for verdict in colours}
    chosen = next((row.name for row in rows if row.recommended), "the champion")
    finding = (
        f"Of {len(rivals)} rivals the champion beats {count['ahead']}, ties with {count['tie']}, is beaten by "
        f"{count['behind']}. Recommended: {chosen}."
    )
    return Figure("gate", "Dot chart with intervals", "Against its rivals", finding, {"data": traces, "layout": plot})
