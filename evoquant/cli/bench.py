"""`evoquant bench`: searches judged where the truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evoquant.cli.output import draw, emit_json, say
from evoquant.errors import InputError


def bench(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="tabular: networks of which all was measured.")],
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

    if what != "tabular":
        raise InputError(f"bench {what}: there is no such benchmark; use: evoquant bench tabular.")
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
