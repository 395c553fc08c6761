"""An ONNX graph run in stages, one after the other: only the weights of one stage are needed at a time.

The nodes that onnxruntime has made of a graph, fused ones and all, are what its session runs. Here they are cut, in
their order, into stages, each a session of its own that optimizes nothing more, so that the same kernels see the same
values: results are those of the whole session to the last bit. From a weight on, what reads nothing but weights and
constants (casts, transposes) is done again in each stage that needs it, so that nothing as large as a weight is left
between stages. Imported only once onnx is known to be there.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TypeProto, helper, numpy_helper

from evoquant.models.onnx_graph import subgraphs
from evoquant.models.onnx_session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnxruntime
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

_KINDS = {name.lower(): number for name, number in onnx.TensorProto.DataType.items()}
_KINDS |= {"float": onnx.TensorProto.FLOAT, "double": onnx.TensorProto.DOUBLE}


KEPT_BYTES = 256 * 2**10
"""Of a stage's graph with its constants: a larger one is opened anew each time, since stages may share large constants,
and each session has a copy of its own."""


class CannotBeCutError(Exception):
    """The graph has to be run as a whole; the message says why."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Nodes that run together.

    Attributes:
        nodes: places of them in the graph.
        read: all that they read.
        weights: inputs that are weights.
        values: inputs that the caller gives or earlier stages make.
        made: outputs.
    """

    nodes: list[int]
    read: set[str]
    weights: tuple[str, ...]
    values: tuple[str, ...]
    made: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """Nodes that run together, and with what.

    Attributes:
        cut: the nodes.
        session: runs them; None where it is opened each time.
        done: values that nothing reads any more.
    """

    cut: Cut
    session: onnxruntime.InferenceSession | None
    done: tuple[str, ...]


class Stages:
    """A graph that runs at any weights, without having them all at once.

    Args:
        model: the graph whose weights are inputs.
        weights: input → bytes of the weight.
        limit: bytes of weights in a stage; a node that reads more is a stage by itself.
        source: what messages call the model.

    Raises:
        CannotBeCutError: it has to run as a whole.
        InputError: onnxruntime cannot run the model, or a stage.
    """

    def __init__(self, model: bytes, weights: Mapping[str, int], limit: int, source: str) -> None:
        self._proto = _optimized(model, source)
        self._source = source
        graph = self._proto.graph
        outputs = {value.name for value in graph.output}
        cuts = _cuts(graph, weights, limit)
        self._types = _types(self._proto, cuts, source)
        self._types |= {value.name: value.type for value in graph.input}
        last = {name: place for place, cut in enumerate(cuts) for name in (*cut.made, *cut.values)}
        self._constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name in outputs}
        self._between: int | None = None  # bytes that lie between stages, of a batch
        self._stages = []
        for place, cut in enumerate(cuts):
            done = tuple(name for name in (*cut.values, *cut.made) if last[name] == place and name not in outputs)
            part = _part(self._proto, cut, self._types).SerializeToString()
            session = open_session(part, source, as_it_is=True)
            self._stages.append(Stage(cut, session if len(part) <= KEPT_BYTES else None, done))

    def __len__(self) -> int:
        return len(self._stages)

    def together(self, limit: int) -> int:
        """How many batches can go through together, so that at most `limit` bytes lie between stages; 1 at first."""
        return 1 if self._between is None else max(1, limit // max(self._between, 1))

    def run(
        self,
        outputs: Sequence[str],
        batches: Sequence[Mapping[str, NDArray[Any]]],
        weight: Callable[[str], NDArray[Any]],
    ) -> list[list[Any]]:
        """The outputs of each batch, as a session's `run` gives them.

        Args:
            outputs: names of those that are wanted.
            batches: inputs that are no weights.
            weight: gives the weight of an input; it is asked as the stage that reads it begins.
        """
        constants = {
            name: _lent(numpy_helper.to_array(self._constants[name])) for name in outputs if name in self._constants
        }
        values = [constants | {name: _lent(array) for name, array in feeds.items()} for feeds in batches]
        most = 0
        for stage in self._stages:
            self._run(stage, values, {name: _lent(weight(name)) for name in stage.cut.weights})
            most = max(most, sum(_bytes(values[0][name]) for name in values[0].keys() - batches[0].keys()))
        self._between = max(most, self._between or 0)
        return [[held[name].numpy() for name in outputs] for held in values]

    def _run(
        self,
        stage: Stage,
        values: list[dict[str, onnxruntime.OrtValue]],
        weights: dict[str, onnxruntime.OrtValue],
    ) -> None:
        """Run a stage on each batch's values, put in what it makes and take out what is done with."""
        cut, session = stage.cut, stage.session
        if session is None:
            part = _part(self._proto, cut, self._types).SerializeToString()
            session = open_session(part, self._source, as_it_is=True)
        for held in values:
            given = weights | {name: held[name] for name in cut.values}
            held.update(zip(cut.made, session.run_with_ort_values(list(cut.made), given), strict=True))
            for name in stage.done:
                del held[name]


def _bytes(value: onnxruntime.OrtValue) -> int:
    size: int = value.tensor_size_in_bytes() if value.is_tensor() else 0
    return size


def _lent(array: NDArray[Any]) -> onnxruntime.OrtValue:
    """The array as onnxruntime takes it, where it lies."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))


def _optimized(model: bytes, source: str) -> ModelProto:
    """What onnxruntime runs of the model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimized.onnx"
        open_session(model, source, optimized=file)
        try:
            return onnx.load_model(file)
        except Exception as error:  # larger than a protobuf message may be
            raise CannotBeCutError(f"what onnxruntime has made of it cannot be read: {error}") from None


