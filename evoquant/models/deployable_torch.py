"""A PyTorch task, ready to be exported. Imports PyTorch; itself it is imported where a network is exported."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evoquant.errors import EvoquantError, InputError, raised_by
from evoquant.models.generating import continued, tokens_in
from evoquant.models.onnx_session import require_onnx
from evoquant.models.quiet import silenced
from evoquant.models.recreate import recreation
from evoquant.models.torch import Measurer
from evoquant.models.torch_data import TARGETS, call_on_tensors, input_tensors, samples_of
from evoquant.models.torch_kinds import Judge
from evoquant.models.torch_threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import Outcome, Split
    from evoquant.models.deployable import Graph
    from evoquant.models.deployable_onnx import Parameter
    from evoquant.models.torch_task import TorchTask

OPSET = 17
"""The first with LayerNormalization, so that a norm stays one node."""

NEWER_OPSET = 21
"""Of PyTorch's newer exporter: the first with 4-bit types, so that nothing is converted but for INT2."""

OUTPUT = "outputs"
_PREFIX = "network."
_EXAMPLES = 2
_STDOUT = 1
_UNREAD_SAMPLES = 8


class _Positional(torch.nn.Module):
    """The network with its inputs in a row, and the one output that counts."""

    def __init__(self, network: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self._names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return call_on_tensors(self.network, dict(zip(self._names, tensors, strict=True)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say: that one's end has come, what the other does, the graph that cannot be exported."""
    with (
        silenced("torch.onnx"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _native_output_dropped(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _native_output_dropped() -> Iterator[None]:
    """PyTorch prints a graph past Python's streams."""
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # a process without one
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), _STDOUT)
        try:
            yield
        finally:
            os.dup2(kept, _STDOUT)
            os.close(kept)


class TorchDeployable:
    """See `Deployable`; the graph is what PyTorch's exporter makes, no norm folded into its neighbour."""

    def __init__(self, task: TorchTask) -> None:
        self._task = task
        self._judge = Judge(task.kind, task.variance, task.own)
        sizes = {"block": task.block, "batch": task.batch}
        self._measurer = Measurer(task.network, task.found, task.data, self._judge, rounder=task.rounder, **sizes)
        self._layers = {layer.name: layer for layer in task.found}
        self._graph: Graph | None = None

    def weight(self, layer: str) -> NDArray[np.generic]:
        """Of the live network."""
        parameters = dict(self._task.network.named_parameters(remove_duplicate=False))
        weight: NDArray[np.generic] = parameters[self._layers[layer].parameter].detach().numpy()
        return weight

    def network(self, target: str) -> torch.nn.Module:
        """The task's."""
        return self._task.network

    def recreation(self) -> dict[str, Any]:
        """By architecture, factory or configuration.

        Raises:
            InputError: a live network of somebody's own without a factory.
        """
        return recreation(self._task)

    def graph(self) -> Graph:
        """Exported once with a free number of samples; copied at each call.

        Raises:
            InputError: PyTorch cannot export the network, or a weight that it reads is not in its graph.
            MissingExtraError: onnx is not installed.
        """
        require_onnx("exporting a PyTorch network")
        if self._graph is None:
            self._graph = self._opened()
        opened = self._graph.opened
        proto = type(opened.proto)()
        proto.CopyFrom(opened.proto)
        return replace(self._graph, opened=replace(opened, proto=proto))

    def _opened(self) -> Graph:
        from evoquant.models.deployable_onnx import add_unread, open_by_name

        graph, absent = open_by_name(self._exported(), self._parameters())
        for parameter in self._parameters():
            if parameter.layer in absent:
                if self._is_read(parameter.layer):
                    raise InputError(
                        f"{self._task.name}: the weight of layer {parameter.layer!r} is not in the graph that PyTorch "
                        f"exports, which has what the network computes from it instead. Export the network yourself "
                        f"and search on the file (--onnx)."
                    )
                graph = add_unread(graph, parameter)
        return graph

    def _parameters(self) -> list[Parameter]:
        from evoquant.models.deployable_onnx import Parameter

        named = dict(self._task.network.named_parameters(remove_duplicate=False))
        names: dict[int, list[str]] = {}
        for name, parameter in named.items():
            names.setdefault(id(parameter), []).append(f"{_PREFIX}{name}")
        return [
            Parameter(
                layer=layer.name,
                type=layer.type,
                names=tuple(names[id(named[layer.parameter])]),
                weight=self.weight(layer.name),
                channel_axis=layer.channel_axis,
                fan_in=layer.fan_in,
                groups=layer.groups,
            )
            for layer in self._task.found
        ]

    def _is_read(self, layer: str) -> bool:
        """Whether the output depends on a layer: it changes when the weight is all zeros."""
        weight = dict(self._task.network.named_parameters(remove_duplicate=False))[self._layers[layer].parameter]
        before = weight.detach().clone()
        widths = ("FP32",) * len(self._layers)
        (with_it,) = self.outputs("calibration", 0, _UNREAD_SAMPLES, widths)
        try:
            with torch.no_grad():
                weight.zero_()
            (without,) = self.outputs("calibration", 0, _UNREAD_SAMPLES, widths)
        finally:
            with torch.no_grad():
                weight.copy_(before)
        return with_it.tobytes() != without.tobytes()

    def _exported(self) -> ModelProto:
        """By PyTorch's older exporter, which needs no other package; else by the newer one, if it can be had."""
        tensors = input_tensors(self._task.data["calibration"], slice(0, _EXAMPLES))
        reasons = []
        for newer in (False, True):
            if newer and importlib.util.find_spec("onnxscript") is None:
                reasons.append("its newer exporter may, but needs one more package: pip install onnxscript.")
                continue
            try:
                return self._export(tensors, newer=newer)
            except EvoquantError:
                raise
            except Exception as error:  # whatever the exporter may raise
                reasons.append(f"{'its newer exporter: ' if newer else ''}{raised_by(error)}")
        raise InputError(
            f"{self._task.name}: PyTorch cannot export the network to ONNX: {'; '.join(reasons)} Export it yourself "
            f"and search on the file (--onnx)."
        )

    def _export(self, tensors: dict[str, torch.Tensor], *, newer: bool) -> ModelProto:
        from evoquant.models.onnx_file import read_model

        names = list(tensors)
        options: dict[str, Any] = {
            "training": torch.onnx.TrainingMode.PRESERVE,  # its "evaluation" folds norms into convolutions
            "do_constant_folding": False,
            "dynamic_axes": {name: {0: "samples"} for name in (*names, OUTPUT)},
            "opset_version": OPSET,
        }
        if newer:
            free = {0: torch.export.Dim("samples", min=1)}
            options = {
                "optimize": False,  # it folds, too
                "dynamic_shapes": {"tensors": tuple(free for _ in names)},
                "opset_version": NEWER_OPSET,
                "verbose": False,
            }
        with (
            tempfile.TemporaryDirectory() as folder,
            _quiet(),
            one_thread(),
            torch.no_grad(),
        ):
            file = Path(folder) / "model.onnx"
            torch.onnx.export(
                _Positional(self._task.network, names).eval(),
                tuple(tensors.values()),
                file,
                dynamo=newer,
                input_names=names,
                output_names=[OUTPUT],
                **options,
            )
            model = read_model(file, f"{self._task.name} in ONNX")
            for node in model.graph.node:  # the newer exporter's record of where each comes from: paths, ten times the
                del node.metadata_props[:]  # weights of a small network
            return model

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

    def generated(self, split: Split, prompt: int, count: int, widths: tuple[str, ...]) -> list[int]:
        """See `Deployable`."""
        feeds = self.feeds(split, 0, 1)
        name = tokens_in(feeds)
        if self._task.kind != "language" or name is None:
            return []
        with one_thread(), torch.inference_mode(), self._measurer.quantized(widths):

            def run(feeds: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
                tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
                logits: NDArray[np.generic] = call_on_tensors(self._task.network, tensors).numpy()
                return logits

            return continued(run, feeds, name, prompt, count)

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
