"""The command that shows what a run found: tables, data, a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evoquant.campaign.storage_url import place_of
from evoquant.cli.deploy import AllowOption
from evoquant.cli.output import draw, emit, say, show
from evoquant.errors import InputError

RunDirArgument = Annotated[
    Path,
    typer.Argument(
        parser=place_of, metavar="RUN_DIR", help="A run directory, such as runs/evolve-0 or s3://bucket/runs/evolve-0."
    ),
]


def report(
    run_dir: RunDirArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report's data.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page, one file; needs the extra report.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write plots for slides; needs the extra report.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="DIR", help="Write plots for papers; needs the extra report.")
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Why the champion looks as it does, instead.")] = False,
    allow_code: AllowOption = None,
) -> None:
    """Show what a run, or a sweep, found; also while it is running."""
    from evoquant.api.sweeps import is_sweep

    if is_sweep(run_dir):
        from evoquant.cli.sweep import report_sweep

        report_sweep(run_dir, as_json=as_json, as_markdown=as_markdown, others=bool(html or png or svg or why))
        return
    from evoquant.campaign.build import require_allowed
    from evoquant.files import pretty_json
    from evoquant.report.data import load_run, report_data
    from evoquant.report.tables import markdown, run_tables

    if (html or png or svg) and (as_json or as_markdown or why):
        raise InputError("--html, --png and --svg write files; leave --json, --markdown and --why for another call.")
    if why and as_json:
        raise InputError("--why: is for people and not in --json; leave one of them out.")
    data = load_run(run_dir)
    require_allowed(data.config, allow_code or (), run_dir)
    if html is not None:
        from evoquant.report.page import page_html

        emit(page_html(data), html)
    folders = {kind: folder for kind, folder in (("png", png), ("svg", svg)) if folder is not None}
    if folders:
        from evoquant.report.plots import write_plots

        for path in write_plots(data, folders):
            say(f"wrote {path}")
    if html is not None or folders:
        return
    summary = report_data(data)
    if as_json:
        sys.stdout.write(pretty_json(summary))
        return
    if why:
        from evoquant.report.why import why_data, why_tables

    tables = why_tables(why_data(data)) if why else run_tables(data)
    if as_markdown:
        sys.stdout.write(markdown(tables))
        return
    draw(tables)
    if why:
        return
    spent = summary["evaluations"]
    line = f"{summary['generations']} generations, {spent['asked']} candidates asked, {spent['distinct']} distinct"
    if "budget" in summary:
        budget = summary["budget"]
        line += (
            f"; passes over the calibration split: {budget['search_passes']:g} search, "
            f"{budget['signal_passes']:g} signals"
        )
        apart = {**summary.get("finalist_passes", {}), "gate": summary["gate"]["passes"]} if "gate" in summary else {}
        line += "".join(f", {passes} over the {split} split" for split, passes in apart.items())
    show(f"{line}; seed {summary['seed']}, config {summary['config_hash'][:12]}")
    if summary["failures"]:
        show(f"{summary['failures']} candidates failed; see `failures` in journal.jsonl")
    if not summary["finished"]:
        show(f"not finished; continue with: evoquant resume {run_dir}")
