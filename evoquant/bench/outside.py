"""Other people's optimisers beside ours on one budget: on the seed suite, the frozen tables and real networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant import api
from evoquant.bench.run import run_on_table
from evoquant.bench.settings import objective_settings, search_settings
from evoquant.bench.study import EVALUATIONS, uniform
from evoquant.bench.table import OBJECTIVE, load_table, table_settings
from evoquant.campaign.build_search import built_in_search
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.yaml_file import parse_yaml
from evoquant.genomes.direct import DirectSpace
from evoquant.report.data import load_run
from evoquant.report.study import study_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from evoquant.bench.run import AskTell

SEEDS, TABLE_SEEDS, NETWORK_SEEDS = 20, 20, 5
SUITE_EVALUATIONS = 400
PASSES = 80
POINTS = (50, 100, 200)

# search → its `search` part; where nothing is said each has its own defaults
SUITE = {
    "genetic": "{kind: genetic, population: 100, elites: 4}",
    "cmaes": "{kind: cmaes}",
    "map_elites": "{kind: map_elites, batch: 100, parts: 10}",
    "random": "{kind: random}",
    "pymoo GA": "{kind: pymoo, algorithm: GA}",
    "pymoo DE": "{kind: pymoo, algorithm: DE}",
    "pymoo PSO": "{kind: pymoo, algorithm: PSO}",
    "pymoo CMAES": "{kind: pymoo, algorithm: CMAES, options: {sigma: 0.3}}",
    "pymoo MixedVariableGA": "{kind: pymoo, algorithm: MixedVariableGA, options: {pop_size: 50}}",
    "Optuna TPE": "{kind: optuna, sampler: TPESampler}",
    "Optuna CMA-ES": "{kind: optuna, sampler: CmaEsSampler}",
    "pyribs CMA-ME": "{kind: pyribs, parts: 10}",
}
# Small populations for small budgets, as ours have there.
SMALL = {
    "pymoo GA": "{kind: pymoo, algorithm: GA, options: {pop_size: 8}}",
    "pymoo DE": "{kind: pymoo, algorithm: DE, options: {pop_size: 8}}",
    "pymoo PSO": "{kind: pymoo, algorithm: PSO, options: {pop_size: 8}}",
    "Optuna TPE": "{kind: optuna, sampler: TPESampler, options: {multivariate: true}}",
    "Optuna CMA-ES": "{kind: optuna, sampler: CmaEsSampler}",
    "pyribs CMA-ME": "{kind: pyribs, emitters: 1, batch: 8}",
}
# Chosen on other seeds than those that are reported; smaller ones converge, and wait long for something new.
TABLES = SMALL | {
    "pymoo GA": "{kind: pymoo, algorithm: GA, options: {pop_size: 16}}",
    "pymoo DE": "{kind: pymoo, algorithm: DE, options: {pop_size: 12}}",
    "pymoo PSO": "{kind: pymoo, algorithm: PSO, options: {pop_size: 16}}",
}
OURS_ON_TABLES = ("surrogate", "level_switch", "genetic", "nsga2", "random")  # in results/tabular.jsonl
NETWORKS = {
    "surrogate": "{kind: surrogate}",
    "level_switch": "{kind: level_switch, offspring: 4, initial: 4, moves: 2, step_rate: 0.9}",
    "genetic": "{kind: genetic, population: 8, elites: 2}",
    **{name: SMALL[name] for name in ("pymoo GA", "pymoo DE", "Optuna TPE", "pyribs CMA-ME")},
}
START = ("all_fp16", "uniform_int8", "uniform_int4")  # where anyone would begin who knows nothing


def suite_row(config: Path, search: str, seed: int, out: Path, level: float) -> dict[str, Any]:
    """One search of rules on the seed suite, from random genomes: scores, and the evaluation that reached `level`."""
    _run(config, out, suite_changes(search, seed))
    return {"part": "suite", "search": search, **study_row(load_run(out), level)}


def suite_changes(search: str, seed: int) -> list[str]:
    """Overrides of the campaign of `suite_row`."""
    stop = f"stop={{generations: 100000, evaluations: {SUITE_EVALUATIONS}}}"
    return [f"search={SUITE[search]}", f"seed={seed}", stop]


def _run(config: Path, out: Path, changes: list[str]) -> None:
    """Run a campaign in this process; begun before, go on, or take what is finished."""
    if (out / "resolved.json").is_file():
        api.resume(out)
    else:
        api.run(config, out=out, overrides=[*changes, "executor.kind=local"])


def table_row(table: str, search: str, seed: int) -> dict[str, Any]:
    """One search of an allocation where the truth is known: shares of the optimum, and the last best on test."""
    known = load_table(table)
    space = DirectSpace(known.problem)
    found = run_on_table(_made(TABLES[search], space, seed), space, known, EVALUATIONS)
    best = float(known.fitness[known.optimum])
    return {
        "part": "table",
        "table": table,
        "search": search,
        "seed": seed,
        "share": {str(point): float(found.best[point - 1]) / best for point in POINTS},
        "test": float(known.score(found.rows[-1:], "test").fitness[0]),
    }


def table_row_settings(table: str, search: str, seed: int) -> dict[str, Any]:
    """All that determines a row of `table_row`, as JSON."""
    return {
        **table_settings(table),
        "search": search,
        "options": search_settings(parse_yaml(TABLES[search], "search")),
        "start": "uniform",
        "seed": seed,
        "evaluations": EVALUATIONS,
        "points": list(POINTS),
        "objective": objective_settings(OBJECTIVE),
    }


def ours_on_table(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of results/tabular.jsonl in the form of `table_row`: the same budget, start and table."""
    return {
        "part": "table",
        "table": row["table"],
        "search": row["search"],
        "seed": row["seed"],
        "share": {str(point): row["share"][str(point)] for point in POINTS},
        "test": row["test"][str(EVALUATIONS)],
    }


def _made(text: str, space: DirectSpace, seed: int) -> AskTell:
    """A search as a config would name it, begun with the uniform allocations."""
    start = [genome.to_dict() for genome in uniform(space)]
    part = {**parse_yaml(text, "search"), "start": start}
    config = config_from_dict({"name": "table", "search": part}, "search")
    return built_in_search(config.search, space, seed, (space.problem,), OBJECTIVE)  # type: ignore[arg-type]


def network_row(config: Path, search: str, seed: int, work: Path) -> dict[str, Any]:
    """One search of an allocation of a real network: what was best on calibration, and the champion's scores."""
    task = config.stem
    out = work / f"{task}-{seed}" / search.replace(" ", "-")
    _run(config, out, [*network_changes(search, seed), f"cache={work}/cache-{task}-{seed}"])
    run = load_run(out)
    assert run.champion is not None
    return {
        "part": "network",
        "task": task,
        "search": search,
        "seed": seed,
        "config_hash": run.config_hash,
        "passes": sum(run.champion.provenance["budget"].values()),
        "best": run.journal[-1]["champion"]["fitness"],
        "test": run.champion.scores["test"]["fitness"],
        "retention": run.champion.scores["test"]["retention"],
    }


def network_changes(search: str, seed: int) -> list[str]:
    """Overrides of the campaign of `network_row`."""
    start = "" if search == "surrogate" else f", start: [{', '.join(START)}]}}"
    return [
        f"search={NETWORKS[search].removesuffix('}') + start if start else NETWORKS[search]}",
        f"signals=[{'fisher' if search == 'surrogate' else ''}]",
        "genome={kind: direct}",
        f"stop={{passes: {PASSES}, generations: 100000}}",
        f"seed={seed}",
        f"task.seed={seed}",
    ]
