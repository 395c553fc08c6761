"""ONNX with MatMulNBits: as `as_onnx`, but products by groups of integers read their packed codes themselves.

    B       (outputs, groups of an output, bytes of a group) uint8, low bits first; symmetric codes are shifted up by
            2^(bits−1), which is the zero point where none is given
    scales  (outputs, groups of an output), FP16 in the file, cast to FP32
    zero points, of asymmetric codes: (outputs, bytes of their codes) uint8, each output's from a byte of its own

MatMulNBits is an operator of ONNX Runtime's own domain (com.microsoft). Its accuracy level is 1, FP32 arithmetic: at
level 4 it rounds activations to INT8. At level 1 the CPU provider computes on packed codes of 4 bits; of 2 and 8 bits
it makes floats at each call, as DequantizeLinear does. Imported only once onnx is known to be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from evoquant.export.as_onnx import PREFIX, onnx_model
from evoquant.models.onnx_graph import attributes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from evoquant.export.recipe import Recipe
    from evoquant.models.deployable import Graph
    from evoquant.quantization.numerics import Quantized

BLOCKS = (16, 32, 64, 128, 256)
BITS = (2, 4, 8)
ACCURACY_LEVEL = 1
_DOMAIN = "com.microsoft"
_OUTPUT = ".dequantized"


@dataclass(frozen=True)
class _Reader:
    """A product with a weight.

    Attributes:
        node: MatMul, or Gemm with nothing but a product and a bias.
        bias: name of the bias, None where there is none.
    """

    node: NodeProto
    bias: str | None


def matmulnbits_model(graph: Graph, recipe: Recipe) -> ModelProto:
    """The graph with the recipe's weights in it, products by groups of integers as MatMulNBits.

    A weight that is also read by another operator (a tied embedding) stays as in `onnx_model`: it is stored once.

    Args:
        graph: its model is changed in place.
        recipe: with its numbers.

    Raises:
        InputError: as for `onnx_model`.
    """
    model = onnx_model(graph, recipe)
    changed = False
    for layer in recipe.layers:
        width = layer.width
        if not (width.is_integer and width.code_bits in BITS and width.group_size in BLOCKS and len(layer.shape) == 2):
            continue
        readers = _readers(model.graph, f"{PREFIX}{layer.name}{_OUTPUT}")
        if readers is None:
            continue
        inputs = _packed(model.graph, f"{PREFIX}{layer.name}", recipe.quantized(layer))
        for reader in readers:
            _replace(model.graph, reader, inputs, recipe.quantized(layer))
        changed = True
    if changed:
        _sweep(model.graph)
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return model


def _readers(graph: GraphProto, name: str) -> list[_Reader] | None:
    """The products with an (outputs, inputs) matrix as their weight; None where something else reads it, too.

    Args:
        graph: the outermost.
        name: of the matrix.
    """
    elsewhere = {value.name for value in graph.output}
    for node in graph.node:
        for inner in subgraphs(node):
            elsewhere.update(_names_within(inner))
    found: list[_Reader] = []
    values = {name: False}  # name → whether it is the transposed matrix
    for node in graph.node:  # in topological order
        read = [index for index, value in enumerate(node.input) if value in values]
        if not read:
            continue
        flipped = values[node.input[read[0]]]
        if node.op_type == "Identity":
            values[node.output[0]] = flipped
        elif node.op_type == "Transpose" and attributes(node).get("perm", [1, 0]) == [1, 0]:
            values[node.output[0]] = not flipped
        elif read == [1] and (reader := _product(node, flipped)) is not None:
            found.append(reader)
        else:
            return None
    return found if found and not elsewhere & set(values) else None


def _product(node: NodeProto, flipped: bool) -> _Reader | None:
    if node.op_type == "MatMul":
        return _Reader(node, None) if flipped else None
    given = attributes(node)
    plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
    if node.op_type != "Gemm" or not plain or bool(given.get("transB", 0)) == flipped:
        return None
    return _Reader(node, node.input[2] if len(node.input) > 2 and node.input[2] else None)


def _names_within(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for inner in subgraphs(node):
            yield from _names_within(inner)


def _packed(graph: GraphProto, prefix: str, quantized: Quantized) -> list[str]:
    """Initializers of the packed codes, scales and zero points; names of a MatMulNBits' inputs after the first."""
    precision, axis = quantized.precision, quantized.channel_axis
    codes = quantized.codes if axis is None else np.moveaxis(quantized.codes, axis, 0)
    outputs = 1 if axis is None else len(codes)
    blocks = codes.reshape(outputs, -1, precision.group_size)
    bits, groups = precision.code_bits, blocks.shape[1]
    shift = 0 if precision.asymmetric else 1 << bits - 1
    parts: dict[str, NDArray[np.generic]] = {
        "packed": pack((blocks.astype(np.int16) + shift).astype(np.uint8), bits),
        "scales": quantized.scales.reshape(outputs, groups),
    }
    if quantized.zero_points is not None:
        parts["packed_zero_points"] = pack(quantized.zero_points.reshape(outputs, groups), bits)
    for part in ("codes", "scales", "zero_points"):
        for tensor in [tensor for tensor in graph.initializer if tensor.name == f"{prefix}.{part}"]:
            graph.initializer.remove(tensor)
    graph.initializer.extend(numpy_helper.from_array(array, f"{prefix}.{part}") for part, array in parts.items())
    names = [f"{prefix}.packed", f"{prefix}.scales_fp32"]  # the cast is there already
    return [*names, f"{prefix}.packed_zero_points"] if quantized.zero_points is not None else names


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """`(..., codes)` numbers below 2^bits → `(..., bytes)`, the first in the lowest bits, the last byte filled with 0.

    Args:
        codes: uint8.
        bits: 2, 4 or 8.
    """
    in_byte = 8 // bits
    missing = -codes.shape[-1] % in_byte
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)]).reshape(*codes.shape[:-1], -1, in_byte)
    shifted = padded << (bits * np.arange(in_byte, dtype=np.uint8))
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(shifted, axis=-1).astype(np.uint8)
    return packed


def _replace(graph: GraphProto, reader: _Reader, inputs: list[str], quantized: Quantized) -> None:
    old, precision = reader.node, quantized.precision
    outputs = 1 if quantized.channel_axis is None else quantized.codes.shape[quantized.channel_axis]
    sizes: dict[str, Any] = {"N": outputs, "K": quantized.codes.size // outputs}
    made = old.output[0] if reader.bias is None else f"{PREFIX}{old.output[0]}.product"
    product = helper.make_node(
        "MatMulNBits",
        [old.input[0], *inputs],
        [made],
        old.name,
        domain=_DOMAIN,
        bits=precision.code_bits,
        block_size=precision.group_size,
        accuracy_level=ACCURACY_LEVEL,
        **sizes,
    )
    place = next(index for index, node in enumerate(graph.node) if node.output[:1] == old.output[:1])
    del graph.node[place]
    if reader.bias is not None:
        graph.node.insert(place, helper.make_node("Add", [made, reader.bias], [old.output[0]], f"{old.name}/bias"))
    graph.node.insert(place, product)


def _sweep(graph: GraphProto) -> None:
    """Drop our own nodes that nothing reads any more, and what the graph itself did to such weights."""
    while True:
        read = {value.name for value in graph.output} | set(_names_within(graph))
        idle = [node for node in graph.node if node.output and not any(name in read for name in node.output)]
        if not idle:
            return
        for node in idle:
            graph.node.remove(node)
