"""A PyTorch task, ready to be exported. Imports PyTorch; itself it is imported where a network is exported."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evoquant.errors import InputError, raised_by
from evoquant.models.deployable import Graph, matched
from evoquant.models.onnx_measurer import require_onnx
from evoquant.models.torch import Measurer
from evoquant.models.torch_data import TARGETS, call_on_tensors, input_tensors, samples_of
from evoquant.models.torch_kinds import Judge
from evoquant.models.torch_threads import one_thread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import Outcome, Split
    from evoquant.models.torch_task import TorchTask

OPSET = 17
"""The first with LayerNormalization, so that a norm stays one node."""

OUTPUT = "outputs"
_PREFIX = "network."


class _Positional(torch.nn.Module):
    """The network with its inputs in a row, and the one output that counts."""

    def __init__(self, network: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self._names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return call_on_tensors(self.network, dict(zip(self._names, tensors, strict=True)))


class TorchDeployable:
    """See `Deployable`; the graph is what PyTorch's exporter makes, no norm folded into its neighbour."""

    def __init__(self, task: TorchTask) -> None:
        self._task = task
        self._judge = Judge(task.kind, task.variance, task.own)
        self._measurer = Measurer(task.network, task.found, task.data, self._judge, block=task.block, batch=task.batch)
        self._layers = {layer.name: layer for layer in task.found}

    def weight(self, layer: str) -> NDArray[np.generic]:
        """Of the live network."""
        parameters = dict(self._task.network.named_parameters(remove_duplicate=False))
        weight: NDArray[np.generic] = parameters[self._layers[layer].parameter].detach().numpy()
        return weight

    def graph(self) -> Graph:
        """Exported with a free number of samples.

        Raises:
            InputError: PyTorch cannot export the network, or a weight is not in its graph as one tensor.
            MissingExtraError: onnx is not installed.
        """
        require_onnx("exporting a PyTorch network")
        from evoquant.models.onnx_file import read_model
        from evoquant.models.onnx_layers import open_model

        name = self._task.name
        opened = open_model(read_model(self._exported(), f"{name} in ONNX"), {}, {}, f"{name} in ONNX")
        weights = {layer: self.weight(layer) for layer in self._layers}
        views = matched(opened.layers, opened.weights, weights, _PREFIX)
        return Graph(opened, views)

    def _exported(self) -> bytes:
        tensors = input_tensors(self._task.data["calibration"], slice(0, 2))
        names = list(tensors)
        free = {0: "samples"}
        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),  # where the exporter prints the graph that it cannot export
                one_thread(),
                torch.no_grad(),
            ):
                file = Path(folder) / "model.onnx"
                # PyTorch's newer exporter needs one more package and renames weights; this one announces its end
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Positional(self._task.network, names).eval(),
                    tuple(tensors.values()),
                    file,
                    dynamo=False,
                    training=torch.onnx.TrainingMode.PRESERVE,  # its "evaluation" folds norms into convolutions
                    do_constant_folding=False,
                    input_names=names,
                    output_names=[OUTPUT],
                    dynamic_axes=dict.fromkeys([*names, OUTPUT], free),
                    opset_version=OPSET,
                )
                return file.read_bytes()
        except Exception as error:  # whatever the exporter may raise
            raise InputError(
                f"{self._task.name}: PyTorch cannot export the network to ONNX: {raised_by(error)}. Export it "
                f"yourself and search on the file (--onnx)."
            ) from error

    def feeds(self, split: Split, start: int, stop: int) -> Arrays:
        """By the names of the data's inputs."""
        return {name: t.numpy() for name, t in input_tensors(self._task.data[split], slice(start, stop)).items()}

    def count(self, split: Split) -> int:
        """Samples of a split."""
        return samples_of(self._task.data[split])

    @property
    def batch(self) -> int:
        """Samples per forward pass."""
        return self._task.batch

    def outputs(self, split: Split, start: int, stop: int, widths: tuple[str, ...]) -> list[NDArray[np.generic]]:
        """By PyTorch, quantized and dequantized."""
        tensors = input_tensors(self._task.data[split], slice(start, stop))
        with one_thread(), torch.inference_mode(), self._measurer.quantized(widths):
            output: Any = call_on_tensors(self._task.network, tensors)
            return [output.numpy().copy()]

    @property
    def names(self) -> tuple[str, ...]:
        """The graph's one output."""
        return (OUTPUT,)

    @property
    def scored(self) -> int:
        """The first."""
        return 0

    def outcome(
        self, split: Split, start: int, stop: int, outputs: list[NDArray[np.generic]], reference: NDArray[np.generic]
    ) -> Outcome:
        """Scores and divergences as the task's measurer makes them.

        Raises:
            InputError: outputs that are not finite.
        """
        targets = self._task.data[split].get(TARGETS)
        found = self._judge.outcome(
            torch.from_numpy(outputs[0]), torch.from_numpy(reference), None if targets is None else targets[start:stop]
        )
        if found is None:
            raise InputError(f"{self._task.name}: an output of {split} is not finite once it is deployed.")
        return found