def _cuts(graph: GraphProto, weights: Mapping[str, int], limit: int) -> list[Cut]:
    """Consecutive nodes with at most `limit` bytes of weights, or with one node's.

    Raises:
        CannotBeCutError: a weight is an output, or the nodes are not in an order.
    """
    nodes = list(graph.node)  # made anew at each look, so places stand for them
    reads = [reads_of(node) for node in nodes]
    outputs = {value.name for value in graph.output}
    makers = _makers(graph, weights, reads, outputs)
    fixed = set(makers.values())
    groups = _groups([place for place in range(len(nodes)) if place not in fixed], reads, makers, weights, limit)
    last = {name: number for number, (own, _) in enumerate(groups) for place in own for name in reads[place]}
    there = {value.name for value in graph.input} - set(weights)
    known = {*weights, *makers, *(tensor.name for tensor in graph.initializer)}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    cuts = []
    for number, (own, needed) in enumerate(groups):
        values: set[str] = set()
        made: list[str] = []
        for place in own:
            asked = reads[place] - known - set(made)
            if not asked <= there:
                raise CannotBeCutError("its nodes are not in an order in which they can run")
            values |= asked
            made += [name for name in nodes[place].output if name]
        inside = _with_makers(own, reads, makers)
        left = tuple(name for name in made if name in outputs or last.get(name, number) > number)
        there.update(left)
        read = {name for place in inside for name in reads[place]}
        cuts.append(Cut(inside, read, tuple(sorted(needed)), tuple(sorted(values)), left))
    if outputs & set(weights):
        raise CannotBeCutError(f"the weight {min(outputs & set(weights))!r} is an output")
    return cuts


def _makers(graph: GraphProto, weights: Iterable[str], reads: Sequence[set[str]], outputs: set[str]) -> dict[str, int]:
    """Of values that are made of weights and constants alone: the place of the node that makes each."""
    known = {*weights, *(tensor.name for tensor in graph.initializer)}
    makers: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        own = {name for name in node.output if name}
        if reads[place] <= known and not subgraphs(node) and not own & outputs:
            known |= own
            makers.update(dict.fromkeys(own, place))
    return makers


def _groups(
    places: Sequence[int],
    reads: Sequence[set[str]],
    makers: Mapping[str, int],
    weights: Mapping[str, int],
    limit: int,
) -> list[tuple[list[int], set[str]]]:
    """Nodes that run together, and the weights that they need."""
    groups: list[tuple[list[int], set[str]]] = []
    for place in places:
        needed = {name for one in _with_makers([place], reads, makers) for name in reads[one] if name in weights}
        before = groups[-1][1] if groups else set()
        alone = not before or needed <= before
        if groups and (alone or sum(weights[name] for name in before | needed) <= limit):
            groups[-1][0].append(place)
            before.update(needed)
        else:
            groups.append(([place], needed))
    return groups


def _with_makers(places: Sequence[int], reads: Sequence[set[str]], makers: Mapping[str, int]) -> list[int]:
    """These nodes, and those that make what they read of weights and constants; in the graph's order."""
    found, waiting = set(places), list(places)
    while waiting:
        more = {makers[name] for name in reads[waiting.pop()] if name in makers} - found
        found |= more
        waiting += more
    return sorted(found)


def reads_of(node: NodeProto) -> set[str]:
    """What a node reads, branches and bodies included."""
    found = {name for name in node.input if name}
    return found.union(*(_from_outside(inner) for inner in subgraphs(node)))


def _from_outside(graph: GraphProto) -> set[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    return {value.name for value in graph.output}.union(*(reads_of(node) for node in graph.node)) - own


def _types(proto: ModelProto, cuts: Sequence[Cut], source: str) -> dict[str, TypeProto]:
    """Types of what stages make: onnxruntime knows them."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for cut in cuts for name in cut.made if name not in there)
    session = open_session(model.SerializeToString(), source, as_it_is=True)
    return {value.name: _type(value.name, value.type, len(value.shape)) for value in session.get_outputs()}


def _type(name: str, text: str, rank: int) -> TypeProto:
    """The type that onnxruntime writes as `tensor(float)` or `seq(tensor(float))`.

    Sizes are left out, as models may state wrong ones; a rank of 0 is that of a tensor of any.

    Raises:
        CannotBeCutError: it is another kind of type.
    """
    outer, _, inner = text.removesuffix(")").partition("(")
    if outer in ("seq", "optional"):
        wrap = helper.make_sequence_type_proto if outer == "seq" else helper.make_optional_type_proto
        return wrap(_type(name, inner, 0))
    if outer != "tensor" or inner not in _KINDS:
        raise CannotBeCutError(f"the value {name!r} is {text}, which cannot be handed on")
    return helper.make_tensor_type_proto(_KINDS[inner], [None] * rank if rank else None)


def _part(proto: ModelProto, cut: Cut, types: Mapping[str, TypeProto]) -> ModelProto:
    """The stage's nodes as a model."""
    model = onnx.ModelProto(ir_version=proto.ir_version, producer_name=proto.producer_name)
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    part = model.graph
    part.name = "stage"
    part.node.extend(proto.graph.node[place] for place in cut.nodes)
    part.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in cut.read)
    part.sparse_initializer.extend(t for t in proto.graph.sparse_initializer if t.values.name in cut.read)
    part.input.extend(helper.make_value_info(name, types[name]) for name in (*cut.values, *cut.weights))
    part.output.extend(helper.make_value_info(name, types[name]) for name in cut.made)
    return model
