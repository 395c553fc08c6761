"""ONNX: the network with a DequantizeLinear for each weight, run by ONNX Runtime with exactly the measured weights.

Imported only once onnx is known to be there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from evoquant.errors import InputError
from evoquant.export.onnx_tensors import (
    IR,
    IR_OF_INT2,
    OPSET,
    OPSET_OF_INT2,
    Parts,
    float_parts,
    order_back,
    quantized_parts,
    tensor_bytes,
)
from evoquant.models.onnx_file import check_model
from evoquant.models.onnx_variants import opset_of

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from evoquant.export.recipe import Recipe, RecipeLayer
    from evoquant.models.deployable import Graph
    from evoquant.models.onnx_layers import OnnxLayer

PREFIX = "evoquant."
PRODUCER = "evoquant"


def onnx_model(graph: Graph, recipe: Recipe) -> ModelProto:
    """The graph with the recipe's weights in it.

    Args:
        graph: its model is changed in place.
        recipe: with its numbers.

    Raises:
        InputError: the graph's operators cannot be brought to the version that low-bit types need, or the graph does
            not hold a layer's weight as one tensor.
    """
    by_name = {layer.name: layer for layer in recipe.layers}
    held = {view.layer for view in graph.views if view is not None}
    for one in recipe.layers:
        if one.name not in held and one.precision != "FP32":
            raise InputError(
                f"layer {one.name!r}: the ONNX graph does not hold its weight as one tensor (exporters take recurrent "
                f"weights apart), so it cannot be {one.precision} there; give it FP32, or export the network yourself "
                f"and search on the file (--onnx)."
            )
    narrow = any(layer.width.format == "INT2" for layer in recipe.layers)
    model = _upgraded(graph.opened.proto, OPSET_OF_INT2 if narrow else OPSET)
    model.ir_version = max(IR_OF_INT2 if narrow else IR, min(model.ir_version, IR_OF_INT2 if narrow else IR))
    made: dict[str, Parts] = {}
    nodes: list[onnx.NodeProto] = []
    for layer, view in zip(graph.opened.layers, graph.views, strict=True):
        _drop_input(model.graph, layer.input)
        recipe_layer = None if view is None else by_name[view.layer]
        if view is None or recipe_layer is None or recipe_layer.precision == "FP32":
            original = graph.opened.weights[layer.name].reshape(layer.dims)
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(original), layer.input))
            continue
        if view.layer not in made:  # one copy, however many tensors of the graph are the layer
            made[view.layer] = parts = _parts(recipe, recipe_layer)
            model.graph.initializer.extend(parts.initializers)
            nodes += parts.nodes
        nodes += _placed(made[view.layer], recipe_layer, layer, view.transposed, model.graph)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    model.producer_name = PRODUCER
    check_model(model, "the exported model")
    return model


def _upgraded(model: ModelProto, opset: int) -> ModelProto:
    if opset_of(model) >= opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's own classes
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"the model's operators cannot be brought from opset {opset_of(model)} to {opset}, which low-bit weights "
            f"need: {text} Export the FP32 model with opset {opset}."
        ) from None


def _parts(recipe: Recipe, layer: RecipeLayer) -> Parts:
    name = f"{PREFIX}{layer.name}"
    if layer.width.has_scales:
        return quantized_parts(name, recipe.quantized(layer))
    return float_parts(name, recipe.values(layer), layer.width.format)


def _placed(
    made: Parts, recipe_layer: RecipeLayer, layer: OnnxLayer, transposed: bool, graph: GraphProto
) -> list[onnx.NodeProto]:
    """Nodes from the dequantized weight to the value that the graph reads."""
    parts = Parts(f"{PREFIX}{layer.input}", made.value, made.shape)
    axis = recipe_layer.channel_axis if recipe_layer.width.has_scales else None
    parts.transposed(order_back(recipe_layer.shape, axis, transposed))
    parts.reshaped(layer.dims)
    parts.cast(layer.stored)
    graph.initializer.extend(parts.initializers)
    if parts.nodes:
        parts.nodes[-1].output[0] = layer.input
        return parts.nodes
    return [helper.make_node("Identity", [made.value], [layer.input], f"{PREFIX}{layer.input}/weight")]


def _drop_input(graph: GraphProto, name: str) -> None:
    for index, value in enumerate(graph.input):
        if value.name == name:
            del graph.input[index]
            return


def float_bytes(model: ModelProto) -> int:
    """Bytes of all tensors that hold weights, scales and other numbers; shapes and indices are not among them."""
    whole = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}
    return sum(tensor_bytes(tensor) for tensor in model.graph.initializer if tensor.data_type not in whole)
