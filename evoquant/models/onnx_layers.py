"""The layers of an ONNX graph, named and tied, and the graph rewritten so that their weights come from outside.

onnxruntime's optimizer copies and folds the weights that it knows; of a weight that is an input there is no copy.
Imported only once onnx is known to be there.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from evoquant.errors import InputError, suggestion
from evoquant.models.onnx_graph import FLOATS, PARAMETER, TABLES, Constant, Scope, Use, find_uses, scopes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from evoquant.models.arrays import Arrays

_PARAMETER = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*[._](?:weight|bias|scale|gamma|kernel|embedding)")
_SUFFIX = re.compile(r"[._](?:weight|bias|scale|gamma|kernel|embedding)$")
_ATTENTION = re.compile(r"(^|[._])(\w*attn|\w*attention|in_proj|out_proj|[qkv]_proj|qkv|c_attn)([._]|$)", re.IGNORECASE)
_PROJECTIONS = ("MatMul", "Gemm", "FusedMatMul")
_PREFIX = "evoquant."  # of names that we give to values


@dataclass(frozen=True)
class OnnxLayer:
    """A tensor of a graph that takes a width.

    Attributes:
        name: the parameter's module where it is named so, else the node's path.
        type: Conv, Linear, LayerNorm, Embedding, Attention or Recurrent; Classifier for the last Linear.
        input: name of the rewritten graph's input that takes the weight.
        dims: the shape that this input takes.
        stored: its NumPy type.
        shape: in which the weight is quantized; as many values as `dims`, in the same order.
        channel_axis: axis of `shape` of the output channels, None where the tensor is one slice.
        fan_in: inputs of one output value.
        groups: convolution groups.
        output: the value that the layer makes, None within a branch or a loop.
        activations: (a reader's first output, index of its input) that dynamic activation quantization applies to;
            empty where it cannot be had for each reader of the weight.
        per: what shares an activation scale: `token` or `sample`.
        tie_group: of layers that must share a width.
    """

    name: str
    type: str
    input: str
    dims: tuple[int, ...]
    stored: str
    shape: tuple[int, ...]
    channel_axis: int | None
    fan_in: int
    groups: int
    output: str | None
    activations: tuple[tuple[str, int], ...]
    per: str
    tie_group: str | None = None


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model whose weights come from outside.

    Attributes:
        proto: the graph; the layers' weights are inputs of it.
        weights: layer name → its weight in `OnnxLayer.shape`, as stored.
        layers: in order of execution.
        constant_bits: of every other float tensor, at its stored type.
    """

    proto: ModelProto
    weights: Arrays
    layers: tuple[OnnxLayer, ...]
    constant_bits: int


def open_model(
    model: ModelProto, types: Mapping[str, str], tie_groups: Mapping[str, Sequence[str]], source: str
) -> OpenedModel:
    """Take the weights out of `model`, which is changed in place.

    Args:
        model: a checked model.
        types: layer name → type, where the inferred one is wrong.
        tie_groups: group → names of layers that must share a width; they go before the groups that were found.
        source: what messages call the model.

    Raises:
        InputError: no weight takes a width; an unknown layer in `types` or `tie_groups`; a layer in two groups.
    """
    scopes = scopes_of(model.graph)
    uses: dict[int, list[Use]] = {}
    last: Use | None = None
    for use in find_uses(scopes):
        uses.setdefault(id(use.constant), []).append(use)
        last = use if use.role.type == "Linear" else last
    kept = [group for group in uses.values() if not _is_filler(group[0])]
    if not kept:
        raise InputError(
            f"{source}: no float weight of a Conv, Gemm, MatMul, Gather, recurrent or normalisation node was found; is "
            "the model quantized already? Give the FP32 model."
        )
    names = _names([group[0] for group in kept])
    layers, weights = [], {}
    for name, group in zip(names, kept, strict=True):
        layer = _layer(name, group, scopes[0])
        weights[name] = _value(group[0].constant, source).astype(layer.stored, copy=False).reshape(layer.shape)
        layers.append(layer)
    for layer, group in zip(layers, kept, strict=True):
        _take_out(group[0].constant, layer, model.graph)
    for scope in scopes:
        del scope.graph.value_info[:]  # descriptions that the rewritten graph may contradict
    output = next((i for i, group in enumerate(kept) if last is not None and group[0].constant is last.constant), None)
    layers = _typed(layers, output, types, source)
    layers = _tied(layers, kept, weights, tie_groups, source)
    return OpenedModel(model, weights, tuple(layers), _constant_bits(scopes_of(model.graph)))


def _value(constant: Constant, source: str) -> NDArray[np.generic]:
    try:
        value: NDArray[np.generic] = numpy_helper.to_array(constant.tensor)
    except Exception as error:  # whatever a damaged tensor makes of it
        raise InputError(f"{source}: the tensor {constant.name!r} cannot be read: {error}.") from None
    return value


def _is_filler(use: Use) -> bool:
    """Whether a norm's scale is only there because the operator wants one: all ones, and no parameter's name."""
    if use.role.type != "LayerNorm" or _PARAMETER.fullmatch(use.constant.name):
        return False
    try:
        return bool((numpy_helper.to_array(use.constant.tensor) == 1).all())
    except Exception:  # damaged: said when it is read as a weight
        return False


def _layer(name: str, uses: Sequence[Use], top: Scope) -> OnnxLayer:
    use = uses[0]
    constant, role = use.constant, use.role
    dims = constant.dims
    shape, axis = dims, None if role.axis is None else use.axes[role.axis]
    if role.type == "Recurrent" and use.dims == dims and axis == 1:  # each direction has channels of its own
        shape, axis = (dims[0] * dims[1], dims[2]), 0
    elif role.type == "LayerNorm":  # exporters add axes of one entry
        shape = (math.prod(dims),)
    casts = bool(constant.readers) and all(reader.op_type == "Cast" for reader in constant.readers)
    stored = "float32" if casts else FLOATS[constant.tensor.data_type]
    kind = "Attention" if role.type == "Linear" and _ATTENTION.search(name) else role.type
    return OnnxLayer(
        name=name,
        type=kind,
        input=constant.name if constant.scope is top else f"{_PREFIX}{name}",
        dims=dims,
        stored=stored,
        shape=shape,
        channel_axis=axis,
        fan_in=max(role.fan_in, 1),
        groups=role.groups,
        output=use.node.output[0] if use.scope is top else None,
        activations=_activations(uses, top) if stored == "float32" else (),
        per=role.per,
    )


def _activations(uses: Sequence[Use], top: Scope) -> tuple[tuple[str, int], ...]:
    found = [
        (use.node.output[0], use.role.activation)
        for use in uses
        if use.scope is top and use.role.activation is not None and use.role.per == uses[0].role.per
    ]
    return tuple(found) if len(found) == len(uses) else ()


def _names(uses: Sequence[Use]) -> list[str]:
    """One name per weight; each is unique."""
    plain = [_plain_name(use, index) for index, use in enumerate(uses)]
    several = Counter(plain)
    taken: set[str] = set()
    names = []
    for name, use in zip(plain, uses, strict=True):
        base = f"{name}.{use.role.part}" if several[name] > 1 else name
        unique, count = base, 2
        while unique in taken:
            unique, count = f"{base}.{count}", count + 1
        taken.add(unique)
        names.append(unique)
    return names


def _plain_name(use: Use, index: int) -> str:
    """`encoder.0` of the weight `encoder.0.weight`, of the bias that is added next, or of the path of the node."""
    if use.node.op_type in TABLES and PARAMETER.fullmatch(use.constant.name):
        return _SUFFIX.sub("", use.constant.name)
    for name in (use.constant.name, *_biases(use)):
        if _PARAMETER.fullmatch(name):
            return _SUFFIX.sub("", name)
    node = use.node
    parts = [part for part in node.name.split("/") if part]
    if len(parts) > 1 and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        parts.pop()
    path: list[str] = []
    for part in parts:  # torch's exporter writes /layers/layers.0 for the first of `layers`
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    text = "".join(c if c.isprintable() else "?" for c in ".".join(path))[:400]
    if not text and PARAMETER.fullmatch(use.constant.name):
        text = use.constant.name
    return text or f"{node.op_type}_{index}"


def _biases(use: Use) -> list[str]:
    """Names of constants that are added to what the node makes, or that are its own bias."""
    if use.role.type not in ("Conv", "Linear"):
        return []
    found = list(use.node.input[2:3])
    made = use.node.output[0]
    for node in use.scope.graph.node:
        if node.op_type == "Add" and made in node.input:
            found += [name for name in node.input if name != made]
    return [name for name in found if isinstance(use.scope.find(name), Constant)]


def _take_out(constant: Constant, layer: OnnxLayer, graph: GraphProto) -> None:
    """Make the constant an input of the outermost graph."""
    holder = constant.scope.graph
    if constant.node is not None:
        holder.node.remove(constant.node)
    else:
        index = next(i for i, tensor in enumerate(holder.initializer) if tensor.name == constant.name)
        del holder.initializer[index]
    for value in [value for value in holder.input if value.name == constant.name]:
        holder.input.remove(value)  # before IR version 4 initializers were listed as inputs, too
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(layer.stored))
    graph.input.append(onnx.helper.make_tensor_value_info(layer.input, kind, layer.dims))
    if layer.input != constant.name:
        holder.node.insert(0, onnx.helper.make_node("Identity", [layer.input], [constant.name]))


