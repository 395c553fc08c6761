"""Read an ONNX model that a stranger may have made: every fault ends in one message.

Imported only once onnx is known to be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import external_data_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from evoquant.errors import InputError, quoted
from evoquant.models.onnx_graph import MAX_DEPTH, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, ModelProto, TensorProto

MAX_BYTES = 2**31 - 1  # a protobuf message cannot be larger
MAX_EXTERNAL_BYTES = 64 * 2**30
_CHECKED_BYTES = 2**29  # the checker copies the model; larger ones are checked once their weights are out


def read_model(model: Path | bytes, source: str) -> ModelProto:
    """The model with its external data, and its own functions written out.

    Args:
        model: a file, or its bytes; a model in bytes has no external data.
        source: what messages call it.

    Raises:
        InputError: the file is missing, too large, truncated or no ONNX model, its external data is missing, or the
            checker refuses it.
    """
    data = model if isinstance(model, bytes) else _bytes_of(model, source)
    try:
        proto = onnx.load_model_from_string(data, format="protobuf")
    except Exception as error:  # protobuf's own classes, by version
        raise InputError(f"{source}: no ONNX model, or a truncated one ({error}); export it again.") from None
    if not proto.graph.node:
        raise InputError(f"{source}: no ONNX model: it has no node; export it again.")
    _require_shallow(proto.graph, source)
    _load_external(proto, None if isinstance(model, bytes) else model.parent, source)
    if len(data) <= _CHECKED_BYTES and proto.ByteSize() <= _CHECKED_BYTES:
        check_model(proto, source)
    if proto.functions:
        from onnx import inliner

        proto = inliner.inline_local_functions(proto)
    return proto


def external_files(model: Path) -> tuple[Path, ...]:
    """The files beside a model in which its weights are.

    Raises:
        InputError: it cannot be read, or names a file out of its folder, which onnx does not load either.
    """
    try:
        proto = onnx.load_model_from_string(_bytes_of(model, str(model)), format="protobuf")
        found = {ExternalDataInfo(tensor).location for tensor in _tensors(proto.graph) if uses_external_data(tensor)}
    except InputError:
        raise
    except Exception as error:  # protobuf's own classes, by version
        raise InputError(f"{model}: no ONNX model, or a truncated one ({error}); export it again.") from None
    for name in found:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{model}: names {quoted(name)} for its weights, out of its folder; export it again.")
    return tuple(model.parent / name for name in sorted(found))


def check_model(proto: ModelProto, source: str) -> None:
    """Have onnx's checker look at the model.

    Raises:
        InputError: it refuses it.
    """
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # ValidationError; damaged strings raise others
        text = " ".join(str(error).split())[:500]
        raise InputError(f"{source}: onnx's checker refuses the model: {text}") from None


def _bytes_of(path: Path, source: str) -> bytes:
    try:
        if not path.is_file():
            fault = "is a directory, not a file" if path.is_dir() else "does not exist"
            raise InputError(f"{source}: {fault}.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"{source}: {size} bytes; a model file has at most {MAX_BYTES}; keep its weights in external data."
            )
        return path.read_bytes()
    except OSError as fault:
        raise InputError(f"{source}: cannot be read: {fault.strerror or fault}.") from None


def _require_shallow(graph: GraphProto, source: str) -> None:
    level = [graph]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for node in outer.node for inner in subgraphs(node)]
        if not level:
            return
    raise InputError(f"{source}: graphs within graphs, more than {MAX_DEPTH} deep.")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def _load_external(proto: ModelProto, folder: Path | None, source: str) -> None:
    external = [tensor for tensor in _tensors(proto.graph) if uses_external_data(tensor)]
    if not external:
        return
    if folder is None:
        raise InputError(f"{source}: the tensor {external[0].name!r} is in another file; give the model as a path.")
    total = 0
    for tensor in external:
        try:
            info = ExternalDataInfo(tensor)
        except ValueError as error:
            raise InputError(
                f"{source}: where the data of the tensor {tensor.name!r} is, is damaged: {error}."
            ) from None
        file = folder / info.location
        if not file.is_file():
            raise InputError(f"{source}: the data of the tensor {tensor.name!r} is missing: {file} does not exist.")
        total += tensor.ByteSize() + (info.length or file.stat().st_size)
    if total > MAX_EXTERNAL_BYTES:
        raise InputError(f"{source}: {total} bytes of external data; at most {MAX_EXTERNAL_BYTES} are read.")
    try:
        external_data_helper.load_external_data_for_model(proto, str(folder))
    except Exception as error:  # a path out of the folder, an offset past the end of the file
        raise InputError(f"{source}: its external data cannot be read: {error}") from None
    for tensor in external:  # a model is the same however its file was cut up
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
