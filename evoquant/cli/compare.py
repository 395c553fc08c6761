"""Commands over several runs: compare what was found, and what a part of a campaign is worth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoquant.cli.output import draw, emit_json, say
from evoquant.errors import InputError

if TYPE_CHECKING:
    from evoquant.report.compare import Comparison

JsonOption = Annotated[bool, typer.Option("--json", help="Print the data.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print a row for each run.")]
PngOption = Annotated[Path | None, typer.Option("--png", help="Draw the best so far against the budget.")]
SvgOption = Annotated[Path | None, typer.Option("--svg", help="The same as SVG.")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="What decides: test where all have it, else what the searches saw.")
]


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Run directories; the first group leads.")],
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="NAME=GLOB", help="A group of your own; may be repeated.")
    ] = None,
    split: SplitOption = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also what cannot be compared; it says so.")] = False,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
    as_csv: CsvOption = False,
    png: PngOption = None,
    svg: SvgOption = None,
) -> None:
    """Compare runs: fitness, budgets, and whether their seeds can tell them apart.

    Runs of one config apart from its seeds are a group, and the groups are held against the first.
    """
    from evoquant.report.compare import compare as compared

    form = _form(as_json, as_markdown, as_csv)
    made = compared(runs, by=by or (), split=split, anyway=anyway)
    _show(made, form)
    _figures(made, png, svg)


def _form(as_json: bool, as_markdown: bool, as_csv: bool) -> str:
    chosen = [name for name, given in (("json", as_json), ("markdown", as_markdown), ("csv", as_csv)) if given]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(f'--{name}' for name in chosen)}: stdout takes one of them; choose one.")
    return chosen[0] if chosen else ""


def _show(made: Comparison, form: str) -> None:
    from evoquant.report.compare_tables import compare_csv, compare_data, compare_tables
    from evoquant.report.table import markdown

    if form == "json":
        emit_json(compare_data(made))
    elif form == "csv":
        sys.stdout.write(compare_csv(made))
    elif form == "markdown":
        sys.stdout.write(markdown(compare_tables(made)))
    else:
        draw(compare_tables(made))


def _figures(made: Comparison, png: Path | None, svg: Path | None) -> None:
    from evoquant.files import write_atomic

    for path, kind in ((png, "png"), (svg, "svg")):
        if path is not None:
            from evoquant.report.compare_plot import curves_figure

            write_atomic(path, curves_figure(made, kind))
            say(f"wrote {path}")
