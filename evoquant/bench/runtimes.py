"""The same network in PyTorch and in ONNX Runtime: the same allocations, and searches with the same budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant import api
from evoquant.campaign.build import make_executor, make_objective
from evoquant.campaign.build_measured import make_task, open_network
from evoquant.campaign.config import load_config
from evoquant.campaign.measure import measure_allocations
from evoquant.models.tasks import load_task
from evoquant.report.tables import Table
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.campaign.config import CampaignConfig

PASSES = 40
DRAWN = 20
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
    rows = []
    for runtime, changes in (("torch", []), ("onnx", [source, "signals=[divergence]"])):
        overrides = [f"cache={cache}", f"stop.passes={PASSES}", "executor.kind=local", *changes]
        run = api.run(configs / f"{task}.yaml", out=work / f"{task}-{runtime}", overrides=overrides)
        assert run.champion is not None
        config, _ = load_config(configs / f"{task}.yaml", overrides)
        rows.append(
            {
                "task": task,
                "runtime": runtime,
                "passes": sum(run.champion.provenance["budget"].values()),
                "fitness": {split: scores["fitness"] for split, scores in run.champion.scores.items()},
                "drawn": _retentions(config, cache).tolist(),
            }
        )
    return rows


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
        ratio = onnx["fitness"]["test"] / torch["fitness"]["test"]
        cells.append(
            (
                task,
                f"{torch['passes']:.1f}",
                f"{onnx['passes']:.1f}",
                f"{torch['fitness']['test']:.3f}",
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
        "onnx",
        "onnx / torch",
        "Retention apart, at most",
    )
    note = f"Retention of {DRAWN} random allocations on the whole calibration split, measured by both."
    return Table("Budget of 40 passes", columns, cells, (note,), frozenset(range(1, len(columns))))
