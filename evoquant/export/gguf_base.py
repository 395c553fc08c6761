"""A GGUF of the same network, made by llama.cpp's converter, whose settings and vocabulary an export takes over.

Imported only once gguf is known to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFValueType, GGUFWriter, quants

from evoquant.errors import InputError
from evoquant.export.gguf_blocks import permuted
from evoquant.export.gguf_llama import Heads
from evoquant.profiles.llama_names import hf_name

if TYPE_CHECKING:
    from gguf.gguf_reader import ReaderField, ReaderTensor
    from numpy.typing import NDArray

    from evoquant.export.recipe_schema import RecipeLayer

_NOT_COPIED = (
    "general.architecture",  # the writer's own, as the next
    "general.alignment",
    "general.file_type",
    "general.quantization_version",
    "general.quantized_by",
)
_LONGEST = 60  # characters of a value in a message
_PLAIN_ARRAY = 2  # types of a field: an array, and its items
_EXACT = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
_NEAR = {True: 0.01, False: 0.5}
"""Whether the base's tensor is a plain float → how far it may be from the network's weight, relative to that; of rows
in another order the distance is about 1.4."""


@dataclass(frozen=True, eq=False)
class Base:
    """What an export takes from a base.

    Attributes:
        path: of the file.
        architecture: llama.cpp's name.
        fields: key → value.
        tensors: in the file's order.
        heads: of attention.
    """

    path: Path
    architecture: str
    fields: Mapping[str, ReaderField]
    tensors: tuple[ReaderTensor, ...]
    heads: Heads

    def require(self, layers: Mapping[str, RecipeLayer]) -> None:
        """Whether the base has each layer, in its shape, and no matrix of Llama's kind that is none.

        Args:
            layers: by their names in GGUF.

        Raises:
            InputError: it has not.
        """
        shapes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in self.tensors}
        for name, layer in layers.items():
            if name not in shapes:
                raise InputError(
                    f"{self.path}: has no tensor {name!r} for layer {layer.name!r}; is it of this network?"
                )
            if shapes[name] != layer.shape:
                raise InputError(
                    f"{self.path}: tensor {name!r} is of shape {shapes[name]}, layer {layer.name!r} of {layer.shape}; "
                    f"is it of this network?"
                )
        for name, shape in shapes.items():
            if len(shape) > 1 and name not in layers and hf_name(name) is not None:
                raise InputError(f"{self.path}: its tensor {name!r} is no layer of the recipe; is it of this network?")

    def heads_of(self, tensor: ReaderTensor) -> int | None:
        """Heads of a matrix of queries or keys; None for all others.

        Raises:
            InputError: there is no number for its block, or rows cannot be of so many heads.
        """
        rows = int(tensor.shape[-1])
        try:
            heads = self.heads.of(tensor.name)
        except IndexError:
            raise InputError(
                f"{self.path}: says how many heads its first blocks have, and nothing of tensor {tensor.name!r}; make "
                f"it with llama.cpp's converter."
            ) from None
        if heads is not None and (heads < 1 or rows % heads):
            raise InputError(
                f"{self.path}: says that tensor {tensor.name!r} is of {heads} heads, and it has {rows} rows; make it "
                f"with llama.cpp's converter."
            )
        return heads

    def add_settings(self, writer: GGUFWriter) -> None:
        """All keys but those of the file itself."""
        if "general.alignment" in self.fields:
            writer.add_custom_alignment(int(self.fields["general.alignment"].contents()))
        for key, field in self.fields.items():
            if key not in _NOT_COPIED and not key.startswith("GGUF."):
                _copy(writer, key, field)

    def permutes(self, tensor: ReaderTensor, weight: NDArray[np.generic], heads: int | None) -> bool:
        """Whether the base has a matrix's rows in llama.cpp's order rather than in the network's.

        Args:
            tensor: of the base.
            weight: of the network.
            heads: of the matrix; None where its rows always stay.

        Raises:
            InputError: it is neither, so that the base is of another network.
        """
        own = np.asarray(weight, dtype=np.float32)
        orders = {False: own} if heads is None or len(own) % (2 * heads) else {False: own, True: permuted(own, heads)}
        with np.errstate(all="ignore"):  # whatever a base holds
            theirs = self._values(tensor).reshape(own.shape)
            distances = {moved: float(np.linalg.norm(theirs - rows)) for moved, rows in orders.items()}
        nearest = min(distances, key=distances.__getitem__)
        most = _NEAR[tensor.tensor_type in _EXACT] * float(np.linalg.norm(own))
        if not distances[nearest] <= most:
            raise InputError(
                f"{self.path}: tensor {tensor.name!r} holds other weights than the network; make the base from the "
                f"same network with llama.cpp's converter."
            )
        return nearest

    def _values(self, tensor: ReaderTensor) -> NDArray[np.float32]:
        try:
            values: NDArray[np.float32] = quants.dequantize(tensor.data, tensor.tensor_type)
            return values
        except Exception:  # gguf's own: not all types are of weights, and it does not decode all of those
            raise InputError(
                f"{self.path}: tensor {tensor.name!r} is of type {tensor.tensor_type.name}, which cannot be compared "
                f"with the network's; make the base with --outtype f16 or f32."
            ) from None


class _WholeFile(GGUFReader):  # type: ignore[misc]
    """The reader, which says so where a file ends too early: it would go on for as long as the file's numbers say."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        found = super()._get(offset, dtype, count, override_order)
        if len(found) < count:
            raise ValueError(f"it ends where {count} numbers should stand")
        return found


