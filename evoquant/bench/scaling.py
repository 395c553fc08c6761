"""How far more workers help: costs measured on this machine, and runs on many workers simulated with them."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant import api
from evoquant.bench.simulation import Costs, Mode, batched, simulate
from evoquant.campaign.build import build_campaign
from evoquant.campaign.config import CampaignConfig
from evoquant.errors import InputError, MissingExtraError
from evoquant.execution.actors import Seat
from evoquant.execution.ray import RayExecutor
from evoquant.models.base import Request
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.testing.executors import echo, sleeper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evoquant.campaign.observer import Progress

Rows = list[dict[str, Any]]

ITEM_S = (0.001, 0.01, 0.1, 1.0)
WORK_S = 2.0  # of wall time that a measured efficiency takes at best
SEATS = (2, 64, 1000)  # for which the driver's time is measured
PLACED_BYTES = 100_000_000
WORKERS = (2, 8, 64, 256, 1000)
POPULATIONS = (100, 1000)
SIMULATED_ITEM_S = (0.1, 1.0, 10.0)
MODES: tuple[Mode, ...] = ("generational", "steady")
CANDIDATES = 10_000  # of a simulated run
REAL_RUNS = 3  # of each case that the simulation is held against
SAMPLES = 40
WARM = 12  # allocations before those that count: the first ones quantize every layer to every width


def measure_scaling(workers: Sequence[int] = WORKERS) -> Rows:
    """Everything: measured costs and efficiency, the simulation held against a real run, and simulated runs.

    About three minutes. Plain rows; `part` says which: `cost`, `driver`, `efficiency`, `validation`, `simulation`.

    Args:
        workers: how many to simulate.

    Raises:
        InputError: Ray is not there or cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="evoquant-scaling-") as folder:
        search = {population: generation_seconds(population, Path(folder)) for population in POPULATIONS}
        candidate_s = candidate_seconds(Path(folder))
        relative, spread = relative_costs(Path(folder))
    rows = [_cost(f"search between generations of {population}", seconds) for population, seconds in search.items()]
    rows.append(_cost("search for one candidate, steady", candidate_s))
    rows.append(_cost(f"spread of items: {spread}", float(np.std(relative)), unit="of the mean"))
    with RayExecutor(workers=2) as executor:
        began = time.perf_counter()
        executor.start(sleeper, 0)
        start_s = time.perf_counter() - began
        rows += [_cost("start of Ray with two workers", start_s), *placement_rows(executor)]
        drivers = {seats: driver_seconds(executor, seats) for seats in SEATS}
        rows += [{"part": "driver", "workers": seats, "seconds": seconds} for seats, seconds in drivers.items()]
        rows.append(_cost("worker's own time for a batch", worker_s := worker_seconds(executor)))
        rows += efficiency_rows(executor)
        rows += validation_rows(executor, relative, Costs(driver_s=drivers[2], worker_s=worker_s))
    for population in POPULATIONS:
        costs = {
            count: Costs(
                start_s=start_s,
                driver_s=driver_at(count, drivers),
                worker_s=worker_s,
                generation_s=search[population],
                candidate_s=candidate_s,
            )
            for count in workers
        }
        rows += simulation_rows(population, costs, relative)
    return rows


def _cost(what: str, seconds: float, unit: str = "s") -> dict[str, Any]:
    return {"part": "cost", "what": what, "value": seconds, "unit": unit}


