"""Bytes of a model in a file: codes packed as a deployment target packs them, scales, zero points, and all the rest.

What a target writes was read from its files: `tests` compare these figures with files that were really exported. Names
of tensors, shapes, graphs and headers are not counted, neither here nor by what reads a file's size back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError, quoted, suggestion
from evoquant.profiles.target_rules import unpacked
from evoquant.profiles.targets import TARGETS
from evoquant.quantization.precision import SCALE_BITS, Precision
from evoquant.scoring.cost import Cost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu

_SCALE_BYTES = SCALE_BITS // 8
_WORD_BYTES = 4
_SPLIT_BLOCKS = {3: 8, 6: 4}  # OpenVINO's u3 and u6: so many codes in three bytes
_UNSIGNED_ONLY = (2, 3, 6)  # bits of which OpenVINO has no signed type
FP32 = Precision.parse("FP32")


@dataclass(frozen=True)
class Packing:
    """How files hold a tensor.

    Attributes:
        target: the deployment target whose rules say what it takes; None where everything is.
        codes: bytes of a layer's codes at a precision.
        zero_points: bytes of its zero points.
    """

    target: str | None
    codes: Callable[[LayerProfile, Precision], int]
    zero_points: Callable[[LayerProfile, Precision], int]

    def bytes(self, layer: LayerProfile, precision: Precision) -> int:
        """Of a layer at a precision; at one that the target does not take, of the layer in FP32."""
        if self.target is not None and TARGETS[self.target].fault(layer, precision) is not None:
            precision = FP32
        scales = precision.slices(layer.shape, layer.channel_axis) * _SCALE_BYTES
        return self.codes(layer, precision) + scales + self.zero_points(layer, precision)


def _of_bits(bits: int) -> int:
    return -(-bits // 8)


def _tight(layer: LayerProfile, precision: Precision) -> int:
    """One code beside the other through the whole tensor."""
    return _of_bits(layer.parameters * precision.code_bits)


def _tight_zero_points(layer: LayerProfile, precision: Precision) -> int:
    if not precision.asymmetric:
        return 0
    return _of_bits(precision.slices(layer.shape, layer.channel_axis) * precision.code_bits)


def _zero_points_by_row(layer: LayerProfile, precision: Precision) -> int:
    """MatMulNBits begins each output's with a byte of its own; what it does not compute is as in onnx."""
    if not precision.asymmetric or unpacked(layer, precision):
        return _tight_zero_points(layer, precision)
    rows = 1 if layer.channel_axis is None else layer.shape[layer.channel_axis]
    slices = precision.slices(layer.shape, layer.channel_axis)
    return rows * _of_bits(slices // rows * precision.code_bits)


def _split(count: int, bits: int) -> int:
    """Bytes of so many numbers in OpenVINO's types."""
    block = _SPLIT_BLOCKS.get(bits)
    return _of_bits(count * bits) if block is None else -(-count // block) * 3


def _openvino_codes(layer: LayerProfile, precision: Precision) -> int:
    return _split(layer.parameters, precision.code_bits)


def _openvino_zero_points(layer: LayerProfile, precision: Precision) -> int:
    """Symmetric codes of a width without a signed type have one zero point for all."""
    if not precision.is_integer or not precision.has_scales:
        return 0
    if precision.asymmetric:
        return _split(precision.slices(layer.shape, layer.channel_axis), precision.code_bits)
    return _split(1, precision.code_bits) if precision.code_bits in _UNSIGNED_ONLY else 0


def _words(layer: LayerProfile, precision: Precision) -> int:
    """Compressed-tensors: 32-bit words, each row's from a word of its own; embeddings and FP8 a byte a code."""
    if not precision.is_integer or layer.type == "Embedding":
        return _tight(layer, precision)
    rows = layer.shape[0]
    return rows * -(-layer.parameters // rows * precision.code_bits // (8 * _WORD_BYTES)) * _WORD_BYTES


PACKINGS: dict[str | None, Packing] = {
    None: Packing(None, _tight, _tight_zero_points),
    "onnx": Packing("onnx", _tight, _tight_zero_points),
    "onnx-matmulnbits": Packing("onnx-matmulnbits", _tight, _zero_points_by_row),
    "openvino": Packing("openvino", _openvino_codes, _openvino_zero_points),
    "compressed-tensors": Packing("compressed-tensors", _words, _tight_zero_points),
    "gguf": Packing("gguf", _tight, _tight_zero_points),
}
"""Deployment target → how its files hold tensors; None: codes packed tightly, which no target does better."""


def packing_named(target: str | None) -> Packing:
    """The packing of a target.

    Raises:
        InputError: there is no such target, or how it packs is not known.
    """
    if target in PACKINGS:
        return PACKINGS[target]
    known = [name for name in PACKINGS if name is not None]
    if target in TARGETS:
        raise InputError(
            f"how {target} packs is not known to the byte; name {', '.join(known)}, or leave the target out for codes "
            f"packed tightly."
        )
    raise InputError(f"unknown deployment target {quoted(target)}.{suggestion(str(target), known)}")


@dataclass(frozen=True)
class PackedBytes:
    """Makes tables of bytes.

    Attributes:
        target: whose packing; None for codes packed tightly.
    """

    target: str | None = None

    def __call__(self, profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
        """`(units, P)` bytes of codes, scales and zero points; `constant` is what stays as it is.

        Raises:
            InputError: the target's packing is not known, or a width of the menu is nominal, which no file has.
        """
        packing = packing_named(self.target)
        nominal = [p.name for p in menu if p.granularity == "nominal"]
        if nominal and self.target is not None:
            raise InputError(
                f"{', '.join(nominal)} on the menu are nominal, without scales, which {self.target} has no form for; "
                f"set menu to precisions with scales, such as [{nominal[0]}-channel, FP16, FP32]."
            )
        layers = profile.layers
        table = [[sum(packing.bytes(layers[i], p) for i in unit) for p in menu] for unit in members]
        constant = _of_bits(profile.constant_bits)
        reference = sum(math.prod(layer.shape) * 4 for layer in layers) + constant
        return Cost("bytes", np.array(table, dtype=np.int64), constant, reference)
