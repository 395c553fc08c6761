"""What an export needs of a network beyond measuring it: weights, its graph in ONNX, its outputs at given widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from evoquant.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import MeasuredTask, Outcome, Split
    from evoquant.models.onnx_layers import OpenedModel


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
        views: for each of its layers the task's layer that it holds; several may hold one.
    """

    opened: OpenedModel
    views: tuple[View, ...]


class Deployable(Protocol):
    """A measured network, ready to be exported and compared."""

    def weight(self, layer: str) -> NDArray[np.generic]:
        """A layer's weight in the profile's shape."""

    def graph(self) -> Graph:
        """The network in ONNX, opened anew at each call.

        Raises:
            InputError: it cannot be exported.
        """

    def network(self, target: str) -> torch.nn.Module:
        """The live PyTorch network, FP32 and in eval mode; it is not to be changed.

        Raises:
            InputError: it is none; the message begins with `target`.
        """

    def recreation(self) -> dict[str, Any] | None:
        """Plain data from which `evoquant.models.recreate.recreate` makes it in another process; None where its file
        is all there is.

        Raises:
            InputError: a fresh process cannot make it.
        """

    def generated(self, split: Split, prompt: int, count: int, widths: tuple[str, ...]) -> list[int]:
        """Tokens that a language model continues a split's first sample with, each layer at its width.

        Args:
            split: of the sample.
            prompt: tokens of it that are given.
            count: tokens, fewer where the sample has no room for them.
            widths: of the layers.

        Returns:
            The most likely tokens; none of a network that is no causal language model.
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
    from evoquant.models.onnx_task import OnnxTask
    from evoquant.models.torch_task import TorchTask

    if isinstance(task, TorchTask):
        from evoquant.models.deployable_torch import TorchDeployable

        return TorchDeployable(task)
    if isinstance(task, OnnxTask):
        from evoquant.models.deployable_onnx import OnnxDeployable

        return OnnxDeployable(task)
    raise InputError(f"task {task.name!r}: networks of its kind cannot be exported; those of torch and onnx can.")
