"""The best so far against the budget, with matplotlib: a median for each group, and a band between the quartiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.report.palette import QUIET, SERIES, series_colour
from evoquant.report.plots_style import DOUBLE, SMALL, legend_above, light_grid, new_figure, picture, printed, style

if TYPE_CHECKING:
    from evoquant.report.compare import Comparison

HEIGHT = 3.2  # inches
MOST_BANDS = 4  # groups: of more, bands would hide each other
MOST_COLUMNS = 4
DASHES = ("-", "--", ":", "-.")  # once the colours are used up


def curves_figure(made: Comparison, kind: str) -> bytes:
    """The figure's bytes, as `svg` or `png`: the same for the same runs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: no run has found anything.
    """
    bands = made.bands()
    if not bands:
        raise InputError("there is nothing to draw: every candidate of every run failed.")
    runs = {group.label: len(group.results) for group in made.groups}
    end = max(float(grid[-1]) for _, grid, _ in bands)
    with style():
        figure = new_figure(DOUBLE, HEIGHT)
        axes = figure.add_subplot()
        lines: list[Any] = []
        for number, (label, grid, quartiles) in enumerate(bands):
            spent = np.append(grid, end)
            low, middle, high = np.column_stack([quartiles, quartiles[:, -1]])
            colour, dashes = series_colour(number), DASHES[number // len(SERIES) % len(DASHES)]
            if len(bands) <= MOST_BANDS:
                axes.fill_between(spent, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
            text = f"{printed(label)} ({runs[label]} run{'s' if runs[label] > 1 else ''})"
            lines += axes.plot(spent, middle, color=colour, linestyle=dashes, drawstyle="steps-post", label=text)
        axes.set_xlabel("passes over the calibration split" if made.unit == "passes" else "candidates evaluated")
        axes.set_ylabel(f"best fitness so far on {made.searched}")
        axes.set_xlim(0, end * 1.02)
        light_grid(axes, "both")
        legend_above(figure, lines, min(len(lines), MOST_COLUMNS))
        figure.supxlabel(_caption(made, len(bands)), fontsize=SMALL, color=QUIET, x=0.99, ha="right")
        return picture(figure, kind)


def _caption(made: Comparison, bands: int) -> str:
    text = "median over seeds" + (", band: quartiles" if bands <= MOST_BANDS else "")
    several = len({result.spent for result in made.results}) > 1
    return text + ("; runs that ended earlier keep their last value" if several else "")
