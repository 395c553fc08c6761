"""The types of a GGUF file's tensors, read as an allocation.

Only the head of the file is read, by this module: gguf's own reader follows any length that the file states, and a file
of sixty bytes can keep it busy until the memory is full.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from evoquant.campaign.imported_layers import Imported, Site, fitting, own_numbers, shown, unknown
from evoquant.errors import InputError, quoted
from evoquant.profiles.llama_names import hf_name
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KIND = "GGUF"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_ITEMS, LONGEST_TEXT, MOST_AXES = 2**22, 2**16, 8

_NAMES = (
    *("F32", "F16", "Q4_0", "Q4_1", "4", "5", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64"),
    *("F64", "IQ1_M", "BF16", "31", "32", "33", "TQ1_0", "TQ2_0", "36", "37", "38", "MXFP4", "NVFP4", "Q1_0"),
)
"""Names of the types by number, those of numbers that are not in use the number."""


@dataclass(frozen=True)
class TensorType:
    """How a type stores `block` weights in `size` bytes, and the precision that is it, or nearest to it."""

    block: int
    size: int
    width: str
    exact: bool = True

    @property
    def bits(self) -> float:
        """Bits a weight."""
        return 8 * self.size / self.block


TYPES: dict[str, TensorType] = {
    "F32": TensorType(1, 4, "FP32"),
    "F16": TensorType(1, 2, "FP16"),
    "BF16": TensorType(1, 2, "BF16"),
    "Q8_0": TensorType(32, 34, "INT8-g32"),
    "Q4_0": TensorType(32, 18, "INT4-g32"),
    "Q4_1": TensorType(32, 20, "INT4-g32-asym"),
    "Q5_0": TensorType(32, 22, "INT5-g32"),
    "Q5_1": TensorType(32, 24, "INT5-g32-asym"),
    "Q2_K": TensorType(256, 84, "INT2-g16-asym", exact=False),
    "Q3_K": TensorType(256, 110, "INT3-g16", exact=False),
    "Q4_K": TensorType(256, 144, "INT4-g32-asym", exact=False),
    "Q5_K": TensorType(256, 176, "INT5-g32-asym", exact=False),
    "Q6_K": TensorType(256, 210, "INT6-g16", exact=False),
    "IQ4_NL": TensorType(32, 18, "NF4-g32", exact=False),
    "IQ4_XS": TensorType(256, 136, "NF4-g32", exact=False),
}
"""Types that evoquant has, or has something like."""

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Kinds of values → bytes."""
_TEXT, _ARRAY, _UINT32 = 8, 9, 4


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: the name of its type, and its shape as PyTorch has it."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Gguf:
    """The tensors of a GGUF file, by name."""

    source: str
    tensors: Mapping[str, Tensor]

    def resolve(self, sites: Sequence[Site]) -> Imported:
        """Widths of the layers that the file holds; see `Foreign`."""
        known = {site.name: site for site in sites}
        widths: dict[str, str] = {}
        near: dict[str, list[str]] = {}
        for name, tensor in self.tensors.items():
            if name.endswith(".bias") or name == "rope_freqs.weight":
                continue  # takes no width
            layer = hf_name(name)
            if layer is None:
                raise InputError(f"{self.source}: the tensor {quoted(name)} is none of a Llama-like network's.")
            if layer not in known:
                raise unknown(self.source, layer, sites)
            if tensor.shape != known[layer].shape:
                raise InputError(
                    f"{self.source}: the tensor {quoted(name)} has the shape {tensor.shape}, but the network's layer "
                    f"{layer!r} has {known[layer].shape}; is the file for this network?"
                )
            widths[layer] = fitting(known[layer], TYPES[tensor.type].width, self.source)
            if not TYPES[tensor.type].exact:
                near.setdefault(tensor.type, []).append(layer)
        if "lm_head" in known and "lm_head" not in widths:
            raise InputError(
                f"{self.source}: has no output.weight: the output of its network is the embedding's weight, but this "
                f"network has a layer 'lm_head' of its own."
            )
        warnings = [own_numbers(KIND)]
        for kind, layers in sorted(near.items()):
            width, shape = Precision.parse(TYPES[kind].width), known[layers[0]].shape
            bits = width.effective_bits(shape, known[layers[0]].channel_axis)
            warnings.append(
                f"{kind} ({TYPES[kind].bits:g} bits) is measured as {width.name} ({bits:g} bits), the nearest: "
                f"{shown(layers)}"
            )
        return Imported(widths, tuple(warnings))


