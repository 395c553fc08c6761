"""ONNX: the network with a DequantizeLinear for each weight, run by ONNX Runtime with exactly the measured weights.

Imported only once onnx is known to be there.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter
from onnx.external_data_helper import set_external_data

from evoquant.errors import InputError
from evoquant.export.onnx_tensors import (
    IR,
    IR_OF_INT2,
    OPSET,
    OPSET_OF_INT2,
    Parts,
    fits_fp32,
    float_parts,
    has_type,
    order_back,
    quantized_parts,
    tensor_bytes,
)
from evoquant.files import write_atomic
from evoquant.models.onnx_file import MAX_BYTES, check_model
from evoquant.models.onnx_graph import scopes_of
from evoquant.models.onnx_variants import opset_of

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import GraphProto, ModelProto

    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Graph
    from evoquant.models.onnx_layers import OnnxLayer
    from evoquant.quantization.precision import Precision

PREFIX = "evoquant."
_READ = "evoquant:"  # a layer and the tensor of the graph that it is may have one name
PRODUCER = "evoquant"
DATA_SUFFIX = ".data"
_OPSET_OF_BF16 = 13
# operator → the opset that gave it another meaning, which onnx's converter passes over: found by running both versions
_CHANGED = {"GroupNormalization": 21, "Hardmax": 13, "Resize": 11}
_LEAST_EXTERNAL, _ALIGNMENT, _HEADER = 1024, 4096, 256


def onnx_model(graph: Graph, recipe: Recipe, *, per_axis: bool = False) -> ModelProto:
    """The graph with the recipe's weights in it.

    Args:
        graph: its model is changed in place.
        recipe: with its numbers.
        per_axis: of matrices too, scales by channel or tensor are those of an axis, not of blocks; ONNX Runtime would
            round activations then.

    Raises:
        InputError: a precision that the target does not have, or the graph's operators cannot be brought to the
            version that low-bit types need.
    """
    by_name = {layer.name: layer for layer in recipe.layers}
    for one in recipe.layers:
        if not has_type(one.width):
            raise InputError(
                f"layer {one.name!r}: ONNX has no weights of {one.precision}; take INT2, INT4, INT8 or FP8 without "
                f"-a8, or a plain float."
            )
    opset, ir = max(_versions(layer.width) for layer in recipe.layers)
    ir = max(ir, graph.opened.proto.ir_version)
    model = _upgraded(graph.opened.proto, opset)
    model.ir_version = ir
    holders = Counter(view.layer for view in graph.views)
    made: dict[str, Parts] = {}
    nodes: list[onnx.NodeProto] = []
    for layer, view in zip(graph.opened.layers, graph.views, strict=True):
        _drop_input(model.graph, layer.input)
        recipe_layer = by_name[view.layer]
        original = graph.opened.weights[layer.name].reshape(layer.dims)
        if recipe_layer.precision == "FP32" and holders[view.layer] == 1 and not fits_fp32(original):
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(original), layer.input))
            continue
        if view.layer not in made:  # one copy, however many tensors of the graph are the layer
            made[view.layer] = parts = _parts(recipe, recipe_layer, per_axis=per_axis)
            model.graph.initializer.extend(parts.initializers)
            nodes += parts.nodes
        nodes += _placed(made[view.layer], recipe_layer, layer, view.transposed, model.graph)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    model.producer_name = PRODUCER
    if _bytes(model) <= MAX_BYTES:  # the checker takes no larger one
        check_model(model, "the exported model")
    return model


def write_onnx(model: ModelProto, path: Path, limit: int = MAX_BYTES) -> list[Path]:
    """Write a model: one file, or above `limit` bytes, which one file cannot hold, its tensors in another beside it.

    Args:
        model: is changed in place where it is too large.
        path: of the model.
        limit: bytes of one file.

    Returns:
        The files, the model first.

    Raises:
        InputError: a file cannot be written.
    """
    if _bytes(model) <= limit:
        write_atomic(path, model.SerializeToString(deterministic=True))
        return [path]
    beside = path.with_name(f"{path.name}{DATA_SUFFIX}")
    content = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= _LEAST_EXTERNAL:
            content += bytes(-len(content) % _ALIGNMENT)
            set_external_data(tensor, beside.name, offset=len(content), length=len(tensor.raw_data))
            content += tensor.raw_data
            tensor.ClearField("raw_data")
    try:
        path.unlink(missing_ok=True)  # an old model beside new weights would load without a word
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from None
    write_atomic(beside, bytes(content))
    write_atomic(path, model.SerializeToString(deterministic=True))
    return [path, beside]


def _bytes(model: ModelProto) -> int:
    """Of the file, nearly: protobuf cannot say it of what it cannot hold."""
    nodes: int = sum(node.ByteSize() for node in model.graph.node)
    return nodes + sum(tensor_bytes(tensor) + len(tensor.name) + _HEADER for tensor in model.graph.initializer)


def _versions(width: Precision) -> tuple[int, int]:
    """Opset and IR version that a precision needs at least."""
    if width.has_scales:
        return (OPSET_OF_INT2, IR_OF_INT2) if width.format == "INT2" else (OPSET, IR)
    return (_OPSET_OF_BF16, 1) if width.format == "BF16" else (1, 1)


def _upgraded(model: ModelProto, opset: int) -> ModelProto:
    own = opset_of(model)
    if own >= opset:
        return model
    for scope in scopes_of(model.graph):
        for node in scope.graph.node:
            if node.domain in ("", "ai.onnx") and own < _CHANGED.get(node.op_type, 0) <= opset:
                raise InputError(
                    f"the model's opset is {own}, low-bit weights need {opset}, and {node.op_type} ({node.name!r}) has "
                    f"meant something else since {_CHANGED[node.op_type]}, which onnx does not convert. Export the "
                    f"FP32 model with opset {opset}."
                )
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's own classes
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"the model's operators cannot be brought from opset {own} to {opset}, which low-bit weights "
            f"need: {text} Export the FP32 model with opset {opset}."
        ) from None


def _parts(recipe: Recipe, layer: RecipeLayer, *, per_axis: bool) -> Parts:
    name = f"{PREFIX}{layer.name}"
    if layer.width.has_scales:
        return quantized_parts(name, recipe.quantized(layer), per_axis=per_axis)
    return float_parts(name, recipe.values(layer), layer.width.format)


def _placed(
    made: Parts, recipe_layer: RecipeLayer, layer: OnnxLayer, transposed: bool, graph: GraphProto
) -> list[onnx.NodeProto]:
    """Nodes from the dequantized weight to the value that the graph reads."""
    parts = Parts(f"{_READ}{layer.input}", made.value, made.shape)
    axis = recipe_layer.channel_axis if recipe_layer.width.has_scales else None
    parts.transposed(order_back(recipe_layer.shape, axis, transposed))
    parts.reshaped(layer.dims)
    parts.cast(layer.stored)
    graph.initializer.extend(parts.initializers)
    if parts.nodes:
        parts.nodes[-1].output[0] = layer.input
        return parts.nodes
    return [helper.make_node("Identity", [made.value], [layer.input], f"{_READ}{layer.input}/weight")]


def _drop_input(graph: GraphProto, name: str) -> None:
    for index, value in enumerate(graph.input):
        if value.name == name:
            del graph.input[index]
            return


def float_bytes(model: ModelProto) -> int:
    """Bytes of all tensors that hold weights, scales and other numbers.

    Shapes and indices are not among them, nor single numbers in `Constant` nodes; masks are.
    """
    whole = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}
    return sum(
        tensor_bytes(constant.tensor)
        for scope in scopes_of(model.graph)
        for constant in scope.constants.values()
        if constant.tensor.data_type not in whole and (constant.node is None or math.prod(constant.dims) > 1)
    )
