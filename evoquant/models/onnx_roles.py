"""What each ONNX operator reads as a weight: a literal table from operator to input, type and channel axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from onnx import NodeProto

Dims = tuple[int, ...]


@dataclass(frozen=True)
class Role:
    """What a node takes a tensor for.

    Attributes:
        part: short name of the input, for nodes that have several weights.
        type: Conv, Linear, LayerNorm, Embedding, Attention or Recurrent.
        axis: of the output channels, as the node reads the tensor; None for a tensor that is one slice.
        fan_in: inputs of one output value.
        groups: convolution groups.
        activation: index of the node's input that dynamic activation quantization applies to, None where none does.
        per: what shares an activation scale: `token` or `sample`.
    """

    part: str
    type: str
    axis: int | None
    fan_in: int
    groups: int = 1
    activation: int | None = None
    per: str = "token"


class Names(Protocol):
    """A graph in which the maker of a value can be looked up."""

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes `name`."""


Roles = dict[int, Role]
Reader = Callable[["NodeProto", Mapping[str, Any], Mapping[int, Dims], Names], Roles]
"""(node, attributes, input index → shape of each weight that it may read, graph) → input index → role."""


def roles_of(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    """The roles of a node's weights; empty for an operator that takes none."""
    reader = READERS.get((node.domain if node.domain != "ai.onnx" else "", node.op_type))
    return reader(node, given, dims, names) if reader is not None and dims else {}


def _convolution(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    shape = dims.get(1)
    if shape is None or len(shape) < 3:
        return {}
    groups = int(given.get("group", 1))
    if node.op_type == "Conv":
        return {1: Role("W", "Conv", 0, math.prod(shape[1:]), groups, 0, "sample")}
    # (inputs, outputs / groups, …)
    return {1: Role("W", "Conv", 1, math.prod(shape) // groups // shape[1], groups, 0, "sample")}


def _product(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    """MatMul, Gemm, FusedMatMul: the weight is the second operand, else the first; a product of two is no layer."""
    found = [index for index in (0, 1) if len(dims.get(index, ())) >= 2]
    if len(found) != 1:
        return {}
    (index,) = found
    shape = dims[index]
    flipped = bool(given.get("transA" if index == 0 else "transB", 0))
    rows, columns = (len(shape) - 1, len(shape) - 2) if flipped else (len(shape) - 2, len(shape) - 1)
    if index == 1 and _one_hot(node.input[0], names):
        return {1: Role("W", "Embedding", rows, 1)}
    axis, inner = (columns, rows) if index == 1 else (rows, columns)
    plain = index == 1 and not given.get("transA", 0)
    return {index: Role("W", "Linear", axis, shape[inner], activation=0 if plain else None)}


def _one_hot(name: str, names: Names) -> bool:
    node = _before(names, name)
    return node is not None and node.op_type == "OneHot"


def _gather(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    shape = dims.get(0, ())
    return {0: Role("table", "Embedding", int(given.get("axis", 0)) % len(shape), 1)} if len(shape) >= 2 else {}


def _recurrent(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    """W `(directions, gates · hidden, inputs)` and R `(directions, gates · hidden, hidden)`."""
    return {
        index: Role(part, "Recurrent", 1, dims[index][2])
        for index, part in ((1, "W"), (2, "R"))
        if len(dims.get(index, ())) == 3
    }


def _norm(index: int) -> Reader:
    def read(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
        return {index: Role("scale", "LayerNorm", None, 1)} if index in dims else {}

    return read


def _attention(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    """`(inputs, q + k + v)`, side by side (com.microsoft)."""
    return {1: Role("W", "Attention", 1, dims[1][0], activation=0)} if len(dims.get(1, ())) == 2 else {}


def _embeddings(node: NodeProto, given: Mapping[str, Any], dims: Mapping[int, Dims], names: Names) -> Roles:
    """Word, position and segment tables, then the norm's scale (com.microsoft)."""
    parts = ((2, "word"), (3, "position"), (4, "segment"))
    roles = {index: Role(part, "Embedding", 0, 1) for index, part in parts if len(dims.get(index, ())) == 2}
    return roles | _norm(5)(node, given, dims, names)


def table_role(name: str, dims: Dims) -> Role:
    """A parameter used as it is: of a (1, T, D) table the T are the channels; a (1, 1, D) token is one slice."""
    axis = next((i for i, size in enumerate(dims[:-1]) if size > 1), None)
    fan_in = math.prod(dims) // (1 if axis is None else dims[axis])
    return Role("table", "Embedding" if "pos" in name.lower() else "Other", axis, fan_in)


_MICROSOFT = "com.microsoft"
READERS: dict[tuple[str, str], Reader] = {
    ("", "Conv"): _convolution,
    ("", "ConvTranspose"): _convolution,
    ("", "Gemm"): _product,
    ("", "MatMul"): _product,
    (_MICROSOFT, "FusedMatMul"): _product,
    ("", "Gather"): _gather,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    ("", "BatchNormalization"): _norm(1),
    ("", "InstanceNormalization"): _norm(1),
    ("", "GroupNormalization"): _norm(1),
    ("", "LayerNormalization"): _norm(1),
    ("", "RMSNormalization"): _norm(1),
    ("", "SimplifiedLayerNormalization"): _norm(1),
    (_MICROSOFT, "GroupNorm"): _norm(1),
    (_MICROSOFT, "SkipLayerNormalization"): _norm(2),
    (_MICROSOFT, "SkipSimplifiedLayerNormalization"): _norm(2),
    (_MICROSOFT, "Attention"): _attention,
    (_MICROSOFT, "EmbedLayerNormalization"): _embeddings,
}

_TRANSPARENT = ("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand")
_NORMALIZERS = ("InstanceNormalization", "MeanVarianceNormalization", "LpNormalization")
_ROOTS = ("Sqrt", "ReduceL2")


def _before(names: Names, name: str) -> NodeProto | None:
    """The node that makes `name`, but for nodes that only change its shape or type."""
    for _ in range(8):
        node = names.producer(name)
        if node is None or node.op_type not in _TRANSPARENT:
            return node
        name = node.input[0]
    return None


def scales_a_norm(names: Names, name: str) -> bool:
    """Whether `name` is something over its root mean square: then a constant that multiplies it is a norm's scale.

    Spelled out as x / √v, x · (1 / √v) or x · v^−½, and what InstanceNormalization gives (so GroupNorm is exported).
    """
    node = _before(names, name)
    if node is None:
        return False
    if node.op_type in _NORMALIZERS:
        return True
    if node.op_type == "Div":
        return _is_root(names, node.input[1])
    return node.op_type == "Mul" and any(_is_inverse_root(names, factor) for factor in node.input)


def _is_root(names: Names, name: str, depth: int = 0) -> bool:
    node = _before(names, name)
    if node is not None and node.op_type in ("Add", "Max", "Clip") and depth < 2:  # √v + ε
        return any(_is_root(names, part, depth + 1) for part in node.input if part)
    return node is not None and node.op_type in _ROOTS


def _is_inverse_root(names: Names, name: str) -> bool:
    node = _before(names, name)
    if node is None:
        return False
    if node.op_type in ("Reciprocal", "Div"):
        return _is_root(names, node.input[-1])
    if node.op_type != "Pow":
        return False
    base = _before(names, node.input[0])  # v + ε
    return base is not None and base.op_type in ("Add", "ReduceMean")
