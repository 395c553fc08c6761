"""`evoquant report RUN_DIR --png DIR` and `--svg DIR`: a run's figures for a paper or slides, with matplotlib.

run_figures(series) → name → Figure      write_plots(run, folder, kind) → the files written
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.files import is_file, write_atomic
from evoquant.report.plots_archive import archive_figure
from evoquant.report.plots_curves import fitness_figure, gate_figure
from evoquant.report.plots_model import front_figure, layers_figure
from evoquant.report.plots_style import picture, style
from evoquant.report.series import run_series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

    from evoquant.report.data import RunData
    from evoquant.report.series import RunSeries

KINDS = ("png", "svg")


def run_figures(series: RunSeries) -> dict[str, Figure]:
    """`fitness`, and where the run has it, `front`, `archive`, `layers` and `gate`; to be used within `style`."""
    figures = {"fitness": fitness_figure(series.curve, series.goal)}
    if series.marks or series.front is not None or (series.points is not None and len(series.points)):
        figures["front"] = front_figure(series)
    if series.archive is not None:
        figures["archive"] = archive_figure(series.archive)
    if series.strip is not None:
        figures["layers"] = layers_figure(series.strip)
    if series.gate:
        figures["gate"] = gate_figure(series.gate)
    return figures


def drawn(series: RunSeries, kind: str) -> dict[str, bytes]:
    """File name → its bytes, as `png` or `svg`: the same for the same run.

    Every kind has figures of its own: one that has been drawn is laid out a little differently the second time.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with style():
        return {f"{name}.{kind}": picture(figure, kind) for name, figure in run_figures(series).items()}


def write_plots(run: RunData, folders: Mapping[str, Path]) -> list[Path]:
    """Write the plots of a run, each kind into its folder; the files written.

    Args:
        run: finished or not.
        folders: `png` or `svg` → where to; made where it is not there.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the run has no generation yet, what it searched is not there any more, or a folder cannot be written
            to.
    """
    for kind, folder in folders.items():
        if is_file(folder):
            raise InputError(f"--{kind} {folder}: is a file; name a folder for the plots.")
    series = run_series(run)
    written = []
    for kind, folder in folders.items():
        for name, data in drawn(series, kind).items():
            write_atomic(folder / name, data)
            written.append(folder / name)
    return written
