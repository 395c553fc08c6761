"""The reference quantizer: symmetric, narrow, one FP16 scale per slice, all arithmetic in float32.

A weight tensor falls into slices (the tensor, a channel, a group of consecutive inputs of a channel in C order after
the channel axis is moved first). Each slice has

    scale = absmax / (2^(b−1) − 1), rounded to FP16 before any code is computed
    code  = round_half_even(w / scale), clipped to ±(2^(b−1) − 1)

An all-zero slice has scale 1; a positive scale that would round to 0 becomes 2^−24, the smallest FP16 subnormal.
Every stack we export to must reproduce these numbers bit for bit, which is why the division is a division and never
a product with a reciprocal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import PrecisionError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from evoquant.quantization.precision import Precision

QUANTIZER_VERSION = "1"  # stands in every store key and recipe: any change of a single code or scale raises it

LARGEST_FP16 = 65504.0
SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized tensor.

    Attributes:
        codes: int8, the shape of the weight, each in ±(2^(b−1) − 1).
        scales: `(slices,)` float16, positive, slices in channel order, then group order.
        precision: the integer precision of the codes.
        channel_axis: axis of the output channels, None where the tensor is one channel.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float16]
    precision: Precision
    channel_axis: int | None


def quantize(weight: ArrayLike, precision: Precision, channel_axis: int | None) -> Quantized:
    """Codes and scales of `weight`, which is taken as float32.

    Raises:
        PrecisionError: the precision has no scales (nominal or float), its groups do not divide the channels, or the
            weight is empty, not finite or needs a scale above 65504.
    """
    if not precision.is_integer:
        raise PrecisionError(f"{precision.name} has no codes; use fake_quantize for float precisions.")
    values = np.asarray(weight, dtype=np.float32)
    fault = _fault(values, precision, channel_axis)
    if fault:
        raise PrecisionError(fault)
    rows = _slices(values, precision, channel_axis)
    scales = _scales(rows, precision)
    codes = np.rint(rows / scales.astype(np.float32)[:, None])
    np.clip(codes, -precision.largest_code, precision.largest_code, out=codes)
    return Quantized(_unsliced(codes, values.shape, channel_axis).astype(np.int8), scales, precision, channel_axis)


def dequantize(quantized: Quantized) -> NDArray[np.float32]:
    """code · scale in float32, in the shape of the weight."""
    codes = quantized.codes.astype(np.float32)
    rows = _slices(codes, quantized.precision, quantized.channel_axis)
    return _unsliced(rows * quantized.scales.astype(np.float32)[:, None], codes.shape, quantized.channel_axis)


def fake_quantize(weight: ArrayLike, precision: Precision, channel_axis: int | None) -> NDArray[np.float32]:
    """The float32 weights that the quantized tensor stands for, in a new array of the weight's shape.

    FP32 leaves float32 weights as they are; FP16 rounds each to float16 and back.

    Raises:
        PrecisionError: as `quantize`; for FP16, a weight is not finite or above 65504.
    """
    if precision.is_integer:
        return dequantize(quantize(weight, precision, channel_axis))
    values = np.array(weight, dtype=np.float32)
    if precision.format == "FP32":
        return values
    fault = _fault(values, precision, channel_axis)
    if fault:
        raise PrecisionError(fault)
    return values.astype(np.float16).astype(np.float32)


def representable(weight: ArrayLike, precision: Precision, channel_axis: int | None) -> bool:
    """Whether `weight` can be held at `precision`: finite, groups that divide the channels, nothing above 65504.

    FP32 holds anything.

    Raises:
        PrecisionError: the precision is nominal, so that no real weight has a place in it.
    """
    _require_scales(precision)
    return precision.format == "FP32" or not _fault(np.asarray(weight, dtype=np.float32), precision, channel_axis)


def _require_scales(precision: Precision) -> None:
    if precision.granularity == "nominal":
        raise PrecisionError(
            f"{precision.name} is nominal: it counts bits but has no scales, so it cannot hold the weights of a real "
            f"network; use {precision.name}-channel (or -tensor, or -g128)."
        )


def _fault(values: NDArray[np.float32], precision: Precision, channel_axis: int | None) -> str | None:
    """Why `values` cannot be held at `precision`, or None."""
    _require_scales(precision)
    if values.size == 0:
        return f"{precision.name} cannot hold an empty tensor of shape {values.shape}."
    if not np.isfinite(values).all():
        return f"{precision.name} cannot hold weights that are not finite; only FP32 can."
    if not precision.fits(values.shape, channel_axis):
        return (
            f"{precision.name}: the weights per channel of shape {values.shape} do not divide into groups of "
            f"{precision.group_size}; use {precision.format}-channel."
        )
    if precision.is_integer:
        largest = float(_absmax(_slices(values, precision, channel_axis)).max()) / precision.largest_code
        what = "scale"
    else:
        largest, what = float(np.abs(values).max()), "weight"
    if largest > LARGEST_FP16:
        return f"{precision.name}: a {what} of {largest:.6g} is above 65504, the largest FP16; use FP32."
    return None


def _absmax(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(rows.max(axis=1), -rows.min(axis=1)), dtype=np.float32)


def _scales(rows: NDArray[np.float32], precision: Precision) -> NDArray[np.float16]:
    """`(slices,)` float16 scales of `(slices, weights)` rows."""
    absmax = _absmax(rows)
    scales = (absmax / np.float32(precision.largest_code)).astype(np.float16)
    scales[scales == 0] = SMALLEST_SCALE
    scales[absmax == 0] = 1
    return scales


def _slices(values: NDArray[np.float32], precision: Precision, channel_axis: int | None) -> NDArray[np.float32]:
    """`(slices, weights per slice)`: one row for each scale."""
    if channel_axis is not None:
        values = np.moveaxis(values, channel_axis, 0)
    return np.ascontiguousarray(values).reshape(_rows(values, precision, channel_axis), -1)


def _rows(moved: NDArray[np.float32], precision: Precision, channel_axis: int | None) -> int:
    return precision.slices(moved.shape, None if channel_axis is None else 0)


def _unsliced(rows: NDArray[np.float32], shape: tuple[int, ...], channel_axis: int | None) -> NDArray[np.float32]:
    """Undo `_slices`: a C-ordered array of `shape`."""
    if channel_axis is None:
        return rows.reshape(shape)
    moved = (shape[channel_axis], *shape[:channel_axis], *shape[channel_axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, channel_axis))
