"""The best so far against the budget, with matplotlib: a median for each group, and a band between the quartiles."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, MissingExtraError
from evoquant.report.palette import QUIET, series_colour
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from evoquant.report.compare import Comparison

SIZE, DPI = (7.2, 4.2), 150
MOST_BANDS = 4  # groups: of more, bands would hide each other
# An SVG has letters as shapes, so that it looks the same everywhere, and ids that do not change from run to run.
SETTINGS = {"svg.hashsalt": "evoquant", "svg.fonttype": "path", "font.family": ["DejaVu Sans"], "font.size": 9.0}
METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def curves_figure(made: Comparison, kind: str) -> bytes:
    """The figure's bytes, as `svg` or `png`: the same for the same runs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: no run has found anything.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("a figure", "matplotlib", "report") from None
    bands = made.bands()
    if not bands:
        raise InputError("there is nothing to draw: every candidate of every run failed.")
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        lines = []
        end = max(float(grid[-1]) for _, grid, _ in bands)
        for number, (_, grid, quartiles) in enumerate(bands):
            spent = np.append(grid, end)
            low, middle, high = np.column_stack([quartiles, quartiles[:, -1]])
            colour = series_colour(number)
            dashes = "--" if number >= 7 else "-"
            if len(bands) <= MOST_BANDS:
                axes.fill_between(spent, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
            lines += axes.plot(spent, middle, color=colour, linestyle=dashes, linewidth=1.6, drawstyle="steps-post")
        axes.set_xlabel("passes over the calibration split" if made.unit == "passes" else "candidates evaluated")
        axes.set_ylabel(f"best fitness so far on {made.searched}")
        axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(left=0)
        runs = {group.label: len(group.results) for group in made.groups}
        labels = [f"{plain(label)} ({runs[label]} run{'s' if runs[label] > 1 else ''})" for label, _, _ in bands]
        legend = axes.legend(lines, labels, frameon=False, loc="best")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a label may hold a dollar sign
        figure.supxlabel(_caption(made, len(bands)), fontsize=7, color=QUIET, x=0.99, ha="right")
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=DPI, metadata=METADATA[kind])
    return stream.getvalue()


def _caption(made: Comparison, bands: int) -> str:
    text = "median over seeds" + (", band: quartiles" if bands <= MOST_BANDS else "")
    ends = {result.spent for result in made.results}
    return text + ("; runs that ended earlier keep their last value" if len(ends) > 1 else "")
