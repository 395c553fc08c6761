"""Commands over several runs: compare what was found, and what a part of a campaign is worth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoquant.campaign.storage_url import place_of
from evoquant.cli.output import draw, emit_json, say
from evoquant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.report.compare import Comparison
    from evoquant.report.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print the data.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print a row for each run.")]
PngOption = Annotated[Path | None, typer.Option("--png", help="Draw the best so far against the budget.")]
SvgOption = Annotated[Path | None, typer.Option("--svg", help="The same as SVG.")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="What decides: test where all have it, else what the searches saw.")
]


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(parser=place_of, metavar="RUN_DIR...", help="Run or sweep directories; the first group leads."),
    ],
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
    made = compared(_with_sweeps(runs), by=by or (), split=split, anyway=anyway)
    _show(made, form)
    _figures(made, png, svg)


def ablate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A campaign's YAML file.")],
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each, from the config's seed on.")] = 5,
    only: Annotated[str | None, typer.Option(help="Parts, comma-separated; default: all that there are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs; default runs/<name>-ablation.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key, for all runs.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the parts, and run nothing.")] = False,
    split: SplitOption = None,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
    as_csv: CsvOption = False,
    png: PngOption = None,
    svg: SvgOption = None,
) -> None:
    """Say what each part of a campaign is worth: run it whole and without one part at a time, with the same seeds.

    Runs that are finished are kept, so that the same command goes on after an interruption, or with more seeds.
    """
    from evoquant.bench.ablation import WITHOUT, parts_of
    from evoquant.bench.ablation import ablate as ablated
    from evoquant.campaign.config import load_config
    from evoquant.report.compare_statistics import pairs_needed
    from evoquant.report.compare_worth import parts_table, worth_data, worth_tables

    form = _form(as_json, as_markdown, as_csv)
    loaded, _ = load_config(config, overrides or ())
    names = [name.strip() for name in only.split(",")] if only else []
    parts = parts_of(loaded, str(config), names)
    shown = parts_table(loaded.name, {name: (part.off, part.overrides(loaded)) for name, part in parts.items()})
    if listing:
        _tables([shown], form, [{"part": row[0], "off": row[1], "by": row[2]} for row in shown.rows])
        return
    needed = pairs_needed(len(parts))
    if seeds < needed:
        say(f"{seeds} seeds can show no part's worth at 95% ({len(parts)} tests); {needed} could: --seeds {needed}")
    made = ablated(config, seeds=seeds, overrides=overrides or (), only=list(parts), out=out, split=split, say=say)
    if form == "csv":
        _show(made, form)
    else:
        groups = {f"{WITHOUT}{name}": name for name in parts}
        _tables([shown, *worth_tables(made, groups)], form, worth_data(made, groups))
    _figures(made, png, svg)


def _with_sweeps(paths: Sequence[Path]) -> list[Path]:
    """Run directories; a sweep's directory stands for those of its campaigns that have begun."""
    from evoquant.api.sweeps import is_sweep, opened_sweep
    from evoquant.report.sweep import begun_runs

    found: list[Path] = []
    for path in paths:
        begun = begun_runs(path, opened_sweep(path)) if is_sweep(path) else [path]
        if not begun:
            raise InputError(f"{path}: no campaign of this sweep has finished a generation yet; nothing to compare.")
        found += begun
    return found


def _tables(tables: Sequence[Table], form: str, data: Any) -> None:
    from evoquant.report.table import markdown

    if form == "json":
        emit_json(data)
    elif form == "markdown":
        sys.stdout.write(markdown(tables))
    elif form == "csv":
        raise InputError("--csv has a row for each run; --list runs nothing. Leave one out.")
    else:
        draw(tables)


def _form(as_json: bool, as_markdown: bool, as_csv: bool) -> str:
    chosen = [name for name, given in (("json", as_json), ("markdown", as_markdown), ("csv", as_csv)) if given]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(f'--{name}' for name in chosen)}: stdout takes one of them; choose one.")
    return chosen[0] if chosen else ""


def _show(made: Comparison, form: str) -> None:
    from evoquant.report.compare_tables import compare_csv, compare_data, compare_tables

    if form == "csv":
        sys.stdout.write(compare_csv(made))
    else:
        _tables(compare_tables(made), form, compare_data(made))


def _figures(made: Comparison, png: Path | None, svg: Path | None) -> None:
    from evoquant.files import write_atomic

    for path, kind in ((png, "png"), (svg, "svg")):
        if path is not None:
            from evoquant.report.compare_plot import curves_figure

            write_atomic(path, curves_figure(made, kind))
            say(f"wrote {path}")