def _typed(layers: list[OnnxLayer], last: int | None, types: Mapping[str, str], source: str) -> list[OnnxLayer]:
    """Types as given; the Linear that is used last is the Classifier, unless that place is a tied embedding's."""
    known = {layer.name for layer in layers}
    for name in types:
        if name not in known:
            raise InputError(f"{source}: types names the layer {name!r}, which there is not.{suggestion(name, known)}")
    if last is not None and layers[last].type == "Linear":
        layers[last] = replace(layers[last], type="Classifier")
    return [replace(layer, type=types.get(layer.name, layer.type)) for layer in layers]


def _tied(
    layers: list[OnnxLayer],
    uses: Sequence[Sequence[Use]],
    weights: Arrays,
    declared: Mapping[str, Sequence[str]],
    source: str,
) -> list[OnnxLayer]:
    """Tie declared groups, equal tensors, and projections of one input that stand together."""
    known = {layer.name for layer in layers}
    ties: dict[str, str | None] = {}
    for group, members in declared.items():
        for name in members:
            if name not in known:
                raise InputError(f"{source}: tie group {group!r}: no layer {name!r}.{suggestion(name, known)}")
            if name in ties:
                raise InputError(
                    f"{source}: layer {name!r} is in the tie groups {ties[name]!r} and {group!r}; keep one."
                )
            ties[name] = group if len(members) > 1 else None
    found: dict[tuple[object, ...], list[str]] = {}
    contents = _content_keys(weights)
    for layer, readers in zip(layers, uses, strict=True):
        for key in (contents.get(layer.name), *(_input_key(layer.name, use) for use in readers)):
            if key is not None and layer.name not in found.setdefault(key, []):
                found[key].append(layer.name)
    for members in found.values():
        free = [name for name in members if name not in ties]
        if len(free) > 1:
            ties.update(dict.fromkeys(free, _group_name(free)))
    return [replace(layer, tie_group=ties.get(layer.name)) for layer in layers]


