"""The quantizer on PyTorch tensors: the numbers of `evoquant.quantization`, to the last bit, on the tensor's device.

Only operations that IEEE 754 rounds in one way are used (element by element, minima and maxima; divisors are tensors,
since a division by a number may become a product with its reciprocal), so neither threads nor device change a bit.
Weights are worked through piece by piece: the result and all that is needed on the way take 1 to 1.5 times the weight,
at most 3 times where the channel axis is not the first and has to be moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.quantization.activations import (
    LARGEST_ACTIVATION,
    SMALLEST_ACTIVATION_SCALE,
    ActivationSlice,
    activation_axes,
)
from evoquant.quantization.formats import NF4_LEVELS, NF4_MIDPOINTS
from evoquant.quantization.integers import SHRINK, SMALLEST_SCALE, row_blocks
from evoquant.quantization.numerics import fake_quantize, require_range, require_slices
from evoquant.quantization.precision import LARGEST_E4M3

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from evoquant.quantization.precision import Precision
    from evoquant.quantization.rounding import Rounder

PIECE_VALUES = 1 << 20  # weights worked on together: less costs calls, more costs memory


def fake_quantize_tensor(
    weight: torch.Tensor, precision: Precision, channel_axis: int | None, rounder: Rounder | None = None
) -> torch.Tensor:
    """What `evoquant.quantization.numerics.fake_quantize` gives, as a new contiguous float32 tensor without gradient.

    With a rounding method of somebody's own it is that function that is called.

    Raises:
        PrecisionError: the precision is nominal, its groups do not divide the channels, or the weight is empty, not
            finite or too large for it.
    """
    import torch

    with torch.no_grad():
        values = weight.detach().to(torch.float32)
        if precision.format == "FP32":
            return values.clone(memory_format=torch.contiguous_format)
        require_slices(precision, tuple(values.shape), channel_axis)
        if rounder is not None and precision.is_integer:
            rounded = fake_quantize(values.cpu().numpy(), precision, channel_axis, rounder)
            return torch.from_numpy(rounded).to(values.device)
        if not precision.has_scales:
            _ranges(values.reshape(1, -1), precision)
            narrow = values.to(torch.float16 if precision.format == "FP16" else torch.bfloat16)
            return narrow.to(torch.float32).contiguous()
        moved = values if channel_axis is None else values.movedim(channel_axis, 0)
        rows = moved.reshape(precision.slices(tuple(values.shape), channel_axis), -1)
        low, high = _ranges(rows, precision)
        if precision.clipped:
            scales, zero_points = _clipped_scales(rows, low, high, precision)
        else:
            scales, zero_points = _scales(low, high, precision)
        result = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for piece in _pieces(rows.shape[0], rows.shape[1]):
            _write_values(result[piece], rows[piece], scales[piece[0]], zero_points[piece[0]], precision)
        if channel_axis is None:
            return result.reshape(values.shape)
        return result.reshape(moved.shape).movedim(0, channel_axis).contiguous()


def fake_quantize_activations_tensor(values: torch.Tensor, per: ActivationSlice) -> torch.Tensor:
    """What `evoquant.quantization.activations.fake_quantize_activations` gives, as a new float32 tensor."""
    import torch

    inputs = values.to(torch.float32)
    axes = activation_axes(inputs.ndim, per)
    if not inputs.numel():
        return inputs.clone()
    absmax = inputs.abs()
    if axes:
        absmax = absmax.amax(dim=axes, keepdim=True)
    scales = (absmax / torch.full_like(absmax, LARGEST_ACTIVATION)).clamp_min_(SMALLEST_ACTIVATION_SCALE)
    return (inputs / scales).round_().add_(0.0).mul_(scales)  # + 0: no −0


def _ranges(rows: torch.Tensor, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
    """`(slices, 1)` low ≤ 0 and high ≥ 0, found to be what `precision` can hold."""
    import torch

    low, high = torch.aminmax(rows, dim=1, keepdim=True)
    bounds = float(low.min()), float(high.max())
    if precision.asymmetric:
        zero = torch.zeros_like(low)
        low, high = torch.minimum(low, zero), torch.maximum(high, zero)
        widest = float((high.to(torch.float64) - low.to(torch.float64)).max())
    else:
        high = torch.maximum(high, -low)
        low, widest = -high, float(high.max())
    require_range(precision, *bounds, widest)
    return low, high


def _scales(low: torch.Tensor, high: torch.Tensor, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
    """`(slices, 1)` float32 scales, each an FP16 number, and zero points, all +0 where symmetric."""
    import torch

    size = high - low if precision.asymmetric else high
    largest = torch.full_like(size, precision.largest_code)
    scales = (size / largest).to(torch.float16).to(torch.float32)
    scales[scales == 0] = SMALLEST_SCALE
    scales[size == 0] = 1
    if not precision.asymmetric:
        return scales, torch.zeros_like(scales)
    return scales, (-low / scales).round_().clamp_(0, precision.largest_code).add_(0.0)


def _clipped_scales(
    rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor, precision: Precision
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points of the shrunk range with the least squared error; of equal ones the largest range."""
    import torch

    scales, zero_points = _scales(low, high, precision)
    for block in row_blocks(rows.shape[0], rows.shape[1], PIECE_VALUES):
        error = torch.empty_like(rows[block], memory_format=torch.contiguous_format)
        least = torch.full_like(low[block], torch.inf)
        for factor in SHRINK:
            tried, zeros = _scales(low[block] * factor, high[block] * factor, precision)
            _write_values(error, rows[block], tried, zeros, precision)
            error.sub_(rows[block])
            sums = _folded_sum(torch.mul(error, error, out=error))
            better = sums < least
            least = torch.where(better, sums, least)
            scales[block] = torch.where(better, tried, scales[block])
            zero_points[block] = torch.where(better, zeros, zero_points[block])
    return scales, zero_points


def _folded_sum(rows: torch.Tensor) -> torch.Tensor:
    """`(slices, 1)`: `evoquant.quantization.integers.folded_sum`; the rows are overwritten."""
    count = rows.shape[1]
    while count > 1:
        half = (count + 1) // 2
        rows[:, : count - half].add_(rows[:, half:count])
        count = half
    return rows[:, :1].clone()


def _write_values(
    out: torch.Tensor, rows: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor, precision: Precision
) -> None:
    """The values that the codes of `rows` stand for, into `out` of the same shape."""
    import torch

    torch.div(rows, scales, out=out)
    if precision.format == "NF4":
        index = torch.zeros(out.shape, dtype=torch.uint8, device=out.device)
        for bound in NF4_MIDPOINTS.tolist():  # 2.4 times as fast as torch.bucketize
            index.add_(out > bound)
        levels = torch.tensor(NF4_LEVELS).to(out.device)
        out.copy_(torch.index_select(levels, 0, index.to(torch.int32).flatten()).view_as(out))
    elif precision.format == "FP8":
        out.copy_(out.clamp_(-LARGEST_E4M3, LARGEST_E4M3).to(torch.float8_e4m3fn))
    else:
        lowest = 0 if precision.asymmetric else -precision.largest_code
        out.round_().add_(zero_points).clamp_(lowest, precision.largest_code)  # the sum turns −0 into +0
        if precision.asymmetric:
            out.sub_(zero_points)
    out.mul_(scales)


def _pieces(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of pieces of about `PIECE_VALUES` values."""
    for block in row_blocks(rows, columns, PIECE_VALUES):
        for start in range(0, columns, PIECE_VALUES):
            yield block, slice(start, start + PIECE_VALUES)
