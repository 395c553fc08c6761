"""Efficiency on 64 and 1,000 workers, simulated with costs that are measured here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bench.scaling import (
    CANDIDATES,
    candidate_seconds,
    driver_at,
    driver_seconds,
    generation_seconds,
    worker_seconds,
)
from evoquant.bench.simulation import Costs, Mode, simulate
from evoquant.execution.ray import RayExecutor
from evoquant.models.base import Request
from evoquant.rng import generator_for
from evoquant.testing.executors import sleeper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORKERS = (2, 64, 1000)
POPULATIONS = (1000, 10_000)
MODES: tuple[Mode, ...] = ("generational", "steady")
TASKS = ("digits", "char_lm")
SAMPLES, WARM = 40, 12


def settings() -> dict[str, Any]:
    """What determines the rows."""
    return {
        "part": "simulated",
        "workers": list(WORKERS),
        "populations": list(POPULATIONS),
        "tasks": list(TASKS),
        "candidates": CANDIDATES,
        "samples": SAMPLES,
    }


def measure(folder: Path) -> list[dict[str, Any]]:
    """Rows of every network, population, mode and number of workers.

    Raises:
        InputError: Ray is not there or cannot be started.
    """
    with RayExecutor(workers=2, address="local") as executor:
        executor.start(sleeper, 0)
        drivers = {seats: driver_seconds(executor, seats) for seats in (2, *WORKERS[1:])}
        worker_s = worker_seconds(executor)
    between = {population: generation_seconds(population, folder) for population in POPULATIONS}
    candidate_s = candidate_seconds(folder)
    rows = []
    for task in TASKS:
        measured = candidate_costs(task, folder)
        for population in POPULATIONS:
            rng = generator_for(0, population, "scale items")
            generations = max(1, 2 * CANDIDATES // population)
            items = rng.choice(np.array(measured), (generations, population)).tolist()
            for mode in MODES:
                for workers in WORKERS:
                    driver_s = driver_at(workers, drivers)
                    costs = Costs(
                        driver_s=driver_s,
                        worker_s=worker_s,
                        generation_s=between[population],
                        candidate_s=candidate_s,
                    )
                    found = simulate(items, workers, costs, mode)
                    case = {"what": task, "population": population, "mode": mode, "workers": workers}
                    result = {"efficiency": found.efficiency, "speedup": found.speedup, "losses": found.losses}
                    item_s = float(np.mean(measured))
                    rows.append({**case, "item_s": item_s, **result, "why": found.saturated_by})
    return rows


def candidate_costs(task: str, cache: Path) -> Sequence[float]:
    """Seconds of CPU that measuring random allocations of a network takes, each on all of its calibration split."""
    from evoquant.models.measurer import start_measurer
    from evoquant.models.tasks import load_task
    from evoquant.models.torch_threads import one_thread

    loaded = load_task(task, 0, cache)
    measurer = start_measurer(loaded.payload())
    menu = ("INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32")
    rng, found = generator_for(0, 0, "scale allocations"), []
    with one_thread():
        for _ in range(WARM + SAMPLES):
            widths = tuple(rng.choice(menu, len(loaded.layers)).tolist())
            began = time.process_time()
            measurer([Request(widths, "calibration", block.index) for block in loaded.blocks("calibration")])
            found.append(time.process_time() - began)
    return found[WARM:]
