"""`evoquant report RUN_DIR --html FILE`: one page that needs nothing else, neither a server nor the network.

page_html(run) → the text of the file, the same for the same run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.in_memory import missing_parts
from evoquant.errors import MissingExtraError
from evoquant.report.figures import fitness_figure
from evoquant.report.figures_archive import archive_figure
from evoquant.report.figures_front import front_figure
from evoquant.report.figures_gate import gate_figure
from evoquant.report.figures_layers import layers_figure
from evoquant.report.page_genome import genome_html, genome_title
from evoquant.report.page_html import (
    Safe,
    data_script,
    details,
    document,
    element,
    joined,
    paragraphs,
    section,
    table_html,
)
from evoquant.report.page_run import folder_name, reproduce_html, run_html
from evoquant.report.page_script import SCRIPT
from evoquant.report.page_style import STYLE
from evoquant.report.page_verdict import headline, verdict_html
from evoquant.report.series import run_series
from evoquant.report.tables import run_tables
from evoquant.report.why import why_data, why_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.report.data import RunData
    from evoquant.report.figures import Figure
    from evoquant.report.series import RunSeries
    from evoquant.report.table import Table

BRIEF = 60  # rows of a table that is unfolded in print


def page_html(run: RunData) -> str:
    """The whole page of a run, finished or not.

    Raises:
        MissingExtraError: plotly is not installed.
        RunDirError: no generation is finished yet, or the journal was changed.
        InputError: a profile that the run searched is not there any more, or was changed since.
    """
    library, version = _plotly()
    series = run_series(run)
    figures = run_figures(run, series)
    body = joined([_header(run), _main(run, series, figures), _footer(run, version)])
    data = [data_script(f"{figure.name}-data", _figure_data(figure)) for figure in figures]
    return document(headline(run), STYLE, [library, SCRIPT], joined([body, *data]))


def run_figures(run: RunData, series: RunSeries) -> list[Figure]:
    """The figures in the page's order."""
    width_bits = {precision.name: float(precision.code_bits) for precision in run.config.resolved_menu}
    found: list[Figure | None] = [
        fitness_figure(series),
        front_figure(series, width_bits),
        layers_figure(series.strip) if series.strip is not None else None,
        gate_figure(series.gate),
        archive_figure(series.archive),
    ]
    return [figure for figure in found if figure is not None]


def _plotly() -> tuple[str, str]:
    """The library's script and version."""
    try:
        import plotly
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("a page with figures", "plotly", "report") from None
    return get_plotlyjs(), str(plotly.__version__)


def _figure_data(figure: Figure) -> dict[str, Any]:
    return {**figure.plot, "slider": figure.slider, "views": figure.views}


def _header(run: RunData) -> Safe:
    skip = element("a", "Skip to the verdict", href="#verdict", class_="skip")
    config = run.config
    kind = f"real network {config.task.kind}" if config.task is not None else "profiles"
    line = f"{folder_name(run)}: search {config.search.kind} over {config.genome.kind} genomes, on {kind}"
    return element("header", skip, element("h1", headline(run)), element("p", line, class_="note"))


def _main(run: RunData, series: RunSeries, figures: Sequence[Figure]) -> Safe:
    by_name = {figure.name: figure for figure in figures}
    gate = [_figure_html(by_name["gate"], heading="h3")] if "gate" in by_name else []
    parts = [section("verdict", "Verdict", verdict_html(run, series), *gate)]
    for name in ("fitness", "front", "archive", "layers"):
        if name in by_name:
            parts.append(section(name, by_name[name].title, _figure_html(by_name[name])))
        elif name == "front":
            held = ", ".join(missing_parts(run.config.own_parts(), "search", "objective"))
            missing = (
                "The run directory does not hold what it takes to place the candidates: "
                f"{f'{held}, in the memory of a Python program' if held else 'the model’s profile'}."
            )
            parts.append(section("front", "Retention and size", element("p", missing)))
    if run.champion is not None:
        genome = run.champion.genome
        parts.append(section("heuristic", genome_title(genome), genome_html(genome), _origin(run)))
    parts.append(section("why", "Why", *map(table_html, _why(run))))
    parts.append(section("tables", "All tables", *map(table_html, run_tables(run))))
    parts.append(section("run", "How it was run", run_html(run)))
    parts.append(section("reproduce", "Reproduce it", reproduce_html(run)))
    return element("main", *parts)


def _why(run: RunData) -> list[Table]:
    return why_tables(why_data(run))


def _origin(run: RunData) -> Safe:
    """Of which parents the champion is."""
    assert run.champion is not None
    known = run.champion.provenance
    operator, parents = known.get("operator"), known.get("parents") or []
    if not isinstance(operator, str) or not isinstance(parents, list):
        return Safe("")
    of = f" of {' × '.join(f'#{parent}' for parent in parents)}" if parents else ""
    text = f"Candidate #{known.get('id')}, made by {operator}{of}; chosen among {known.get('finalists')} finalists."
    return element("p", text, class_="note")


def _figure_html(figure: Figure, heading: str | None = None) -> Safe:
    """The figure with its finding for screen readers, what is said below it, and its numbers folded away."""
    parts: list[Safe] = [element(heading, figure.title)] if heading else []
    parts.append(_controls(figure))
    heard = f"{figure.kind}. {figure.finding}"
    parts.append(element("div", class_="plot", role="img", aria_label=heard, id=f"{figure.name}-plot"))
    said = [paragraphs(figure.notes, "note")]
    if figure.listed:
        said.insert(0, element("ol", *(element("li", line) for line in figure.listed)))
    parts.append(element("figcaption", element("p", figure.finding), *said))
    drawn = element("figure", *parts, data_figure=figure.name)
    if not figure.tables:
        return drawn
    brief = all(len(table.rows) <= BRIEF for table in figure.tables)
    numbers = details("The figure's numbers as tables", *map(table_html, figure.tables), brief=brief)
    return joined([drawn, numbers])


def _controls(figure: Figure) -> Safe:
    """A slider over the generations and buttons for the views; the page's script gives them their function."""
    parts: list[Safe] = []
    if figure.slider is not None:
        last = len(figure.slider["labels"]) - 1
        name = f"{figure.name}-slider"
        parts += [
            element("label", "Generation", for_=name),
            element("input", type="range", id=name, min=0, max=last, value=last, step=1),
            element("output", figure.slider["labels"][last], for_=name),
            element("button", "Play", type="button", class_="play"),
        ]
    if len(figure.views) > 1:
        first = next(iter(figure.views))
        parts += [
            element("button", f"Show {view}", type="button", data_view=view, aria_pressed=str(view == first).lower())
            for view in figure.views
        ]
    return element("div", *parts, class_="controls") if parts else Safe("")


def _footer(run: RunData, version: str) -> Safe:
    text = (
        f"Made by evoquant from the run directory {folder_name(run)}. Its figures are drawn by plotly.js (MIT "
        f"licence), of plotly {version}, a part of this file: nothing is loaded from anywhere."
    )
    return element("footer", element("p", text, class_="note"))
