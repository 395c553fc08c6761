"""The reference quantizer, all arithmetic in float32.

A weight tensor falls into slices (the tensor, a channel, a group of consecutive inputs of a channel in C order after
the channel axis is moved first), each with an FP16 scale. `integers.py` has the formulas of scales, zero points,
integer codes and clipped ranges, `formats.py` those of NF4, FP8 and BF16; for NF4 and FP8

    scale = absmax (NF4), absmax / 448 (FP8)      code = that of the number nearest to w / scale

Every stack we export to, and every faster path, must reproduce these numbers bit for bit, which is why the division
is a division and never a product with a reciprocal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evoquant.errors import PrecisionError
from evoquant.quantization import formats
from evoquant.quantization.formats import LARGEST_BF16, LARGEST_FP16
from evoquant.quantization.integers import (
    clipped_scales,
    integer_codes,
    integer_values,
    slice_ranges,
    slice_scales,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from evoquant.quantization.precision import Precision
    from evoquant.quantization.rounding import Rounder

Scalar = TypeVar("Scalar", bound=np.generic)

STRIP = 64  # columns that are copied together
QUANTIZER_VERSION = "1"  # stands in every store key and recipe: any change of a single code or scale raises it


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized tensor.

    Attributes:
        codes: the shape of the weight. Symmetric integers: int8 in ±(2^(b−1) − 1); else uint8: asymmetric integers in
            0 … 2^b − 1, NF4 the indices of the levels, FP8 the eight bits of E4M3.
        scales: `(slices,)` float16, positive, slices in channel order, then group order.
        precision: of the codes; one that has scales.
        channel_axis: axis of the output channels, None where the tensor is one channel.
        zero_points: `(slices,)` uint8 for asymmetric integers, else None.
    """

    codes: NDArray[np.int8 | np.uint8]
    scales: NDArray[np.float16]
    precision: Precision
    channel_axis: int | None
    zero_points: NDArray[np.uint8] | None = None


def quantize(
    weight: ArrayLike, precision: Precision, channel_axis: int | None, rounder: Rounder | None = None
) -> Quantized:
    """Codes, scales and zero points of `weight`, which is taken as float32.

    Raises:
        InputError: a rounding method of somebody's own, which makes the codes of integers, gives none.
        PrecisionError: the precision has no scales (nominal or float), its groups do not divide the channels, or the
            weight is empty, not finite or needs a scale above 65504.
    """
    if precision.granularity == "none":
        raise PrecisionError(f"{precision.name} has no codes; use fake_quantize for float precisions.")
    values = np.asarray(weight, dtype=np.float32)
    require_slices(precision, values.shape, channel_axis)
    rows = _slices(values, precision, channel_axis)
    low, high = slice_ranges(rows, precision)
    require_range(precision, float(low.min()), float(high.max()), _widest(low, high, precision))
    if precision.clipped:
        scales, zero_points = clipped_scales(rows, low, high, precision)
    else:
        scales, zero_points = slice_scales(low, high, precision)
    codes: NDArray[np.int8 | np.uint8]
    if precision.is_integer:
        rounds = integer_codes if rounder is None else rounder.codes
        numbers = rounds(rows, scales, zero_points, precision)
        codes = numbers.astype(np.uint8 if precision.asymmetric else np.int8)
    else:
        encode = formats.nf4_codes if precision.format == "NF4" else formats.e4m3_codes
        codes = encode(rows / scales.astype(np.float32)[:, None])
    stored = None if zero_points is None else zero_points.astype(np.uint8)
    return Quantized(_unsliced(codes, values.shape, channel_axis), scales, precision, channel_axis, stored)


def dequantize(quantized: Quantized) -> NDArray[np.float32]:
    """The float32 weights in the shape of the tensor: what each code stands for, times the scale of its slice."""
    precision, channel_axis = quantized.precision, quantized.channel_axis
    if precision.format == "NF4":
        numbers = formats.NF4_LEVELS[quantized.codes]
    elif precision.format == "FP8":
        numbers = formats.e4m3_decoded(quantized.codes.astype(np.uint8))
    else:
        numbers = quantized.codes.astype(np.float32)
    zero_points = None if quantized.zero_points is None else quantized.zero_points.astype(np.float32)
    rows = integer_values(_slices(numbers, precision, channel_axis), quantized.scales, zero_points)
    return _unsliced(rows, numbers.shape, channel_axis)


