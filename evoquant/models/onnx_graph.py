"""Which tensors of an ONNX graph take a width: found by who reads them, however they got there.

A weight may be an initializer or a `Constant` node, of the graph or of a branch of `If` or a body of `Loop`; it may be
read through Identity, Cast, Transpose, Reshape, Squeeze, Unsqueeze and Flatten, and by several nodes. It is one layer.
Imported only once onnx is known to be there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from evoquant.models.onnx_roles import Role, roles_of, scales_a_norm, table_role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, NodeProto

FLOATS: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
TABLES = ("Add", "Concat", "Expand")
PARAMETER = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_OWN_DOMAINS = ("", "ai.onnx")
MAX_DEPTH = 32  # of graphs within graphs, and of what stands between a weight and its reader


@dataclass(eq=False)
class Constant:
    """A tensor that is part of the model.

    Attributes:
        name: in its own graph.
        tensor: its value.
        scope: the graph that holds it.
        node: the `Constant` node, None for an initializer.
        readers: nodes that take it by its own name.
    """

    name: str
    tensor: TensorProto
    scope: Scope
    node: NodeProto | None = None
    readers: list[NodeProto] = field(default_factory=list)

    @property
    def dims(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.dims)


class Scope:
    """A graph with the graphs around it: names are looked up from the inside out."""

    def __init__(self, graph: GraphProto, outer: Scope | None = None) -> None:
        self.graph = graph
        self.outer = outer
        self.constants = {t.name: Constant(t.name, t, self) for t in graph.initializer}
        self.producers: dict[str, NodeProto] = {}
        for node in graph.node:
            tensor = _constant_of(node)
            if tensor is None:
                self.producers.update({name: node for name in node.output if name})
            else:
                self.constants[node.output[0]] = Constant(node.output[0], tensor, self, node)
        self._inputs = {value.name for value in graph.input} - set(self.constants)

    def find(self, name: str) -> Constant | tuple[NodeProto, Scope] | None:
        """The constant of that name, or the node that makes it and its scope; None for what comes from outside."""
        if name in self.constants:
            return self.constants[name]
        if name in self.producers:
            return self.producers[name], self
        return None if name in self._inputs or self.outer is None else self.outer.find(name)

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes `name`, if a node does."""
        found = self.find(name)
        return found[0] if isinstance(found, tuple) else None

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The values of a constant of integers."""
        found = self.find(name) if name else None
        if not isinstance(found, Constant) or found.tensor.data_type not in (TensorProto.INT64, TensorProto.INT32):
            return None
        return tuple(int(value) for value in numpy_helper.to_array(found.tensor).ravel())


@dataclass(frozen=True, eq=False)
class Use:
    """A weight as one node reads it.

    Attributes:
        constant: the tensor.
        node: the reader.
        scope: the reader's graph.
        role: what the reader takes it for.
        dims: its shape as read.
        axes: for each axis as read, the same axis of the tensor, None where there is none.
    """

    constant: Constant
    node: NodeProto
    scope: Scope
    role: Role
    dims: tuple[int, ...]
    axes: tuple[int | None, ...]


def attributes(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by name; graphs are left out."""
    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.type not in graphs}


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Branches and bodies."""
    found = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        found += attribute.graphs
    return found


def scopes_of(graph: GraphProto) -> list[Scope]:
    """The graph and all graphs within it, each with the constants' readers filled in."""
    found = [Scope(graph)]
    for scope in found:
        for node in scope.graph.node:
            found += [Scope(inner, scope) for inner in subgraphs(node)]
    for scope in found:
        for node in scope.graph.node:
            for name in node.input:
                constant = scope.find(name) if name else None
                if isinstance(constant, Constant):
                    constant.readers.append(node)
    return found


def find_uses(scopes: list[Scope]) -> Iterator[Use]:
    """Every use of a float weight that takes a width, in order of execution; the first graph is the outermost."""
    by_graph = {id(scope.graph): scope for scope in scopes}

    def visit(scope: Scope) -> Iterator[Use]:
        for node in scope.graph.node:
            yield from _uses_of(node, scope)
            for inner in subgraphs(node):
                yield from visit(by_graph[id(inner)])

    return visit(scopes[0])


def _uses_of(node: NodeProto, scope: Scope) -> Iterator[Use]:
    if node.op_type == "Mul" and node.domain in _OWN_DOMAINS and len(node.input) == 2:
        for index in (0, 1):
            view = _view(node.input[index], scope)
            if view is not None and math.prod(view[1]) > 1 and scales_a_norm(scope, node.input[1 - index]):
                yield Use(view[0], node, scope, Role("scale", "LayerNorm", None, 1), view[1], view[2])
        return
    views = {}
    for index, name in enumerate(node.input):
        view = _view(name, scope) if name else None
        if view is not None:
            views[index] = view
    dims = {index: view[1] for index, view in views.items()}
    roles = roles_of(node, attributes(node), dims, scope)
    if node.op_type in TABLES and node.domain in _OWN_DOMAINS:
        roles = {index: table_role(view[0].name, view[1]) for index, view in views.items() if _is_table(*view[:2])}
    for index, role in roles.items():
        yield Use(views[index][0], node, scope, role, views[index][1], views[index][2])


