"""A model that a Python program holds, with its data: a torch module, or an ONNX file or object."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import MeasuredTask


@dataclass(frozen=True)
class Given:
    """A model with its data, ready to be measured.

    Attributes:
        task: of both.
        runtime: torch or onnx.
        splits: as drawn.
        drawn: which were.
    """

    task: MeasuredTask
    runtime: str
    splits: Mapping[str, Arrays]
    drawn: tuple[str, ...]


def is_onnx(model: Any) -> bool:
    """Whether it is an ONNX model: a path, a file's bytes, or an object of the onnx package."""
    if isinstance(model, (str, Path, bytes)):
        return True
    return type(model).__module__.partition(".")[0] == "onnx" and hasattr(model, "SerializeToString")


def given_model(
    model: Any,
    splits: Mapping[str, Arrays],
    drawn: tuple[str, ...],
    metric: Any,
    *,
    name: str,
    seed: int,
    block: int,
    batch: int,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
) -> Given:
    """A model with its data; see `evoquant.optimize` for the arguments.

    Raises:
        InputError: model, data, metric and names do not go together.
        MissingExtraError: what its runtime needs is not installed.
    """
    task: MeasuredTask
    if is_onnx(model):
        from evoquant.models.onnx_memory import onnx_memory_task

        task = onnx_memory_task(
            _file_or_bytes(model),
            splits,
            metric,
            name=name,
            seed=seed,
            block=block,
            batch=batch,
            tie_groups=tie_groups,
            types=types,
        )
    else:
        from evoquant.models.torch_memory import Sizes, torch_memory_task

        sizes = Sizes(block, batch)
        task = torch_memory_task(
            model, splits, metric, name=name, seed=seed, sizes=sizes, tie_groups=tie_groups, types=types
        )
    for layer in task.layers:
        if not layer.isprintable():
            raise InputError(f"model: the layer {quoted(layer)} has characters that cannot be printed; rename it.")
    return Given(task, "onnx" if is_onnx(model) else "torch", splits, drawn)


def sendable(task: MeasuredTask, metric: Any) -> MeasuredTask:
    """The same task, for workers in other processes.

    Raises:
        InputError: a metric or a rounding method lives in this process alone.
    """
    from evoquant.models.shipped import shipped
    from evoquant.models.torch_task import TorchTask

    rounder = getattr(task, "rounder", None)
    if rounder is not None and not rounder.imported:
        shipped(rounder.function, "rounding")
    if callable(metric):
        shipped(metric, "metric")
    return replace(task, travels=True) if isinstance(task, TorchTask) else task


def name_of(model: Any, name: str | None) -> str:
    """What reports call a model: the name that is given, its file's, its graph's, or its class's."""
    if name is not None:
        return name
    if isinstance(model, (str, Path)):
        text = Path(model).stem
    elif is_onnx(model):
        text = str(getattr(getattr(model, "graph", None), "name", ""))
    else:
        text = type(model).__name__
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60]
    return kept if kept else "model"


@contextlib.contextmanager
def measurable(model: Any) -> Iterator[None]:
    """Gradients on, whatever mode the caller is in: signals need them.

    Raises:
        MissingExtraError: PyTorch is not installed, and the model is none of ONNX.
    """
    if is_onnx(model):
        yield
        return
    from evoquant.models.networks import require_torch

    require_torch("a model in memory")
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        yield


def _file_or_bytes(model: Any) -> Path | bytes:
    if isinstance(model, (str, Path)):
        return Path(model)
    return model if isinstance(model, bytes) else bytes(model.SerializeToString())