def fake_quantize(
    weight: ArrayLike, precision: Precision, channel_axis: int | None, rounder: Rounder | None = None
) -> NDArray[np.float32]:
    """The float32 weights that the quantized tensor stands for, in a new array of the weight's shape.

    FP32 leaves float32 weights as they are; FP16 and BF16 round each to that format and back.

    Raises:
        PrecisionError: as `quantize`; for FP16 and BF16, a weight is not finite or above the format's largest.
    """
    if precision.granularity != "none":
        return dequantize(quantize(weight, precision, channel_axis, rounder))
    values = np.array(weight, dtype=np.float32)
    if precision.format == "FP32":
        return values
    require_slices(precision, values.shape, channel_axis)
    low, high = float(values.min()), float(values.max())
    require_range(precision, low, high, max(high, -low))
    return values.astype(np.float16).astype(np.float32) if precision.format == "FP16" else formats.round_bf16(values)


def representable(weight: ArrayLike, precision: Precision, channel_axis: int | None) -> bool:
    """Whether `weight` can be held at `precision`: finite, groups that divide the channels, no scale above 65504.

    FP32 holds anything; FP16 and BF16 what is within their range.

    Raises:
        PrecisionError: the precision is nominal, so that no real weight has a place in it.
    """
    require_scales(precision)
    if precision.format == "FP32":
        return True
    values = np.asarray(weight, dtype=np.float32)
    try:
        require_slices(precision, values.shape, channel_axis)
        rows = _slices(values, precision, channel_axis) if precision.has_scales else values.reshape(1, -1)
        low, high = slice_ranges(rows, precision)
        require_range(precision, float(low.min()), float(high.max()), _widest(low, high, precision))
    except PrecisionError:
        return False
    return True


def require_scales(precision: Precision) -> None:
    """Refuse a nominal precision.

    Raises:
        PrecisionError: it is nominal.
    """
    if precision.granularity == "nominal":
        raise PrecisionError(
            f"{precision.name} is nominal: it counts bits but has no scales, so it cannot hold the weights of a real "
            f"network; use {precision.name}-channel (or -tensor, or -g128)."
        )


def require_slices(precision: Precision, shape: tuple[int, ...], channel_axis: int | None) -> None:
    """Refuse tensors that do not fall into slices of `precision`.

    Raises:
        PrecisionError: the precision is nominal, the tensor empty, or its channels do not divide into the groups.
    """
    require_scales(precision)
    if 0 in shape:
        raise PrecisionError(f"{precision.name} cannot hold an empty tensor of shape {shape}.")
    if not precision.fits(shape, channel_axis):
        raise PrecisionError(
            f"{precision.name}: the weights per channel of shape {shape} do not divide into groups of "
            f"{precision.group_size}; use {precision.name.replace(f'-g{precision.group_size}', '-channel')}."
        )


def require_range(precision: Precision, low: float, high: float, widest: float) -> None:
    """Refuse weights that `precision` has no scale or number for.

    Args:
        precision: one that is not nominal.
        low: the least weight, NaN if any is.
        high: the largest weight, NaN if any is.
        widest: size of the largest range of a slice: absolute maximum, or maximum − minimum if asymmetric.

    Raises:
        PrecisionError: not finite, or too large.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise PrecisionError(f"{precision.name} cannot hold weights that are not finite; only FP32 can.")
    what, size = ("scale", widest / precision.largest_code) if precision.has_scales else ("weight", widest)
    limit, whose = (LARGEST_BF16, "BF16") if precision.format == "BF16" else (LARGEST_FP16, "FP16")
    if size > limit:
        raise PrecisionError(
            f"{precision.name}: a {what} of {size:.6g} is above {limit:.6g}, the largest {whose}; use FP32."
        )


def _widest(low: NDArray[np.float32], high: NDArray[np.float32], precision: Precision) -> float:
    size = high.astype(np.float64) - low.astype(np.float64) if precision.asymmetric else high
    return float(size.max())


def _slices(values: NDArray[Scalar], precision: Precision, channel_axis: int | None) -> NDArray[Scalar]:
    """`(slices, weights per slice)`: one row for each scale."""
    if channel_axis is not None:
        values = np.moveaxis(values, channel_axis, 0)
    count = precision.slices(values.shape, None if channel_axis is None else 0)
    return _ordered(values).reshape(count, -1)


def _unsliced(rows: NDArray[Scalar], shape: tuple[int, ...], channel_axis: int | None) -> NDArray[Scalar]:
    """Undo `_slices`: a C-ordered array of `shape`."""
    if channel_axis is None:
        return rows.reshape(shape)
    moved = (shape[channel_axis], *shape[:channel_axis], *shape[channel_axis + 1 :])
    return _ordered(np.moveaxis(rows.reshape(moved), 0, channel_axis))


def _ordered(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array in C order; a matrix that is turned in strips, which takes a quarter of the time of one copy."""
    if values.ndim != 2 or values.flags.c_contiguous:
        return np.ascontiguousarray(values)
    ordered = np.empty(values.shape, values.dtype)
    for start in range(0, values.shape[1], STRIP):
        ordered[:, start : start + STRIP] = values[:, start : start + STRIP]
    return ordered
