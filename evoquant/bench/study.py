"""Searches side by side on the frozen tables: the expected best after so many evaluations, over many seeds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bench.rivals import Flips, Steepest, Tpe, uniform_genes
from evoquant.bench.run import NONE, run_on_table, signal_evaluations
from evoquant.bench.settings import objective_settings, search_settings
from evoquant.bench.table import NAMES, OBJECTIVE, load_table, table_settings
from evoquant.campaign.build_search import MODELLING
from evoquant.campaign.build_search import SEARCHES as BUILT_IN
from evoquant.errors import InputError, suggestion
from evoquant.genomes.direct import DirectSpace
from evoquant.search.random import RandomSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.bench.run import AskTell, Trajectory
    from evoquant.genomes.direct import Direct

POINTS = (20, 50, 100, 200)
EVALUATIONS = POINTS[-1]


@dataclass(frozen=True)
class Entry:
    """A search that is judged.

    Attributes:
        make: (space, seed) → a fresh search.
        settings: what it was given, for the record.
        options: the same as JSON; of a search of evoquant's its `search` part of a config.
        signals: of the profile that it reads; their passes count as evaluations.
        seeded: whether the seed matters; else it runs once.
    """

    make: Callable[[DirectSpace, int], AskTell]
    settings: str
    options: Mapping[str, Any]
    signals: tuple[str, ...] = ()
    seeded: bool = True


def uniform(space: DirectSpace) -> tuple[Direct, ...]:
    """The menu's uniform allocations: where anyone would begin who knows nothing."""
    return tuple(space.decode(row) for row in uniform_genes(space))


def _own(kind: str, signals: tuple[str, ...] = (), **settings: Any) -> Entry:
    """One of evoquant's own; all but those that model the network begin with the uniform allocations."""
    search, settings_class = BUILT_IN[kind]()

    def make(space: DirectSpace, seed: int) -> AskTell:
        given = settings_class(**settings)
        if kind in MODELLING:
            return search(space, seed=seed, settings=given, problem=space.problem, objective=OBJECTIVE)
        return search(space, seed=seed, settings=given, start=uniform(space))

    text = ", ".join(f"{key} {value}" for key, value in settings.items())
    return Entry(make, text, {"kind": kind, **settings}, signals)


FLOOR = OBJECTIVE.threshold
# Settings of the rivals were chosen for the tables, on other seeds than those that are reported.
SEARCHES: dict[str, Entry] = {
    "surrogate": _own("surrogate", signals=("fisher",), batch=1),
    "level_switch": _own("level_switch", offspring=4, initial=4, moves=2, step_rate=0.9),
    "genetic": _own("genetic", population=8, elites=2, mutation_rate=0.1),
    "nsga2": _own("nsga2", population=8, mutation_rate=0.1, floor=FLOOR),
    "random": Entry(
        lambda space, seed: RandomSearch(space, seed=seed, population=1), "", {"kind": "random", "population": 1}
    ),
    "tpe": Entry(Tpe, "multivariate", {"multivariate": True}),
    "flips": Entry(lambda space, seed: Flips(space, FLOOR), f"floor {FLOOR:g}", {"floor": FLOOR}, seeded=False),
    "steepest": Entry(lambda space, seed: Steepest(space, FLOOR), f"floor {FLOOR:g}", {"floor": FLOOR}, seeded=False),
}


@dataclass(frozen=True)
class Job:
    """One search with one seed on one table."""

    table: str
    search: str
    seed: int
    evaluations: int = EVALUATIONS


def run_study(
    tables: Sequence[str], searches: Sequence[str], seeds: Sequence[int], *, processes: int | None = None
) -> list[dict[str, Any]]:
    """One row for each table, search and seed, in this order; see `row_of`.

    Args:
        tables: names of frozen tables.
        searches: keys of `SEARCHES`.
        seeds: of each search; one that draws nothing runs with the first alone.
        processes: side by side; by default one a core, and none beside this one for a few jobs.

    Raises:
        InputError: no such table or search.
        MissingExtraError: Optuna is not installed.
    """
    for name in tables:
        if name not in NAMES:
            raise InputError(f"no table is called {name!r}.{suggestion(name, NAMES)}")
    for name in searches:
        if name not in SEARCHES:
            raise InputError(f"no search is called {name!r}.{suggestion(name, SEARCHES)}")
    jobs = [
        Job(table, search, seed)
        for table in tables
        for search in searches
        for seed in (seeds if SEARCHES[search].seeded else seeds[:1])
    ]
    count = min(processes or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        return [row_of(job) for job in jobs]
    # Forking a process that has started threads can hang; a fresh interpreter cannot.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(row_of, jobs, chunksize=max(1, min(10, len(jobs) // (4 * count)))))


def row_of(job: Job) -> dict[str, Any]:
    """One run as plain data.

    `best` and `test` are the fitness on calibration and on test of the best allocation after each of `POINTS`
    evaluations, `share` is the former over the table's optimum; `allocation` is the last one.
    """
    table = load_table(job.table)
    found = trajectory(job)
    points = [point for point in POINTS if point <= job.evaluations]
    rows = found.rows[[point - 1 for point in points]]
    test = table.score(rows.clip(min=0), "test").fitness
    optimum = float(table.fitness[table.optimum])
    last = int(rows[-1])
    return {
        "table": job.table,
        "search": job.search,
        "settings": SEARCHES[job.search].settings,
        "seed": job.seed,
        "spent": found.spent,
        "best": {str(point): float(found.best[point - 1]) for point in points},
        "share": {str(point): float(found.best[point - 1]) / optimum for point in points},
        "test": {
            str(point): float(value) if row != NONE else 0.0
            for point, row, value in zip(points, rows.tolist(), test.tolist(), strict=True)
        },
        "allocation": "" if last == NONE else "".join(map(str, table.allocations(rows[-1:])[0].tolist())),
    }


def job_settings(job: Job) -> dict[str, Any]:
    """All that determines the row of a job, as JSON."""
    entry = SEARCHES[job.search]
    return {
        **table_settings(job.table),
        "search": job.search,
        "options": search_settings(entry.options) if "kind" in entry.options else dict(entry.options),
        "signals": list(entry.signals),
        "seed": job.seed,
        "evaluations": job.evaluations,
        "points": list(POINTS),
        "objective": objective_settings(OBJECTIVE),
    }


def trajectory(job: Job) -> Trajectory:
    """Run one job."""
    table, entry = load_table(job.table), SEARCHES[job.search]
    space = DirectSpace(table.problem)
    spent = signal_evaluations(table, entry.signals)
    return run_on_table(entry.make(space, job.seed), space, table, job.evaluations, spent=spent)


def facts(name: str) -> dict[str, Any]:
    """What is known of a table: its optimum, how rare it is, and what that optimum is worth on test."""
    table = load_table(name)
    fitness, best = table.fitness, table.optimum
    row = np.array([best])
    return {
        "table": name,
        "units": len(table.problem.units),
        "allocations": len(table),
        "feasible": float((table.retention(np.arange(len(table))) >= FLOOR).mean()),
        "optimum": float(fitness[best]),
        "allocation": "".join(map(str, table.allocations(row)[0].tolist())),
        "retention": float(table.retention(row)[0]),
        "within": {str(share): int((fitness >= (1 - share / 100) * fitness[best]).sum()) for share in (1, 3, 5)},
        "test": float(table.score(row, "test").fitness[0]),
        "best_test": float(table.score(np.arange(len(table)), "test").fitness.max()),
        "samples": dict(table.samples),
    }
