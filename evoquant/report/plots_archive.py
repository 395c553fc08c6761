"""The front over named objectives, for a paper: projections side by side, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.report.palette import CHAMPION, series_colour
from evoquant.report.plots_style import DOUBLE, legend_above, light_grid, new_figure, printed, small_print

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evoquant.report.series_archive import ArchivePoints


def archive_figure(archive: ArchivePoints) -> Figure:
    """The archive's projections; to be used within `style`."""
    from matplotlib.ticker import PercentFormatter

    pairs = archive.pairs()
    figure = new_figure(DOUBLE, 2.6)
    handles = []
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        handles = [
            axes.scatter(
                archive.values[:, x], archive.values[:, y], s=8, color=series_colour(0), label="kept", zorder=2
            )
        ]
        if archive.champion is not None:
            at = archive.champion[x], archive.champion[y]
            handles.append(axes.scatter(*at, s=60, marker="*", color=CHAMPION, label="champion", zorder=3))
        axes.set_xlabel(printed(archive.axes[x]))
        axes.set_ylabel(printed(archive.axes[y]))
        if y == 0:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        light_grid(axes, "both")
    legend_above(figure, handles)
    small_print(figure, f"{archive.of:,} that nothing found beats in all objectives together; on {archive.split}")
    return figure