def _group_name(names: Sequence[str]) -> str:
    """`block.attn.q+k+v` of `block.attn.q`, `block.attn.k`, `block.attn.v`."""
    parts = [name.split(".") for name in names]
    common = 0
    while all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    return ".".join([*parts[0][:common], "+".join(".".join(p[common:]) for p in parts)])


def _content_keys(weights: Arrays) -> dict[str, tuple[object, ...]]:
    """Equal for matrices of equal content, one of them perhaps transposed, as exporters leave tied embeddings."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for name, weight in weights.items():
        if weight.ndim == 2 and min(weight.shape) > 1:
            low, high = float(weight.min()), float(weight.max())
            if low < high:
                alike.setdefault((*sorted(weight.shape), low, high), []).append(name)
    return {
        name: tuple(
            sorted(
                hashlib.sha256(np.ascontiguousarray(w).tobytes()).hexdigest() for w in (weights[name], weights[name].T)
            )
        )
        for names in alike.values()
        if len(names) > 1
        for name in names
    }


def _input_key(name: str, use: Use) -> tuple[object, ...] | None:
    """Equal for projections of one value whose modules stand beside each other, as query, key and value do."""
    if use.node.op_type not in _PROJECTIONS or use.role.type != "Linear":
        return None
    data = next((value for value in use.node.input[:2] if not _is_weight(use, value)), None)
    return None if data is None else ("input", id(use.scope), data, name.rpartition(".")[0])


def _is_weight(use: Use, name: str) -> bool:
    """Whether `name` leads back to the use's own tensor."""
    for _ in range(32):
        found = use.scope.find(name)
        if found is use.constant:
            return True
        node: NodeProto | None = found[0] if isinstance(found, tuple) else None
        if node is None or not node.input:
            return False
        name = node.input[0]
    return False


def _constant_bits(scopes: Iterable[Scope]) -> int:
    """Bits of all float tensors that are left; a single number in a `Constant` node is no parameter."""
    sizes: dict[int, int] = {
        TensorProto.FLOAT: 32,
        TensorProto.FLOAT16: 16,
        TensorProto.DOUBLE: 64,
        TensorProto.BFLOAT16: 16,
    }
    return sum(
        math.prod(constant.dims) * sizes.get(constant.tensor.data_type, 0)
        for scope in scopes
        for constant in scope.constants.values()
        if constant.node is None or math.prod(constant.dims) > 1
    )
