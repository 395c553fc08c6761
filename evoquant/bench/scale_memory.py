"""Memory of two workers on one node that measure a network of some hundred megabytes: its weights lie there once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bench.nodes import Nodes
from evoquant.execution.ray import RayExecutor
from evoquant.models.base import REFERENCE
from evoquant.models.measurer import start_measurer
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.models.torch_task import TorchTask

WORKERS = 2
WIDTH, LAYERS = 4096, 6  # 4096² float32 weights each: 67 MB
STORE = 2 * 2**30  # bytes of the node's object store
WIDTH_MEASURED = "INT4-channel"
OBJECT_STORE = ("/plasma", "/dev/shm")


def settings() -> dict[str, Any]:
    """What determines the rows."""
    return {"part": "memory", "workers": WORKERS, "width": WIDTH, "layers": LAYERS, "measured": WIDTH_MEASURED}


def measure(folder: Path) -> list[dict[str, Any]]:
    """Rows: workers that have nothing, and that have measured the network at FP32 and at INT4, shared and copied.

    Raises:
        CampaignError: the node does not start.
    """
    task = large_task()
    weights_mb = sum(array.nbytes for array in task.state().values()) / 1e6
    rows = []
    with Nodes() as nodes, RayExecutor(workers=WORKERS, address=nodes.address) as executor:
        nodes.add(cpus=0)
        nodes.add(cpus=WORKERS, store=STORE)
        executor.start(probe, {})
        rows.append(_row("PyTorch alone", weights_mb, executor, None))
        for how, elsewhere in (("shared", True), ("copied, as it was before", False)):
            executor.start(probe, task.payload(elsewhere=elsewhere))
            for widths in (REFERENCE, WIDTH_MEASURED):
                row = _row(f"{how}: measured at {widths}", weights_mb, executor, (widths,) * len(task.layers))
                rows.append(row)
    return rows


def large_task() -> TorchTask:
    """A deep linear network with drawn weights, and a little data."""
    import torch
    from torch import nn

    from evoquant.models.torch_task import classification

    rng = generator_for(0, 0, "large network")
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)), nn.Linear(WIDTH, 10))
    network.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            drawn = rng.standard_normal(parameter.shape, dtype=np.float32) / np.sqrt(WIDTH)
            parameter.copy_(torch.from_numpy(drawn.astype(np.float32)))
    x, y = rng.standard_normal((64, WIDTH), dtype=np.float32), rng.integers(0, 10, 64)
    task = classification(network, calibration=(x, y), selection=(x, y), test=(x, y), block=64)
    return replace(task, travels=True)


def _row(when: str, weights_mb: float, executor: RayExecutor, widths: tuple[str, ...] | None) -> dict[str, Any]:
    found: list[Any] = list(executor.map([widths] * executor.workers))
    shares = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    return {"when": when, "workers": executor.workers, "weights_mb": weights_mb, "megabytes": shares}


def probe(payload: dict[str, Any]) -> Callable[[Any], dict[str, float]]:
    """Factory: a measurer; a batch is widths to measure, or None, and its result this process's memory."""
    import time

    import torch

    from evoquant.models.base import Request

    torch.zeros(1)
    measure = start_measurer(payload) if payload else None

    def work(widths: tuple[str, ...] | None) -> dict[str, float]:
        if measure is not None and widths is not None:
            measure([Request(widths, "calibration", 0)])
        time.sleep(1.0)  # so that each worker gets one
        return memory()

    return work


def memory() -> dict[str, float]:
    """MB of this process: `rss`, `pss`, `private`, and `weights_private` of the object store's mapping.

    Only where Linux has /proc/self/smaps.
    """
    kinds = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}
    found = dict.fromkeys(("rss", "pss", "private", "weights_private"), 0.0)
    of_store = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        key, _, rest = line.partition(":")
        if key in kinds:
            size = int(rest.split()[0]) * 1024 / 1e6
            found[kinds[key]] += size
            if of_store and kinds[key] == "private":
                found["weights_private"] += size
        elif "-" in key and " " in line and not rest.endswith("kB"):
            of_store = any(word in line for word in OBJECT_STORE)
    return found
