"""The command for many campaigns as one job; `resume`, `report` and `compare` take its directory, too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoquant.cli.output import draw, emit_json, show
from evoquant.errors import CampaignError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.api.sweeps import SweepResult


def sweep(
    config: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep's YAML file.")],
    out: Annotated[Path | None, typer.Option(help="The sweep's directory; default runs/<name>.")] = None,
    executor: Annotated[
        str | None, typer.Option("--executor", help="ray (default), local: in turn, or your own as module:Class.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="How many campaigns run at once.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="An existing Ray cluster; else RAY_ADDRESS.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the base.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Check and list the campaigns, and run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table's data.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    progress: Annotated[
        str | None, typer.Option("--progress", help="bar, plain (messages alone), json or none, on stderr.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")] = False,
) -> None:
    """Run many campaigns as one job: the product of lists of keys, with one store of outcomes and one table at the end.

    Campaigns take turns on the workers. Stopped in any way, the same command goes on, as does resume with its
    directory; finished campaigns are kept, and the journals end as if nothing had happened.
    """
    form = table_form(as_json, as_markdown)
    if listing:
        _list(config, overrides or (), form)
        return
    from evoquant.api.sweeps import sweep as run_sweep

    with sweep_watcher(progress, quiet) as observer:
        made = run_sweep(
            config,
            out=out,
            overrides=overrides or (),
            executor=executor,
            workers=workers,
            address=address,
            observer=observer,
        )
    finish_sweep(made, form)


def resume_sweep(
    folder: Path,
    *,
    executor: str | None,
    workers: int | None,
    address: str | None,
    allow_code: Sequence[str],
    progress: str | None,
    quiet: bool,
) -> None:
    """Go on with a sweep."""
    from evoquant.api.sweeps import resume_sweep as resumed

    with sweep_watcher(progress, quiet) as observer:
        made = resumed(
            folder, executor=executor, workers=workers, address=address, allow_code=allow_code, observer=observer
        )
    finish_sweep(made, "")


def report_sweep(folder: Path, *, as_json: bool, as_markdown: bool, others: bool) -> None:
    """Show a sweep's table, also while it runs."""
    from evoquant.api.sweeps import read_sweep

    if others:
        raise InputError(
            f"{folder}: a sweep has one table; give the run directory of one of its campaigns for --html, --png, --svg "
            f"and --why, or see: evoquant compare {folder} --svg curves.svg"
        )
    made = read_sweep(folder)
    _show(made, table_form(as_json, as_markdown))
    if made.data["unfinished"] and not as_json and not as_markdown:
        show(f"not finished; continue with: evoquant resume {folder}")


def sweep_watcher(mode: str | None, quiet: bool) -> Any:
    """Who tells how a sweep goes."""
    from evoquant.report.sweep_progress import sweep_observer

    if quiet and mode not in (None, "none"):
        raise InputError(f"--quiet tells nothing, and --progress {mode} does; give one of them.")
    return sweep_observer("none" if quiet else mode)


def finish_sweep(made: SweepResult, form: str) -> None:
    """The table, and where everything is.

    Raises:
        CampaignError: where campaigns failed, so that the command ends with 1.
    """
    _show(made, form)
    if not form:
        if made.needed:
            reused = made.needed - made.measured
            show(
                f"outcomes: {made.needed:,} that the campaigns needed, each by itself; {made.measured:,} measured, "
                f"{reused:,} reused"
            )
        show(f"results: {made.path}    report: evoquant report {made.path}    tests: evoquant compare {made.path}")
    if made.failed:
        count = made.data["campaigns"]
        raise CampaignError(
            f"{len(made.failed)} of {count} campaigns failed, {made.data['finished']} are finished; the same command "
            f"tries those that failed again"
        )


def table_form(as_json: bool, as_markdown: bool) -> str:
    """`json`, `markdown` or ''."""
    if as_json and as_markdown:
        raise InputError("--json and --markdown: stdout takes one of them; choose one.")
    return "json" if as_json else "markdown" if as_markdown else ""


def _show(made: SweepResult, form: str) -> None:
    from evoquant.report.sweep import sweep_table

    if form == "json":
        emit_json(made.data)
    elif form == "markdown":
        sys.stdout.write(sweep_table(made.data).to_markdown())
    else:
        draw([sweep_table(made.data)])


def _list(config: Path, overrides: Sequence[str], form: str) -> None:
    from evoquant.campaign.config_sweep import load_sweep
    from evoquant.report.sweep import cells_table

    loaded = load_sweep(config, overrides)
    if form == "json":
        emit_json([{"campaign": cell.name, "values": dict(cell.values)} for cell in loaded.cells])
    elif form == "markdown":
        sys.stdout.write(cells_table(loaded).to_markdown())
    else:
        draw([cells_table(loaded)])