def open_gguf(path: Path) -> GGUFReader:
    """A GGUF file's keys and tensors.

    Raises:
        InputError: it is none, or it cannot be read.
    """
    try:
        return _WholeFile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # whatever a damaged file makes of the reader
        raise InputError(f"{path}: no GGUF file, or a damaged one ({type(error).__name__}: {error}).") from None


def read_base(path: Path) -> Base:
    """A base from its file.

    Raises:
        InputError: no GGUF, a part of one, in another byte order, or without what an export needs.
    """
    reader = open_gguf(path)
    architecture = _setting(reader, path, "general.architecture")
    queries = _heads(reader, path, f"{architecture}.attention.head_count")
    if not (isinstance(architecture, str) and architecture) or queries is None:
        raise InputError(f"{path}: does not say what model it is; make it with llama.cpp's converter.")
    keys = _heads(reader, path, f"{architecture}.attention.head_count_kv")
    if reader.endianess is not GGUFEndian.LITTLE:
        raise InputError(f"{path}: has its bytes in the order of rare machines; convert it without --bigendian.")
    if nested := next((key for key, field in reader.fields.items() if len(field.types) > _PLAIN_ARRAY), None):
        raise InputError(f"{path}: its key {nested!r} is an array of arrays, which cannot be copied; remove it.")
    parts = _setting(reader, path, "split.count")
    if not (parts is None or _whole(parts)):
        raise InputError(f"{path}: its key 'split.count' is {_spoken(parts)}, which is no number of files; remove it.")
    if parts is not None and parts > 1:
        raise InputError(f"{path}: is a part of a model; join the parts first: llama-gguf-split --merge.")
    heads = Heads(queries, queries if keys is None else keys)
    return Base(path, architecture, reader.fields, tuple(reader.tensors), heads)


def _setting(reader: GGUFReader, path: Path, key: str) -> Any:
    """A key's value; None where there is none."""
    field = reader.fields.get(key)
    try:
        return None if field is None else field.contents()
    except UnicodeDecodeError:
        raise InputError(f"{path}: its key {key!r} is no text; make it with llama.cpp's converter.") from None


def _heads(reader: GGUFReader, path: Path, key: str) -> int | list[int] | None:
    """A key's number of heads, or one for each block."""
    value: int | list[int] | None = _setting(reader, path, key)
    if value is None or all(_whole(each) for each in (value if isinstance(value, list) else [value])):
        return value
    raise InputError(
        f"{path}: its key {key!r} is {_spoken(value)}, which is no number of heads; make it with llama.cpp's converter."
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _spoken(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _copy(writer: GGUFWriter, key: str, field: ReaderField) -> None:
    """Strings as bytes: not all tokens are UTF-8."""
    kind = field.types[0]
    if kind is GGUFValueType.STRING:
        writer.add_key_value(key, field.parts[-1].tobytes(), kind)
    elif kind is not GGUFValueType.ARRAY:
        writer.add_key_value(key, field.contents(), kind)
    elif field.data:
        inner = field.types[-1]
        values: list[Any] = field.contents() if inner is not GGUFValueType.STRING else _strings(field)
        writer.add_key_value(key, values, kind, inner)


def _strings(field: ReaderField) -> list[bytes]:
    return [field.parts[index].tobytes() for index in field.data]