class _Clock:
    """Hears how long generations took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def generation(self, progress: Progress) -> None:
        self.seconds.append(progress.seconds)

    def message(self, text: str) -> None:
        pass


def generation_seconds(population: int, folder: Path) -> float:
    """Median seconds of the driver for a generation of rules on profiles: ask, score, journal, tell, checkpoint."""
    config = folder / f"{population}.yaml"
    config.write_text("name: scaling\n", encoding="utf-8")
    clock = _Clock()
    overrides = ["executor.kind=local", "stop.generations=12", f"search.population={population}"]
    api.run(config, out=folder / str(population), overrides=overrides, observer=clock)
    return statistics.median(clock.seconds[2:])


def candidate_seconds(folder: Path, candidates: int = 400) -> float:
    """Mean seconds of the steady genetic search for one candidate: ask and tell."""
    from evoquant.search.steady import SteadyGenetic

    config = CampaignConfig.model_validate({"name": "scaling", "executor": {"kind": "local"}})
    spent = 0.0
    with closing(build_campaign(config, folder)) as campaign:
        assert campaign.space is not None
        search = SteadyGenetic(campaign.space, seed=0, in_flight=4)
        for count in range(2 * candidates):
            began = time.perf_counter()
            batch = search.ask()
            asked = time.perf_counter()
            evaluations = campaign.estimator.evaluate(batch, {})
            told = time.perf_counter()
            search.tell(evaluations)
            if count >= candidates:  # from then on it breeds
                spent += time.perf_counter() - told + asked - began
    return spent / candidates


def relative_costs(cache: Path) -> tuple[list[float], str]:
    """What measuring random allocations of a small network costs, over the mean; and where it is from, in words."""
    try:
        import torch

        from evoquant.models.measurer import start_measurer
        from evoquant.models.tasks import load_task

        task = load_task("digits", 0, cache)
        measurer = start_measurer(task.payload())
    except (ImportError, MissingExtraError, InputError):
        draws = generator_for(0, 0, "scaling").lognormal(0.0, 0.1, SAMPLES)
        return (draws / draws.mean()).tolist(), "log-normal, assumed: PyTorch is not there"
    rng, seconds = generator_for(0, 0, "scaling"), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers have it
    for _ in range(WARM + SAMPLES):
        widths = tuple(rng.choice(SEED_MENU.names, len(task.layers)).tolist())
        began = time.process_time()
        measurer([Request(widths, "calibration", block.index) for block in task.blocks("calibration")])
        seconds.append(time.process_time() - began)
    torch.set_num_threads(threads)
    kept = np.array(seconds[WARM:])
    return (kept / kept.mean()).tolist(), "digits, random allocations, CPU time"


def placement_rows(executor: RayExecutor) -> Rows:
    """Placing a payload once, and that a batch afterwards does not carry it."""
    import ray

    payload = np.zeros(PLACED_BYTES, dtype=np.uint8)
    began = time.perf_counter()
    reference = ray.put(payload)
    placed = time.perf_counter() - began
    del reference
    rows = [_cost(f"placing {PLACED_BYTES // 10**6} MB once for all workers", placed)]
    for what, given in (("no payload", None), (f"{PLACED_BYTES // 10**6} MB placed", payload)):
        executor.start(echo, given)
        rows.append(_cost(f"way of an empty batch there and back, {what}", _median(lambda: list(executor.map([0])))))
    return rows


def _median(call: Callable[[], Any], times: int = 50) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def driver_seconds(executor: RayExecutor, seats: int) -> float:
    """Seconds of the driver's thread for one batch, sent and taken, where it follows so many workers.

    Two actors stand in for all of them: what the driver does for each worker is real, only the workers are shared.
    """
    executor.start(echo, None)
    pool = executor._pool
    assert pool is not None
    actors = pool.seats
    batches = max(400, 3 * seats)
    try:
        pool.seats = [Seat(actor=actors[i % len(actors)].actor) for i in range(seats)]
        list(executor.map([0] * batches))
        began = time.thread_time()
        list(executor.map([0] * batches))
        return (time.thread_time() - began) / batches
    finally:
        pool.seats = actors


def worker_seconds(executor: RayExecutor, item_s: float = 0.01, items: int = 30) -> float:
    """Seconds of a worker for one batch besides its items: what a batch takes that waited already, less its sleep."""
    executor.start(sleeper, 0)
    pool = executor._pool
    assert pool is not None
    both = pool.seats
    try:
        pool.seats = both[:1]
        return max(0.0, _median(lambda: list(executor.map([item_s] * items)), 7) / items - item_s)
    finally:
        pool.seats = both


def driver_at(workers: int, measured: Mapping[int, float]) -> float:
    """The driver's seconds for one batch between the counts for which they were measured: linear."""
    return float(np.interp(workers, list(measured), list(measured.values())))


def efficiency_rows(executor: RayExecutor) -> Rows:
    """Sleeping items of several lengths on one and two workers, one by one and in batches sized by cost."""
    rows = []
    executor.start(sleeper, 0)
    pool = executor._pool
    assert pool is not None
    both = pool.seats
    for workers in (1, 2):
        pool.seats = both[:workers]
        for item_s in ITEM_S:
            items = [item_s] * max(2 * workers, round(WORK_S * workers / item_s))
            for batching, batches in (("one by one", items), ("sized", batched(items, workers))):
                began = time.perf_counter()
                list(executor.map(batches))
                wall = time.perf_counter() - began
                found = {"item_s": item_s, "workers": workers, "batching": batching, "batches": len(batches)}
                rows.append({"part": "efficiency", **found, "efficiency": sum(items) / workers / wall})
    pool.seats = both
    return rows


def validation_rows(executor: RayExecutor, relative: Sequence[float], costs: Costs) -> Rows:
    """Wall time of real runs of sleeping items on two workers, and what the simulation says of the same items."""
    executor.start(sleeper, 0)
    rows: Rows = []
    for item_s in (0.02, 0.1):
        for mode in MODES:
            items = _items(relative, item_s, 25 if item_s == 0.1 else 80, 2)
            between_s = 0.05 if mode == "generational" else 0.0
            wall = statistics.median(_real_run(executor, items, mode, between_s) for _ in range(REAL_RUNS))
            said = simulate(items, 2, replace(costs, generation_s=between_s), mode).wall_s
            case = {"mode": mode, "item_s": item_s, "population": len(items[0]), "generations": len(items)}
            rows.append({"part": "validation", **case, "simulated_s": said, "measured_s": wall})
    return rows


def _real_run(executor: RayExecutor, items: Sequence[Sequence[float]], mode: Mode, between_s: float) -> float:
    """Seconds that sleeping items take, `between_s` after each generation included."""
    began = time.perf_counter()
    if mode == "steady":
        list(executor.stream(item for generation in items for item in generation))
    else:
        for generation in items:
            list(executor.map(batched(generation, 2)))
            time.sleep(between_s)
    return time.perf_counter() - began


def simulation_rows(population: int, costs: Mapping[int, Costs], relative: Sequence[float]) -> Rows:
    """Runs of `CANDIDATES` items in generations, or without.

    Args:
        population: items of a generation.
        costs: number of workers → what is spent besides the items.
        relative: what items cost, over their mean; items are drawn from it.
    """
    rows: Rows = []
    for item_s in SIMULATED_ITEM_S:
        items = _items(relative, item_s, population, CANDIDATES // population)
        for mode in MODES:
            for workers, spent in costs.items():
                found = simulate(items, workers, spent, mode)
                case = {"population": population, "item_s": item_s, "mode": mode, "workers": workers}
                result = {"efficiency": found.efficiency, "speedup": found.speedup, "wall_s": found.wall_s}
                rows.append({"part": "simulation", **case, **result, "why": found.saturated_by, "losses": found.losses})
    return rows


def _items(relative: Sequence[float], item_s: float, population: int, generations: int) -> list[list[float]]:
    """`generations` lists of `population` seconds each."""
    rng = generator_for(0, population, "scaling items")
    drawn: list[list[float]] = (item_s * rng.choice(np.array(relative), (generations, population))).tolist()
    return drawn
