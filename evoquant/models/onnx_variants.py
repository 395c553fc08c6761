"""An opened ONNX graph with something added: the range of each layer's output, or inputs quantized on demand.

Imported only once onnx is known to be there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper, numpy_helper

from evoquant.quantization.activations import LARGEST_ACTIVATION, SMALLEST_ACTIVATION_SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from onnx import GraphProto, ModelProto

    from evoquant.models.onnx_layers import OnnxLayer

SWITCH = "evoquant.a8."
MIN, MAX = "evoquant.min.", "evoquant.max."
_ROUND_OPSET = 11
_AXES_AS_INPUT = 18


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def with_ranges(model: bytes, layers: Sequence[OnnxLayer]) -> bytes:
    """The graph whose outputs are the least and the largest value of each layer's output, by the layer's index.

    Layers in a branch or loop have none.
    """
    proto = onnx.load_model_from_string(model)
    del proto.graph.output[:]
    for index, layer in enumerate(layers):
        if layer.output is None:
            continue
        kind = helper.np_dtype_to_tensor_dtype(_dtype(layer))
        for operator, prefix in (("ReduceMin", MIN), ("ReduceMax", MAX)):
            name = f"{prefix}{index}"
            proto.graph.node.append(helper.make_node(operator, [layer.output], [name], keepdims=0))
            proto.graph.output.append(helper.make_tensor_value_info(name, kind, []))
    changed: bytes = proto.SerializeToString()
    return changed


def with_switches(model: bytes, layers: Sequence[OnnxLayer]) -> bytes:
    """The graph with a boolean input per layer that says whether the layer's inputs are quantized to INT8 first.

    The arithmetic is that of `fake_quantize_activations`. Layers without `activations` get no switch.
    """
    proto = onnx.load_model_from_string(model)
    opset = opset_of(proto)
    readers = {node.output[0]: node for node in proto.graph.node if node.output}
    ranks = {layer.input: len(layer.dims) for layer in layers}
    for index, layer in enumerate(layers):
        if not layer.activations or opset < _ROUND_OPSET:
            continue
        switch = f"{SWITCH}{index}"
        proto.graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        axes = (-1,) if layer.per == "token" else tuple(range(1, ranks[layer.input]))
        for count, (reader, position) in enumerate(layer.activations):
            node = readers[reader]
            before, after = node.input[position], f"{switch}.{count}"
            place = next(i for i, other in enumerate(proto.graph.node) if other.output and other.output[0] == reader)
            proto.graph.node.insert(
                place,
                helper.make_node(
                    "If",
                    [switch],
                    [after],
                    then_branch=_quantized(before, after, axes, opset),
                    else_branch=_plain(before, after),
                ),
            )
            node = proto.graph.node[place + 1]
            node.input[position] = after
    changed: bytes = proto.SerializeToString()
    return changed


def switchable(model: ModelProto, layer: OnnxLayer) -> bool:
    """Whether a layer's inputs can be quantized dynamically."""
    return bool(layer.activations) and opset_of(model) >= _ROUND_OPSET


def _dtype(layer: OnnxLayer) -> np.dtype[np.generic]:
    import numpy as np

    return np.dtype(layer.stored)


def _plain(before: str, after: str) -> GraphProto:
    name = f"{after}.plain"
    node = helper.make_node("Identity", [before], [name])
    return helper.make_graph([node], "plain", [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def _quantized(before: str, after: str, axes: tuple[int, ...], opset: int) -> GraphProto:
    """scale = max(absmax / 127, 2^−126); round_half_even(x / scale) · scale."""
    import numpy as np

    def name(part: str) -> str:
        return f"{after}.{part}"

    constants = [
        numpy_helper.from_array(np.array(LARGEST_ACTIVATION, dtype=np.float32), name("largest")),
        numpy_helper.from_array(np.array(SMALLEST_ACTIVATION_SCALE, dtype=np.float32), name("smallest")),
    ]
    if opset >= _AXES_AS_INPUT:
        constants.append(numpy_helper.from_array(np.array(axes, dtype=np.int64), name("axes")))
        reduce = helper.make_node("ReduceMax", [name("abs"), name("axes")], [name("absmax")], keepdims=1)
    else:
        reduce = helper.make_node("ReduceMax", [name("abs")], [name("absmax")], keepdims=1, axes=list(axes))
    nodes = [
        helper.make_node("Abs", [before], [name("abs")]),
        reduce,
        helper.make_node("Div", [name("absmax"), name("largest")], [name("raw")]),
        helper.make_node("Max", [name("raw"), name("smallest")], [name("scale")]),
        helper.make_node("Div", [before, name("scale")], [name("ratio")]),
        helper.make_node("Round", [name("ratio")], [name("codes")]),
        helper.make_node("Mul", [name("codes"), name("scale")], [name("values")]),
    ]
    output = helper.make_tensor_value_info(name("values"), TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "quantized", [], [output], constants)
