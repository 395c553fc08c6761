"""The studies of other people's optimisers: one that repeats to the bit, one on networks that are trained."""

from __future__ import annotations

from collections.abc import Mapping

from evoquant.bench import outside
from evoquant.bench.settings import Settings, campaign_hash
from evoquant.bench.studies import Cell, Place, Row, Study, by_cell, in_order
from evoquant.bench.studies_suite import LEVEL
from evoquant.bench.table import NAMES
from evoquant.report.outside import network_table, suite_table, truth_table
from evoquant.report.table import markdown

TASKS = ("digits", "tabular")
NEEDS = ("pymoo", "optuna", "ribs")
SUITE = "suite"
HEAD = """# Other people's optimisers beside ours

Made by `python experiments/16_outside.py` and `python experiments/17_outside_networks.py`: algorithms of pymoo,
samplers of Optuna and emitters of pyribs as searches (`search: {kind: pymoo, …}`), in the same loop, on the same
budget. Rules begin at random; allocations begin with the uniform ones, but for the surrogate, which reads Fisher costs
instead and pays for them. Each has its own defaults on the suite, and small populations (8 to 16) on the tables and the
network, as ours have. A test is two-sided, of ranks, with Holm's correction for all searches that met the same one of
ours; where it says neither better nor worse, the runs show no difference. It is of what was searched: evaluations, or
fitness on the training profile or the calibration data. Figures on test stand beside it, untested; who comes nearer to
the optimum of the calibration data does not by that end higher on test (see fashion-mixer).

"""


def outside_text(place: Place) -> dict[str, str]:
    """results/outside.md from the rows of both studies."""
    rows, networks = place.rows("outside"), place.rows("outside_networks")
    suite = [row for row in rows if row["part"] == SUITE]
    budget = outside.SUITE_EVALUATIONS
    tables = [
        suite_table(
            f"Rules on the seed suite: evaluations until the train optimum, budget {budget:,}",
            suite,
            ("genetic", "cmaes", "map_elites"),
            budget,
        )
    ]
    for name in NAMES:
        own = [row for row in place.rows("tabular") if row["table"] == name and row["seed"] < outside.SEEDS]
        mine = [outside.ours_on_table(row) for row in own if row["search"] in outside.OURS_ON_TABLES]
        mine += [row for row in rows if row.get("table") == name]
        title = f"An allocation where the truth is known, {name}: share of the optimum"
        tables.append(truth_table(title, mine, ("surrogate", "genetic", "level_switch")))
    for task in TASKS:
        mine = [row for row in networks if row["task"] == task]
        if mine:
            size = f"{outside.NETWORK_SEEDS} seeds, {outside.PASSES} passes"
            title = f"An allocation of a real network, {task}: fitness, {size}"
            tables.append(network_table(title, mine, ("surrogate", "genetic", "level_switch")))
    return {"outside.md": HEAD + markdown(tables)}


def outsiders() -> Study:
    """Other people's optimisers on the seed suite and on the frozen tables, 20 seeds each."""
    cells: list[Cell] = [(SUITE, search, str(seed)) for search in outside.SUITE for seed in range(outside.SEEDS)]
    cells += [
        (table, search, str(seed))
        for table in NAMES
        for search in outside.TABLES
        for seed in range(outside.TABLE_SEEDS)
    ]

    def measure(cell: Cell, place: Place) -> list[Row]:
        where, search, seed = cell
        if where != SUITE:
            return [outside.table_row(where, search, int(seed))]
        out = place.work / f"{search}-{seed}".replace(" ", "-")
        return [outside.suite_row(place.config("evolve"), search, int(seed), out, LEVEL)]

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        where, search, seed = cell
        if where != SUITE:
            return outside.table_row_settings(where, search, int(seed))
        return campaign_hash(place.config("evolve"), outside.suite_changes(search, int(seed)))

    part = by_cell("outside", lambda row: (row.get("table", SUITE), row["search"], str(row["seed"])))
    script = "experiments/16_outside.py"
    whole = in_order("outside")
    return Study("outside", script, cells, measure, outside_text, part, whole, settings, 30, 20, needs=NEEDS)


def outside_networks() -> Study:
    """Other people's optimisers on a real network, five seeds each, a new training, split and search."""
    cells: list[Cell] = [
        (task, search, str(seed))
        for task in TASKS
        for seed in range(outside.NETWORK_SEEDS)
        for search in outside.NETWORKS
    ]

    def measure(cell: Cell, place: Place) -> list[Row]:
        task, search, seed = cell
        return [outside.network_row(place.config(task), search, int(seed), place.work)]

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        task, search, seed = cell
        return campaign_hash(place.config(task), outside.network_changes(search, int(seed)))

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        return {"outside_networks": [row for rows in found.values() for row in rows]}

    return Study(
        "outside_networks",
        "experiments/17_outside_networks.py",
        cells,
        measure,
        outside_text,
        by_cell("outside_networks", lambda row: (row["task"], row["search"], str(row["seed"]))),
        whole,
        settings,
        50,
        40,
        trained=True,
        elsewhere=True,  # digits on the CPU of results/performance.jsonl, tabular on one with fewer instructions
        needs=("torch", "sklearn", *NEEDS),
    )
