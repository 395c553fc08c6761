"""The same network in PyTorch and in ONNX Runtime: the same allocations, and searches with the same budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant import api
from evoquant.bench.settings import campaign_hash
from evoquant.campaign.build import make_executor, make_objective
from evoquant.campaign.build_measured import make_task, open_network, opened_network
from evoquant.campaign.config import load_config
from evoquant.campaign.finals_measured import Judge, measured_figures
from evoquant.campaign.measure import measure_allocations
from evoquant.campaign.score import allocation_of
from evoquant.models.tasks import load_task
from evoquant.report.table import Table
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.campaign.config import CampaignConfig

PASSES = 40
BUDGET = f"stop.passes={PASSES}"
DRAWN = 20
SIGNALS: dict[str, tuple[str, ...]] = {"torch": (), "onnx": ("signals=[divergence]",)}  # runtime → overrides
METRICS = {"char_lm": "perplexity"}  # whole-number targets mean classes unless it is said


def runtime_rows(configs: Path, task: str, work: Path) -> list[dict[str, Any]]:
    """A row for each runtime: the champion's scores, and retention of the same random allocations.

    Args:
        configs: folder with the task's config, `<task>.yaml`.
        task: an example task.
        work: folder for cache, export and run directories.
    """
    from evoquant.models.tasks.onnx_export import export_onnx

    cache = work / "cache"
    model = work / f"{task}.onnx"
    data = export_onnx(own := load_task(task, 0, cache), model)
    metric = f", metric: {METRICS[task]}" if task in METRICS else ""
    sizes = f"block: {own.block}, batch: {own.batch}"
    source = f"task={{kind: onnx, model: {model}, data: {data}, {sizes}{metric}}}"
    rows, widths = [], {}
    for runtime, changes in SIGNALS.items():
        mine = [source, *changes] if runtime == "onnx" else changes
        overrides = [f"cache={cache}", BUDGET, "executor.kind=local", *mine]
        run = api.run(configs / f"{task}.yaml", out=work / f"{task}-{runtime}", overrides=overrides)
        assert run.champion is not None
        if runtime == "torch":
            found = api.gated(run.path, ungated=True)
            assert found is not None
            champion, profile, menu = found
            problem = compile_problem(profile, menu)
            names = problem.unfold(champion.genome.allocate(problem))
            widths = dict(zip(problem.layers, names, strict=True))
        config, _ = load_config(configs / f"{task}.yaml", overrides)
        rows.append(
            {
                "task": task,
                "runtime": runtime,
                "passes": sum(run.champion.provenance["budget"].values()),
                "fitness": {split: scores["fitness"] for split, scores in run.champion.scores.items()},
                "drawn": _retentions(config, cache).tolist(),
                "of_torch": _test_fitness(config, cache, widths),
            }
        )
    return rows


def runtime_settings(config: Path, runtime: str) -> dict[str, Any]:
    """What a row of `runtime_rows` comes from: the task's campaign, and what the runtimes do in another way.

    The ONNX file and its samples are of the same campaign's task.
    """
    return {
        "campaign": campaign_hash(config, (BUDGET,)),
        "runtime": runtime,
        "signals": list(SIGNALS[runtime]),
        "metric": METRICS.get(config.stem, ""),
        "drawn": DRAWN,
    }


def _test_fitness(config: CampaignConfig, cache: Path, widths: dict[str, str]) -> float:
    """Fitness on test of an allocation by layer, as this runtime measures and counts it.

    A graph may hold constants that the network's parameters do not, such as masks, so sizes differ.
    """
    assert config.task is not None
    with opened_network(config.task, config.resolved_menu, (), cache) as opened:
        judge = Judge(opened.measurer, opened.problem, make_objective(config, (opened.problem,)), config.seed)
        return float(measured_figures(judge, allocation_of(widths, opened.problem, "torch"), "test")["fitness"])


def _retentions(config: CampaignConfig, cache: Path) -> NDArray[np.float64]:
    """`(DRAWN,)` retention on calibration of allocations drawn at random, the same for both runtimes."""
    assert config.task is not None
    executor = make_executor("local", None, None)
    opened = open_network(make_task(config.task, cache), config.resolved_menu, (), cache, executor)
    try:
        problem = opened.problem
        drawn = generator_for(0, 0, "runtimes").integers(1, len(problem.menu), (DRAWN, len(problem.units)))
        _, retentions, _ = measure_allocations(
            problem.repair(drawn.astype(np.int8)),
            problem,
            opened.measurer,
            "calibration",
            make_objective(config, (problem,)),
        )
        return np.array([retention.value for retention in retentions])
    finally:
        opened.store.close()
        executor.close()


def runtime_table(rows: list[dict[str, Any]]) -> Table:
    """Fitness of both runtimes' champions, their ratio, and how far the same allocations are apart."""
    cells = []
    for task in dict.fromkeys(row["task"] for row in rows):
        torch, onnx = (
            next(r for r in rows if r["task"] == task and r["runtime"] == which) for which in ("torch", "onnx")
        )
        apart = float(np.abs(np.array(torch["drawn"]) - np.array(onnx["drawn"])).max())
        ratio = onnx["fitness"]["test"] / onnx["of_torch"]
        cells.append(
            (
                task,
                f"{torch['passes']:.1f}",
                f"{onnx['passes']:.1f}",
                f"{torch['fitness']['test']:.3f}",
                f"{onnx['of_torch']:.3f}",
                f"{onnx['fitness']['test']:.3f}",
                f"{ratio:.1%}",
                f"{apart:.1e}",
            )
        )
    columns = (
        "Task",
        "Passes, torch",
        "onnx",
        "Test fitness, torch",
        "the same allocation in ONNX",
        "onnx",
        "onnx / torch's in ONNX",
        "Retention apart, at most",
    )
    sizes = "A graph counts constants that PyTorch has no parameters for (char_lm's masks): sizes and fitness differ."
    note = f"Retention of {DRAWN} random allocations on the whole calibration split, measured by both."
    return Table("Budget of 40 passes", columns, cells, (note, sizes), frozenset(range(1, len(columns))))
