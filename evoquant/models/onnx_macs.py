"""Multiply-accumulates of one sample that read each weight, from the shapes that ONNX infers.

A product or a convolution makes, for each output value, as many as it has inputs; a norm one for each value; recurrent
weights are read at each step; a look-up multiplies nothing. Imported only once onnx is known to be there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from onnx import GraphProto

    from evoquant.models.onnx_layers import OnnxLayer
    from evoquant.models.onnx_task import OnnxTask

_PER_OUTPUT = ("Conv", "Linear", "Attention", "Classifier")


def layer_macs(task: OnnxTask) -> list[int | None]:
    """For each layer, multiply-accumulates of a sample; None where a shape is not to be inferred."""
    model = onnx.load_model_from_string(task.model)
    part = task.data["calibration"].part(0, 1)
    shapes = {spec.name: part[f"input{i}"].shape for i, spec in enumerate(task.specs)}
    for value in model.graph.input:
        if value.name in shapes:
            dims = value.type.tensor_type.shape.dim
            for place, (dim, size) in enumerate(zip(dims, shapes[value.name], strict=True)):
                fixed = task.fixed is not None and place == 0 and dim.HasField("dim_value")
                dim.dim_value = dim.dim_value if fixed else size
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # the library's own classes: operators that it does not know
        return [None] * len(task.table)
    known = _shapes(inferred)
    inputs = {node.output[0]: node.input[0] for node in inferred.node if node.op_type == "ConvTranspose"}
    return [_macs(layer, known, inputs, task.fixed or 1) for layer in task.table]


def _shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Values whose shape is known whole."""
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = tuple(int(dim.dim_value) for dim in dims)
    return found


def _macs(layer: OnnxLayer, shapes: dict[str, tuple[int, ...]], transposed: dict[str, str], samples: int) -> int | None:
    if layer.type == "Embedding":
        return 0
    found: list[str | None] = [name for name, _ in layer.activations] or [layer.output]
    outputs = list(dict.fromkeys(found))
    if layer.type == "Conv" and all(name in transposed for name in outputs):  # each input value meets a whole filter
        read = [shapes.get(transposed[str(name)]) for name in outputs]
        if any(shape is None for shape in read):
            return None
        return sum(math.prod(shape) for shape in read if shape) * math.prod(layer.shape[1:]) // samples
    made = [None if name is None else shapes.get(name) for name in outputs]
    if any(shape is None for shape in made):
        return None
    values = sum(math.prod(shape) for shape in made if shape is not None)
    if layer.type in _PER_OUTPUT:
        return values * layer.fan_in // samples
    if layer.type == "LayerNorm":
        return values // samples
    if layer.type == "Recurrent":  # (steps, directions, samples, hidden), of which all weights of a direction are read
        steps, _, batch, _ = made[0] if made[0] is not None and len(made[0]) == 4 else (0, 0, 0, 0)
        return steps * batch * math.prod(layer.shape) // samples or None
    return None
