"""`evoquant bench`: how fast it is on this machine, how it scales, and searches judged where the truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evoquant.cli.output import draw, emit_json, say
from evoquant.errors import InputError

bench = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode=None)

MOST_WORKERS = 100_000
ROUNDS = 5

RoundsOption = Annotated[int, typer.Option(min=1, help="Interleaved rounds: one ratio each.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")]


@bench.callback()
def speed(
    context: typer.Context,
    only: Annotated[
        str | None, typer.Option(help="Topics, comma-separated: rules, trees, engine, networks, cluster, start.")
    ] = None,
    rounds: RoundsOption = ROUNDS,
    as_json: JsonOption = False,
) -> None:
    """How fast evoquant is on this machine, beside the plain ways and other libraries; a few minutes.

    `scaling` and `tabular` are benchmarks of their own.
    """
    if context.invoked_subcommand is not None:
        if only is not None or as_json or rounds != ROUNDS:
            raise InputError(
                f"--only, --rounds and --json stand before {context.invoked_subcommand!r}, which has options of its "
                f"own; put them behind it, or leave it out."
            )
        return
    from evoquant.bench.speed import machine, measured
    from evoquant.report.performance import machine_note, performance_table

    about = machine()
    rows = []
    for topic, measures in measured(only.split(",") if only else (), rounds, None if only else say):
        found = [measure.to_row() for measure in measures]
        rows += found
        if not as_json:
            draw([performance_table(topic, found)])
    if as_json:
        emit_json([about, *rows])
    else:
        say(machine_note(about))


@bench.command()
def scaling(
    workers: Annotated[str, typer.Option(help="How many workers to simulate, comma-separated.")] = "2,8,64,256,1000",
    as_json: JsonOption = False,
) -> None:
    """How far more workers help: measured with two here, simulated with these costs for more; about three minutes."""
    from evoquant.bench.scaling import measure_scaling
    from evoquant.report.scaling import scaling_tables

    counts = workers.split(",")
    if not all(count.strip().isdecimal() and 0 < int(count) <= MOST_WORKERS for count in counts):
        raise InputError(f"--workers {workers}: give whole numbers from 1 to {MOST_WORKERS:,}, such as 64,1000.")
    rows = measure_scaling([int(count) for count in counts])
    if as_json:
        emit_json(rows)
    else:
        draw(scaling_tables(rows))


@bench.command()
def tabular(
    table: Annotated[str | None, typer.Option(help="Frozen tables, comma-separated; default: all.")] = None,
    searches: Annotated[str | None, typer.Option(help="Searches, comma-separated; default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of each search.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one row for each search and seed.")] = False,
    rebuild: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Train, measure and profile anew, into this folder.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="With --rebuild: the folder of Fashion-MNIST.")] = None,
) -> None:
    """Judge searches on networks of which every allocation has been measured; the best one is known.

    Rebuilding both tables takes about five CPU minutes in one thread.
    """
    from evoquant.bench.study import SEARCHES, facts, run_study
    from evoquant.bench.table import NAMES
    from evoquant.report.tabular import tabular_table

    names = table.split(",") if table else list(NAMES)
    if rebuild is not None:
        from evoquant.bench.rebuild import rebuild as make

        for name in names:
            say(f"{name}: {make(name, rebuild, data):.1f} CPU minutes; wrote {rebuild}/{name}.*")
        return
    if data is not None:
        raise InputError("--data belongs to --rebuild.")
    rows = run_study(names, searches.split(",") if searches else list(SEARCHES), range(seeds))
    if as_json:
        emit_json(rows)
        return
    draw([tabular_table(facts(name), rows) for name in names])
