"""What Ray adds to items of 0.1 s on two workers, in percent of the ideal: half of the items' time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from evoquant.bench.contest import ROUNDS, Measure
from evoquant.execution.ray import RayExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2
ITEM_S = 0.1
ITEMS = 40
GOAL = 8.0
SPIN_CORES = 4  # workers, driver and Ray's own processes: with fewer, what spins shares its core


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Percent over the ideal, for items that sleep and, with enough cores, that compute; by turns.

    Raises:
        InputError: Ray cannot be started.
    """
    kinds = ["sleep", "spin"] if (os.cpu_count() or 1) >= SPIN_CORES else ["sleep"]
    over: dict[str, list[float]] = {kind: [] for kind in kinds}
    with RayExecutor(workers=WORKERS) as executor:
        executor.start(worker, ITEM_S)
        list(executor.map(kinds * WORKERS))
        for turn in range(rounds):
            for kind in kinds if turn % 2 == 0 else reversed(kinds):
                over[kind].append(overhead(executor, kind))
    how = "" if len(kinds) > 1 else f" Items that compute would need {SPIN_CORES} cores to be told from their rivals."
    remark = f"{ITEMS} items, one in a batch, on workers that have started.{how}"
    return [
        Measure(
            "cluster", f"items that {kind} for {ITEM_S:g} s, {WORKERS} workers", tuple(values), "%", GOAL, {}, remark
        )
        for kind, values in over.items()
    ]


def overhead(executor: RayExecutor, kind: str) -> float:
    """Percent of wall time over the ideal."""
    began = time.perf_counter()
    list(executor.map([kind] * ITEMS))
    return ((time.perf_counter() - began) * WORKERS / (ITEMS * ITEM_S) - 1.0) * 100.0


def worker(item_s: float) -> Callable[[str], Any]:
    """Factory: an item sleeps or computes for `item_s` seconds."""

    def work(kind: str) -> None:
        if kind == "sleep":
            time.sleep(item_s)
            return
        began = time.perf_counter()
        while time.perf_counter() - began < item_s:
            pass

    return work
