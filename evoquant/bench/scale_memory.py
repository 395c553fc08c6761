"""Memory of two workers on one node that measure a network of some hundred megabytes: its weights lie there once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bench.nodes import Nodes
from evoquant.bench.scale_memory_onnx import large_onnx_task
from evoquant.execution.ray import RayExecutor
from evoquant.models.base import REFERENCE
from evoquant.models.measurer import start_measurer
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.models.onnx_task import OnnxTask
    from evoquant.models.torch_task import TorchTask

WORKERS = 2
WIDTH, LAYERS = 4096, 6  # 4096² float32 weights each: 67 MB
STORE = 2 * 2**30  # bytes of the node's object store
WIDTH_MEASURED = "INT4-channel"
OTHER_WIDTH = "INT8-channel"
TIMED = 6  # allocations, one after the other
THREE_LAYERS = 3 * WIDTH * WIDTH * 4  # bytes
OBJECT_STORE = ("/plasma", "/dev/shm")
EVERY_S = 0.02


@dataclass(frozen=True)
class Case:
    """A row: how the network came to the worker, at which width it is measured, and what is kept of its tensors.

    `onnx`: as an ONNX file, measured with onnxruntime.
    """

    when: str
    width: str
    shared: bool = True
    quantized_cache: int | None = None
    onnx: bool = False


CASES = (
    Case("shared: measured at FP32", REFERENCE),
    Case(f"shared: measured at {WIDTH_MEASURED}, whole", WIDTH_MEASURED),
    Case(f"shared: measured at {WIDTH_MEASURED}, layer by layer, 3 layers kept", WIDTH_MEASURED, True, THREE_LAYERS),
    Case(f"shared: measured at {WIDTH_MEASURED}, layer by layer, nothing kept", WIDTH_MEASURED, True, 0),
    Case("copied, as it was before: measured at FP32", REFERENCE, False),
    Case(f"copied, as it was before: measured at {WIDTH_MEASURED}, whole", WIDTH_MEASURED, False),
    Case("ONNX, shared: measured at FP32", REFERENCE, onnx=True),
    Case(f"ONNX, shared: measured at {WIDTH_MEASURED}, whole", WIDTH_MEASURED, onnx=True),
    Case(
        f"ONNX, shared: measured at {WIDTH_MEASURED}, in stages, 3 layers kept",
        WIDTH_MEASURED,
        True,
        THREE_LAYERS,
        True,
    ),
    Case(f"ONNX, shared: measured at {WIDTH_MEASURED}, in stages, nothing kept", WIDTH_MEASURED, True, 0, True),
)


def settings() -> dict[str, Any]:
    """What determines the rows."""
    sizes = {"workers": WORKERS, "width": WIDTH, "layers": LAYERS, "timed": TIMED}
    cases = [[case.when, case.width, case.shared, case.quantized_cache, case.onnx] for case in CASES]
    return {"part": "memory", **sizes, "cases": cases, "other": OTHER_WIDTH, "time": "processor"}


def measure(folder: Path) -> list[dict[str, Any]]:
    """Rows: workers that have nothing, and each of `CASES`.

    Raises:
        CampaignError: the node does not start.
    """
    task = large_task()
    onnx = large_onnx_task(WIDTH, LAYERS)
    megabytes = {
        False: sum(array.nbytes for array in task.state().values()) / 1e6,
        True: sum(array.nbytes for array in onnx.opened.weights.values()) / 1e6,
    }
    rows = []
    with Nodes() as nodes, RayExecutor(workers=WORKERS, address=nodes.address) as executor:
        nodes.add(cpus=0)
        nodes.add(cpus=WORKERS, store=STORE)
        executor.start(probe, {})
        rows.append(_row("PyTorch alone", megabytes[False], executor, None))
        for case in CASES:
            if case.onnx:
                measured: OnnxTask | TorchTask = replace(onnx, quantized_cache=case.quantized_cache)
            else:
                measured = replace(task, quantized_cache=case.quantized_cache)
            executor.start(probe, measured.payload(elsewhere=case.shared))
            allocations = _allocations(case.width, len(measured.layers))
            rows.append(_row(case.when, megabytes[case.onnx], executor, allocations))
    return rows


def _allocations(width: str, layers: int) -> list[tuple[str, ...]]:
    """The first at one width; in those that follow, each layer's is one of two, and the first layer's always changes.

    So that nothing of one is found again in the next but quantized weights.
    """
    if width == REFERENCE:
        return [(REFERENCE,) * layers]
    rng = generator_for(0, 0, "allocations")
    names = (width, OTHER_WIDTH)
    more = [(names[(i + 1) % 2], *(names[j] for j in rng.integers(0, 2, layers - 1))) for i in range(TIMED)]
    return [(width,) * layers, *more]


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


def _row(when: str, weights_mb: float, executor: RayExecutor, allocations: Any) -> dict[str, Any]:
    found: list[Any] = list(executor.map([allocations] * executor.workers))
    means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    timed = {"seconds": means.pop("seconds")} if "seconds" in means else {}
    return {"when": when, "workers": executor.workers, "weights_mb": weights_mb, "megabytes": means, **timed}


def probe(payload: dict[str, Any]) -> Callable[[Any], dict[str, float]]:
    """Factory: a measurer; a batch is allocations to measure, or None, and its result this process's memory.

    `peak` is the most private memory while the first is measured, `seconds` the processor time that each of those that
    follow takes.
    """
    from evoquant.models.base import Request

    if payload.get("runtime") != "onnx":
        import torch

        torch.zeros(1)
    measure = start_measurer(payload) if payload else None

    def work(allocations: list[tuple[str, ...]] | None) -> dict[str, float]:
        if measure is None or allocations is None:
            time.sleep(1.0)  # so that each worker gets one
            return {**memory(), "peak": memory()["private"]}
        first, *more = [Request(widths, "calibration", 0) for widths in allocations]
        with Peak() as peak:
            measure([first])
        found = {**memory(), "peak": peak.megabytes}
        began = time.process_time()  # the machine may be shared
        for request in more:
            measure([request])
        if more:
            found["seconds"] = (time.process_time() - began) / len(more)
        time.sleep(1.0)
        return found

    return work


class Peak:
    """The most private memory of this process within, in MB, looked at every `EVERY_S` and at both ends."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            over = self._over.wait(EVERY_S)
            self.megabytes = max(self.megabytes, memory()["private"])
            if over:
                return


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
