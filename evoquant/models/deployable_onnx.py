"""An ONNX task, ready to be exported; and graphs of other origin, opened by the names of their parameters.

Imported only once onnx is known to be there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from evoquant.errors import InputError
from evoquant.models.deployable import Graph, View
from evoquant.models.onnx_data import TARGETS
from evoquant.models.onnx_graph import FLOATS
from evoquant.models.onnx_layers import OnnxLayer, OpenedModel
from evoquant.models.onnx_outcomes import outcomes
from evoquant.models.onnx_task import open_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray
    from onnx import ModelProto, TensorProto

    from evoquant.models.arrays import Arrays
    from evoquant.models.base import Outcome, Split
    from evoquant.models.onnx_network import Network
    from evoquant.models.onnx_task import OnnxTask


class OnnxDeployable:
    """See `Deployable`; the graph is the user's own."""

    def __init__(self, task: OnnxTask) -> None:
        self._task = task
        self._network: Network | None = None

    def weight(self, layer: str) -> NDArray[np.generic]:
        """As stored."""
        return self._task.opened.weights[layer]

    def graph(self) -> Graph:
        """A copy of the user's graph."""
        opened = replace(self._task.opened, proto=onnx.load_model_from_string(self._task.model))
        return Graph(opened, tuple(View(layer.name) for layer in opened.layers))

    def feeds(self, split: Split, start: int, stop: int) -> Arrays:
        """By the graph's own names of its inputs; shared inputs whole.

        Raises:
            InputError: the graph fixes another number of samples.
        """
        part = self._task.data[split].part(start, stop)
        if self._task.fixed is not None and stop - start != self._task.fixed:
            raise InputError(f"{self._task.source}: takes {self._task.fixed} samples at a time, not {stop - start}.")
        return {spec.name: np.asarray(part[f"input{i}"], order="C") for i, spec in enumerate(self._task.specs)}

    def network(self, target: str) -> torch.nn.Module:
        """None: it is a file.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{target} takes PyTorch networks, and {self._task.source} is an ONNX file; choose onnx or openvino, or "
            f"search on the PyTorch network."
        )

    def recreation(self) -> None:
        """Its file is all there is."""
        return

    def generated(self, split: Split, prompt: int, count: int, widths: tuple[str, ...]) -> list[int]:
        """None: which input is what, a file does not say."""
        return []

    def count(self, split: Split) -> int:
        """Samples of a split; whole batches of them where the graph fixes its batch."""
        samples, fixed = self._task.data[split].count, self._task.fixed
        return samples if fixed is None else samples // fixed * fixed

    @property
    def batch(self) -> int:
        """Samples per forward pass."""
        return self._task.batch

    def outputs(self, split: Split, start: int, stop: int, widths: tuple[str, ...]) -> list[NDArray[np.generic]]:
        """By onnxruntime, with the weights as inputs."""
        if self._network is None:
            self._network = open_network(self._task)
        samples = self._task.data[split]
        return self._network.run(widths, samples.part(start, stop), samples.shared, stop - start)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs that are computed."""
        return self._task.outputs

    @property
    def scored(self) -> int:
        """Index of the scored output."""
        return self._task.scoring.output

    def outcome(
        self, split: Split, start: int, stop: int, outputs: list[NDArray[np.generic]], reference: NDArray[np.generic]
    ) -> Outcome:
        """Scores and divergences as the task's measurer makes them.

        Raises:
            InputError: outputs that are not finite.
        """
        part = self._task.data[split].part(start, stop)
        if not np.isfinite(outputs[self.scored]).all():
            raise InputError(f"{self._task.source}: an output of {split} is not finite once it is deployed.")
        mask = self._task.mask
        return outcomes(self._task.scoring, outputs, reference, part.get(TARGETS), None if mask is None else part[mask])


@dataclass(frozen=True, eq=False)
class Parameter:
    """A layer's weight as a graph of other origin may hold it.

    Attributes:
        layer: of the task.
        type: of the layer.
        names: in the graph; any of them, or several.
        weight: its value.
        channel_axis: of the output channels.
        fan_in: inputs of one output value.
        groups: convolution groups.
    """

    layer: str
    type: str
    names: tuple[str, ...]
    weight: NDArray[np.generic]
    channel_axis: int | None
    fan_in: int
    groups: int


