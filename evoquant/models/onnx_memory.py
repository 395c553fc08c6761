"""An ONNX file with samples that a Python program holds, as a measured task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, quoted, suggestion
from evoquant.models.onnx_outcomes import OwnMetric
from evoquant.models.onnx_session import require_onnx
from evoquant.models.onnx_task import OnnxTask, load_onnx_task
from evoquant.models.torch_data import INPUTS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays


def onnx_memory_task(
    model: Path | bytes,
    splits: Mapping[str, Arrays],
    metric: str | Callable[..., Any] | None,
    *,
    name: str,
    seed: int,
    block: int,
    batch: int,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
) -> OnnxTask:
    """The task of an ONNX file.

    Args:
        model: the file.
        splits: as `evoquant.models.memory_data.split_samples` gives them; positional inputs are the graph's in order.
        metric: a name, or a function (the first output, targets) → one score a sample; None looks at the targets.
        name, seed, block, batch, tie_groups, types: see `load_onnx_task`.

    Raises:
        InputError: the model, the data or an option is wrong, or they do not fit each other.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    require_onnx("an ONNX network")
    from evoquant.models.onnx_file import read_model

    graph = read_model(model, "the model" if isinstance(model, bytes) else str(model)).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    data = {
        f"{split}.{TARGETS if key == TARGETS else _input(key, inputs, split)}": array
        for split, arrays in splits.items()
        for key, array in arrays.items()
    }
    wanted = metric if metric is None or isinstance(metric, str) else _own(metric)
    return load_onnx_task(
        model,
        data,
        metric=wanted,
        block=block,
        batch=batch,
        seed=seed,
        types=types,
        tie_groups=tie_groups,
        name=name,
    )


def _input(key: str, inputs: Sequence[str], split: str) -> str:
    """The graph's input that `inputs`, `inputs.1` or `inputs.NAME` is for.

    Raises:
        InputError: there is none.
    """
    given = key.removeprefix(INPUTS).removeprefix(".")
    if given in inputs:
        return given
    if given and not given.isdigit():
        raise InputError(f"{split}: the graph has no input {quoted(given)}.{suggestion(given, inputs)}")
    place = int(given or 0)
    if place >= len(inputs):
        raise InputError(f"{split}: gives {place + 1} inputs, the graph takes {len(inputs)}: {', '.join(inputs)}.")
    return inputs[place]


@dataclass(frozen=True)
class FirstOutput:
    """A score of the first output alone, as a function of all outputs; workers import it by name."""

    function: Callable[..., Any]

    def __call__(self, outputs: list[NDArray[np.generic]], targets: NDArray[np.generic] | None) -> NDArray[np.generic]:
        """`(samples,)` scores."""
        return np.asarray(self.function(np.asarray(outputs[0]), targets))


def _own(metric: Callable[..., Any]) -> OwnMetric:
    name = str(getattr(metric, "__qualname__", type(metric).__name__))
    lower = bool(getattr(metric, "lower_is_better", False))
    return OwnMetric(FirstOutput(metric), name, lower, getattr(metric, "retention", None))