def gguf_types(path: Path) -> Gguf:
    """The tensors of a GGUF file; what they hold is not read.

    Raises:
        InputError: the file is damaged, of another version, or has a type that evoquant has nothing like.
    """
    try:
        with path.open("rb") as stream:
            return Gguf(str(path), _Head(stream, str(path)).tensors())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None


class _Head:
    """The head of a GGUF file, read front to back; every length is checked against what is left of the file."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream, self._source = stream, source
        self._size = os.fstat(stream.fileno()).st_size
        self._alignment = 32

    def tensors(self) -> dict[str, Tensor]:
        if self._take(4) != MAGIC:
            raise self._damaged("does not begin with GGUF")
        version = self._number("<I")
        if version not in VERSIONS:
            raise InputError(
                f"{self._source}: GGUF of version {version} (or for big-endian machines); 2 and 3 are read."
            )
        tensors, values = self._count(24), self._count(13)
        for _ in range(values):
            self._value()
        found: dict[str, Tensor] = {}
        ends = 0
        for _ in range(tensors):
            name, tensor, end = self._tensor()
            if name in found:
                raise self._damaged(f"the tensor {quoted(name)} stands twice")
            found[name] = tensor
            ends = max(ends, end)
        if not found:
            raise self._damaged("it holds no tensors")
        start = -(-self._stream.tell() // self._alignment) * self._alignment
        if start + ends > self._size:
            raise self._damaged(f"its tensors end at byte {start + ends}, and the file has {self._size}")
        return found

    def _damaged(self, fault: str) -> InputError:
        return InputError(f"{self._source}: a damaged GGUF file: {fault}.")

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count) if count <= self._left() else b""
        if len(data) < count:
            raise self._damaged(f"it ends within its head, at byte {self._size}")
        return data

    def _left(self) -> int:
        return self._size - self._stream.tell()

    def _skip(self, count: int) -> None:
        if count > self._left():
            raise self._damaged(f"it ends within its head, at byte {self._size}")
        self._stream.seek(count, os.SEEK_CUR)

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _count(self, smallest: int) -> int:
        """A number of things of at least `smallest` bytes each."""
        count = self._number("<Q")
        if count > MOST_ITEMS or count * smallest > self._left():
            raise self._damaged(f"it announces {count} entries, more than it can hold")
        return count

    def _text(self) -> str:
        length = self._number("<Q")
        if length > LONGEST_TEXT:
            raise self._damaged(f"a name of {length} bytes")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("a name is not UTF-8") from None

    def _value(self) -> None:
        key, kind = self._text(), self._number("<I")
        if key == "general.alignment":
            self._alignment = self._number("<I") if kind == _UINT32 else 0
            if self._alignment < 1 or self._alignment & (self._alignment - 1):
                raise self._damaged("general.alignment is no power of two")
        elif kind == _ARRAY:
            inner = self._number("<I")
            if inner == _TEXT:
                for _ in range(self._count(8)):
                    self._skip(self._number("<Q"))
            else:
                self._skip(self._scalar(inner, key) * self._number("<Q"))
        else:
            self._skip(self._number("<Q") if kind == _TEXT else self._scalar(kind, key))

    def _scalar(self, kind: int, key: str) -> int:
        if kind not in _SCALARS:
            raise self._damaged(f"the value {quoted(key, 60)} is of the unknown kind {kind}")
        return _SCALARS[kind]

    def _tensor(self) -> tuple[str, Tensor, int]:
        """Name, tensor, and where it ends after the head."""
        name = self._text()
        axes = self._number("<I")
        if axes > MOST_AXES:
            raise self._damaged(f"the tensor {quoted(name, 60)} has {axes} axes")
        shape = tuple(reversed([self._number("<Q") for _ in range(axes)]))
        number, offset = self._number("<I"), self._number("<Q")
        kind = _NAMES[number] if number < len(_NAMES) else str(number)
        if kind not in TYPES:
            raise InputError(
                f"{self._source}: the tensor {quoted(name)} is of type {kind}, which evoquant has nothing like; it has "
                f"{', '.join(TYPES)}."
            )
        known = TYPES[kind]
        if shape and shape[-1] % known.block:
            raise self._damaged(
                f"the tensor {quoted(name, 60)} of type {kind} has rows of {shape[-1]}, no whole blocks"
            )
        return name, Tensor(kind, shape), offset + math.prod(shape) // known.block * known.size