def _is_table(constant: Constant, dims: tuple[int, ...]) -> bool:
    """Whether a tensor that is added or joined is a learned table: positions, a class token; a bias or mask is none.

    It is a parameter with a name of its own, or has two axes, since exporters fold a look-up of all positions into a
    nameless tensor; and its values are finite and mostly different, which a mask's are not.
    """
    if constant.node is not None or len(dims) < 2 or len(constant.dims) < 2 or constant.name.endswith("bias"):
        return False
    if not PARAMETER.fullmatch(constant.name) and sum(size > 1 for size in dims) < 2:
        return False
    try:
        values = numpy_helper.to_array(constant.tensor)
    except Exception:  # damaged: the checker or the runtime says so
        return False
    return bool(np.isfinite(values).all()) and len(np.unique(values)) > values.size // 2


def _constant_of(node: NodeProto) -> TensorProto | None:
    """The float or integer tensor of a `Constant` node."""
    if node.op_type != "Constant" or node.domain not in _OWN_DOMAINS or len(node.output) != 1:
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor: TensorProto = attribute.t
            return tensor
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            values = onnx.helper.get_attribute_value(attribute)
            kind = TensorProto.FLOAT if "float" in attribute.name else TensorProto.INT64
            shape = [len(values)] if isinstance(values, list) else []
            return onnx.helper.make_tensor(node.output[0], kind, shape, values if shape else [values])
    return None


View = tuple[Constant, tuple[int, ...], tuple[int | None, ...]]


def _view(name: str, scope: Scope, depth: int = 0) -> View | None:
    """The float weight that `name` stands for, its shape there, and which of its axes those are."""
    found = scope.find(name)
    if isinstance(found, Constant):
        return (found, found.dims, tuple(range(len(found.dims)))) if found.tensor.data_type in FLOATS else None
    if found is None or depth > MAX_DEPTH:
        return None
    node, where = found
    if node.domain not in _OWN_DOMAINS or node.op_type not in ("Identity", "Cast", "Transpose", *_RESHAPES):
        return None
    before = _view(node.input[0], where, depth + 1)
    if before is None:
        return None
    constant, dims, axes = before
    given = attributes(node)
    if node.op_type == "Cast":
        return before if given.get("to") in FLOATS else None
    if node.op_type == "Transpose":
        order = given.get("perm", list(range(len(dims)))[::-1])
        return constant, tuple(dims[i] for i in order), tuple(axes[i] for i in order)
    if node.op_type in _RESHAPES:
        after = _reshaped(node, given, dims, where)
        return None if after is None else (constant, after, _kept(dims, axes, after))
    return before


def _reshaped(node: NodeProto, given: dict[str, Any], dims: tuple[int, ...], scope: Scope) -> tuple[int, ...] | None:
    """The shape after a node of `_RESHAPES`, None where it is not fixed."""
    if node.op_type == "Flatten":
        axis = given.get("axis", 1) % (len(dims) + 1)
        return math.prod(dims[:axis]), math.prod(dims[axis:])
    argument = scope.integers(node.input[1]) if len(node.input) > 1 else None
    if len(node.input) > 1 and node.input[1] and argument is None:
        return None
    if node.op_type == "Reshape":
        wanted = argument if argument is not None else tuple(given.get("shape", ()))
        sizes = [
            dims[i] if d == 0 and i < len(dims) and not given.get("allowzero") else d for i, d in enumerate(wanted)
        ]
        known = math.prod(d for d in sizes if d != -1)
        after = tuple(math.prod(dims) // max(known, 1) if d == -1 else d for d in sizes)
        return after if math.prod(after) == math.prod(dims) else None
    named = argument if argument is not None else tuple(given.get("axes", ()))
    if node.op_type == "Squeeze":
        gone = {axis % len(dims) for axis in named} if named else {i for i, d in enumerate(dims) if d == 1}
        return tuple(d for i, d in enumerate(dims) if i not in gone)
    new = {axis % (len(dims) + len(named)) for axis in named}
    rest = iter(dims)
    return tuple(1 if i in new else next(rest) for i in range(len(dims) + len(named)))


def _kept(dims: tuple[int, ...], axes: tuple[int | None, ...], after: tuple[int, ...]) -> tuple[int | None, ...]:
    """For each axis after a reshape, the axis of the tensor that it is: of its size, with as many entries before it."""
    places = {(math.prod(dims[:i]), d): axes[i] for i, d in enumerate(dims) if d > 1}
    return tuple(places.get((math.prod(after[:i]), d)) for i, d in enumerate(after))
