"""A graph taken apart: each layer by itself, with what reads its weight and real values for what else that reads.

From a weight on, everything that reads nothing but weights and constants is part of the weight (casts, transposes, the
gates of an LSTM put in order); the first nodes that read something else, too, are the layer. Imported only once onnx is
known to be there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from evoquant.errors import InputError
from evoquant.models.deployable import Graph, View
from evoquant.models.onnx_graph import subgraphs
from evoquant.models.onnx_layers import OnnxLayer, OpenedModel
from evoquant.models.onnx_session import open_session
from evoquant.profiles.model import LayerProfile, ModelProfile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    from evoquant.models.arrays import Arrays

SAMPLES = "samples"  # the first axis of what a layer reads, which stays free as it is in the network


@dataclass(frozen=True, eq=False)
class Part:
    """A layer by itself.

    Attributes:
        layer: name of it.
        graph: its nodes alone; the weight is an input.
        feeds: input → what the FP32 network puts there.
        key: equal for layers that differ in nothing but their values.
    """

    layer: str
    graph: Graph
    feeds: Arrays
    key: str


def parts_of(graph: Graph, feeds: Mapping[str, NDArray[np.generic]], source: str) -> dict[str, Part]:
    """Every layer that something reads, by itself.

    Args:
        graph: the network.
        feeds: of its inputs, samples first.
        source: what messages call it.

    Raises:
        InputError: a weight is read within a branch or a loop, or the network does not run.
    """
    proto = graph.opened.proto
    places: dict[str, list[int]] = {}
    for index, view in enumerate(graph.views):
        places.setdefault(view.layer, []).append(index)
    fixed = _fixed_values(proto.graph, [layer.input for layer in graph.opened.layers])
    found: dict[str, tuple[list[NodeProto], list[str]]] = {}
    for name, indices in places.items():
        inputs = [graph.opened.layers[index].input for index in indices]
        nodes = _nodes_of(proto.graph, inputs, fixed, f"{source}: layer {name!r}")
        if nodes:
            made = {value for node in nodes for value in node.output}
            dynamic = [value for node in nodes for value in node.input if value and value not in made | fixed]
            found[name] = (nodes, list(dict.fromkeys(dynamic)))
    ends = {name: _ends(nodes) for name, (nodes, _) in found.items()}
    wanted = [one for name, (_, dynamic) in found.items() for one in (*dynamic, *ends[name])]
    values = _values(graph, feeds, wanted, source)
    return {
        name: _part(
            graph,
            name,
            places[name],
            nodes,
            {one: values[one] for one in dynamic},
            {one: values[one] for one in ends[name]},
        )
        for name, (nodes, dynamic) in found.items()
    }


def _ends(nodes: Sequence[NodeProto]) -> list[str]:
    """Values that none of these nodes reads."""
    read = {value for node in nodes for value in node.input}
    return [value for node in nodes for value in node.output if value and value not in read]


def _fixed_values(graph: GraphProto, weights: Iterable[str]) -> set[str]:
    """Values that no input of the network changes: weights, constants, and what is made of these alone."""
    known = {*weights, *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if not subgraphs(node) and all(not name or name in known for name in node.input):
            known.update(node.output)
    return known


def _nodes_of(graph: GraphProto, inputs: Sequence[str], fixed: set[str], where: str) -> list[NodeProto]:
    """From these weights to the first nodes that read something else, too; with what makes their constants."""
    read = set(inputs)
    nodes = list(graph.node)  # made anew at each look, so places stand for them
    chosen = set()
    for place, node in enumerate(nodes):
        for inner in subgraphs(node):
            if read & _names(inner):
                raise InputError(f"{where}: is read within a branch or a loop; its latency by itself cannot be had.")
        if read & set(node.input):
            chosen.add(place)
            read.update(value for value in node.output if value in fixed)
    wanted = {name for place in chosen for name in nodes[place].input} & fixed
    for place in reversed(range(len(nodes))):  # what makes their constants
        if place not in chosen and wanted & set(nodes[place].output):
            chosen.add(place)
            wanted.update(nodes[place].input)
    return [nodes[place] for place in sorted(chosen)]


def _names(graph: GraphProto) -> set[str]:
    found = {name for node in graph.node for name in node.input}
    return found.union(*(_names(inner) for node in graph.node for inner in subgraphs(node)))


def _values(
    graph: Graph, feeds: Mapping[str, NDArray[np.generic]], names: Sequence[str], source: str
) -> dict[str, NDArray[np.generic]]:
    """What the FP32 network computes at these places."""
    known = {name: np.asarray(array) for name, array in feeds.items()}
    model = onnx.ModelProto()
    model.CopyFrom(graph.opened.proto)
    wanted = [name for name in dict.fromkeys(names) if name not in known]
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in outputs)
    session = open_session(model.SerializeToString(), source)
    given = {value.name for value in session.get_inputs()}
    weights = {one.input: graph.opened.weights[one.name].reshape(one.dims) for one in graph.opened.layers}
    all_feeds = {name: np.asarray(array, order="C") for name, array in {**known, **weights}.items() if name in given}
    made = session.run(wanted, all_feeds) if wanted else []
    return known | dict(zip(wanted, made, strict=True))


def _part(
    graph: Graph,
    name: str,
    places: Sequence[int],
    nodes: Sequence[NodeProto],
    dynamic: Mapping[str, NDArray[np.generic]],
    ends: Mapping[str, NDArray[np.generic]],
) -> Part:
    opened = graph.opened
    layers = [opened.layers[index] for index in places]
    own = {layer.input for layer in layers}
    read = {value for node in nodes for value in node.input}
    others = {one.input: opened.weights[one.name].reshape(one.dims) for one in opened.layers if one.input not in own}
    model = onnx.ModelProto()
    model.CopyFrom(onnx.ModelProto(ir_version=opened.proto.ir_version, producer_name=opened.proto.producer_name))
    model.opset_import.extend(opened.proto.opset_import)
    model.functions.extend(opened.proto.functions)
    part = model.graph
    part.name = "part"
    part.node.extend(nodes)
    part.initializer.extend(tensor for tensor in opened.proto.graph.initializer if tensor.name in read)
    part.initializer.extend(numpy_helper.from_array(array, key) for key, array in others.items() if key in read)
    for value, array in dynamic.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        dims = [SAMPLES, *array.shape[1:]] if array.ndim else []
        part.input.append(helper.make_tensor_value_info(value, kind, dims))
    part.input.extend(value for value in opened.proto.graph.input if value.name in own)
    for value, array in ends.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        part.output.append(helper.make_tensor_value_info(value, kind, [None] * array.ndim))
    taken = replace(
        opened,
        proto=model,
        weights={layer.name: opened.weights[layer.name] for layer in layers},
        layers=tuple(layers),
        constant_bits=0,
    )
    key = _key(part, dynamic)
    return Part(name, Graph(taken, tuple(graph.views[index] for index in places)), dict(dynamic), key)


def _key(graph: GraphProto, dynamic: Mapping[str, NDArray[np.generic]]) -> str:
    """sha256 of operators, attributes, types, shapes and whole numbers, names and weights left out."""
    numbers: dict[str, int] = {}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers)) if name else -1

    text = [f"{number(name)} {array.dtype} {array.shape}" for name, array in dynamic.items()]
    for tensor in graph.initializer:
        whole = numpy_helper.to_array(tensor).tolist() if tensor.data_type == onnx.TensorProto.INT64 else ""
        text.append(f"{number(tensor.name)} {tensor.data_type} {list(tensor.dims)} {whole}")
    for value in graph.input:
        if value.name not in dynamic:
            text.append(f"{number(value.name)} {[dim.dim_value for dim in value.type.tensor_type.shape.dim]}")
    for node in graph.node:
        about = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        ends = [[number(name) for name in names] for names in (node.input, node.output)]
        text.append(f"{node.domain} {node.op_type} {about} {ends}")
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def adding() -> tuple[Graph, ModelProfile]:
    """A network that adds a number to one: a call of it computes next to nothing."""
    one = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [SAMPLES])
    weight = helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1])
    end = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [SAMPLES])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "adding", [one, weight], [end])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    layer = OnnxLayer("w", "Other", "w", (1,), "float32", (1,), None, 1, 1, "y", (), "token")
    opened = OpenedModel(model, {"w": np.ones(1, np.float32)}, (layer,), 0)
    profile = ModelProfile("adding", (LayerProfile("w", "Other", (1,), 0.0, channel_axis=None),))
    return Graph(opened, (View("w"),)), profile
