"""What an export needs of a network beyond measuring it: weights, its graph in ONNX, its outputs at given widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evoquant.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import MeasuredTask, Outcome, Split
    from evoquant.models.onnx_layers import OnnxLayer, OpenedModel

Weights = Mapping[str, "NDArray[np.generic]"]
"""Layer name → its weight."""


@dataclass(frozen=True)
class View:
    """How a graph holds a layer's weight.

    Attributes:
        layer: of the task.
        transposed: whether the graph has it with its axes in reverse order.
    """

    layer: str
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as an ONNX graph whose weights have been taken out.

    Attributes:
        opened: the graph and its own layers.
        views: for each of its layers the task's layer that it holds; None for a tensor that no width applies to.
    """

    opened: OpenedModel
    views: tuple[View | None, ...]


class Deployable(Protocol):
    """A measured network, ready to be exported and compared."""

    def weight(self, layer: str) -> NDArray[np.generic]:
        """A layer's weight in the profile's shape."""

    def graph(self) -> Graph:
        """The network in ONNX, opened anew at each call.

        Raises:
            InputError: it cannot be exported.
        """

    def feeds(self, split: Split, start: int, stop: int) -> Arrays:
        """Graph input → the samples from `start` to before `stop`, at most as many as there are."""

    def count(self, split: Split) -> int:
        """Samples of a split."""

    @property
    def batch(self) -> int:
        """Samples per forward pass; where the graph fixes them, exactly so many."""

    def outputs(self, split: Split, start: int, stop: int, widths: tuple[str, ...]) -> list[NDArray[np.generic]]:
        """What the task's own runtime makes of these samples with each layer at its width: as it is measured.

        Outputs in the graph's order; of a PyTorch network one.
        """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of these outputs in the graph."""

    @property
    def scored(self) -> int:
        """Which of them is scored."""

    def outcome(
        self, split: Split, start: int, stop: int, outputs: list[NDArray[np.generic]], reference: NDArray[np.generic]
    ) -> Outcome:
        """Scores and divergences of outputs, as measuring gives them.

        Args:
            split, start, stop: the samples.
            outputs: of the deployed model.
            reference: the scored output of the FP32 network.

        Raises:
            InputError: outputs that are not finite, or of another shape.
        """


def deployable(task: MeasuredTask) -> Deployable:
    """A task, ready to be exported.

    Raises:
        InputError: a task of anyone's own kind.
    """
    runtime = task.payload()["runtime"]
    if runtime == "torch":
        from evoquant.models.deployable_torch import TorchDeployable
        from evoquant.models.torch_task import TorchTask

        assert isinstance(task, TorchTask)
        return TorchDeployable(task)
    if runtime == "onnx":
        from evoquant.models.deployable_onnx import OnnxDeployable
        from evoquant.models.onnx_task import OnnxTask

        assert isinstance(task, OnnxTask)
        return OnnxDeployable(task)
    raise InputError(f"networks of the runtime {runtime!r} cannot be exported; torch and onnx can.")


def matched(layers: tuple[OnnxLayer, ...], graph: Weights, task: Weights, prefix: str = "") -> tuple[View | None, ...]:
    """For each layer of a graph the task's layer with the same weight: by name, else by content.

    Args:
        layers: of the graph.
        graph: its weights by name.
        task: the task's weights by name.
        prefix: of the graph's names that the task's do not have.
    """
    found: list[View | None] = []
    taken: set[str] = set()
    for layer in layers:
        weight = graph[layer.name]
        own = layer.name.removeprefix(prefix)
        order = sorted(task, key=lambda name: name != own)
        options = [view for name in order if (view := _view(name, task[name], weight)) is not None]
        view = next((v for v in options if v.layer not in taken), options[0] if options else None)
        if view is not None:
            taken.add(view.layer)
        found.append(view)
    return tuple(found)


def _view(name: str, ours: NDArray[np.generic], weight: NDArray[np.generic]) -> View | None:
    if ours.size != weight.size:
        return None
    if np.array_equal(ours.ravel(), weight.ravel()) and _squeezed(ours) == _squeezed(weight):
        return View(name)
    if np.array_equal(ours.T.ravel(), weight.ravel()) and _squeezed(ours.T) == _squeezed(weight):
        return View(name, transposed=True)
    return None


def _squeezed(array: NDArray[np.generic]) -> tuple[int, ...]:
    return tuple(size for size in array.shape if size > 1)