def open_by_name(model: ModelProto, parameters: Sequence[Parameter]) -> tuple[Graph, tuple[str, ...]]:
    """Take these weights out of a graph whose exporter keeps the names of parameters and folds nothing.

    Whatever the graph then does with a weight (an exporter cuts those of LSTM and GRU into gates and puts them in
    another order), it does with the value that comes from outside.

    Args:
        model: is changed in place.
        parameters: of the task's layers, in order.

    Returns:
        The graph, and the layers that it does not hold.
    """
    graph, layers, views, weights = model.graph, [], [], {}
    found = {name: parameter for parameter in parameters for name in parameter.names}
    for tensor in list(_named(model, found)):
        parameter, transposed = found.get(tensor.name), False
        if parameter is None:
            alike = _alike(numpy_helper.to_array(tensor), parameters)
            if alike is None:
                continue
            parameter, transposed = alike
        weight = parameter.weight.T if transposed else parameter.weight
        layers.append(_layer(parameter, tensor.name, weight.shape, transposed))
        views.append(View(parameter.layer, transposed))
        weights[tensor.name] = weight
    taken = set(weights)
    for node in [node for node in graph.node if node.output and node.output[0] in taken]:
        graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name in taken]:
        graph.initializer.remove(tensor)
    for layer in layers:
        graph.input.append(helper.make_tensor_value_info(layer.input, onnx.TensorProto.FLOAT, layer.dims))
    held = {view.layer for view in views}
    absent = tuple(parameter.layer for parameter in parameters if parameter.layer not in held)
    left = sum(32 * numpy_helper.to_array(t).size for t in graph.initializer if t.data_type in FLOATS)
    return Graph(OpenedModel(model, weights, tuple(layers), left), tuple(views)), absent


def add_unread(graph: Graph, parameter: Parameter) -> Graph:
    """The graph with a weight that nothing in it reads, so that a deployed model is of the promised size."""
    layer = _layer(parameter, parameter.names[0], parameter.weight.shape, transposed=False)
    opened = graph.opened
    opened.proto.graph.input.append(
        helper.make_tensor_value_info(layer.input, onnx.TensorProto.FLOAT, parameter.weight.shape)
    )
    weights = {**opened.weights, layer.name: parameter.weight}
    return Graph(
        replace(opened, layers=(*opened.layers, layer), weights=weights), (*graph.views, View(parameter.layer))
    )


def _named(model: ModelProto, known: dict[str, Parameter]) -> Iterator[TensorProto]:
    """Float tensors of the graph, be they initializers or `Constant` nodes; and a known name for an equal tensor."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = named = onnx.TensorProto()
            named.CopyFrom(node.attribute[0].t)
            named.name = node.output[0]
        elif node.op_type == "Identity" and node.output[0] in known and node.input[0] in tensors:
            # where two parameters are equal, PyTorch's exporter keeps one, under both names
            tensors[node.output[0]] = named = onnx.TensorProto()
            named.CopyFrom(tensors[node.input[0]])
            named.name = node.output[0]
    return (tensor for tensor in tensors.values() if tensor.data_type == onnx.TensorProto.FLOAT)


def _alike(value: NDArray[np.generic], parameters: Sequence[Parameter]) -> tuple[Parameter, bool] | None:
    """The parameter of a nameless matrix's content, and whether it is transposed: code read its values past autograd.

    Vectors, and matrices of one value, say nothing by their content.
    """
    if value.ndim < 2 or value.min() == value.max():
        return None
    for parameter in parameters:
        for weight, transposed in ((parameter.weight, False), (parameter.weight.T, True)):
            if weight.shape == value.shape and np.array_equal(weight, value):
                return parameter, transposed
    return None


def _layer(parameter: Parameter, name: str, dims: tuple[int, ...], transposed: bool) -> OnnxLayer:
    axis = parameter.channel_axis
    return OnnxLayer(
        name=name,
        type=parameter.type,
        input=name,
        dims=dims,
        stored="float32",
        shape=dims,
        channel_axis=len(dims) - 1 - axis if transposed and axis is not None else axis,
        fan_in=parameter.fan_in,
        groups=parameter.groups,
        output=None,
        activations=(),
        per="token",
    )
