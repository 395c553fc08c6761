"""Scales, zero points and codes of `(slices, weights per slice)` float32 rows: one slice per row.

Symmetric, narrow (range [−absmax, absmax]):

    scale = absmax / (2^(b−1) − 1)            code = clip(round(w / scale), ±(2^(b−1) − 1))

Asymmetric (range [low, high], which always includes 0; Jacob et al. 2018, arXiv:1712.05877, equations 1 and 12):

    scale = (high − low) / (2^b − 1)          zero point z = clip(round(−low / scale), 0, 2^b − 1)
                                              code = clip(round(w / scale) + z, 0, 2^b − 1)

A scale is rounded to FP16 before anything is divided by it; round goes half to even. A slice without range has scale 1;
a positive scale that would round to 0 becomes 2^−24, the smallest FP16 subnormal. FP8 and NF4 take their scales like
symmetric integers.

Clipped ranges (the mean squared error criterion of Nagel et al. 2021, arXiv:2106.08295, section 3.1, searched on a
grid): both ends are shrunk by each factor of `SHRINK`, and the range with the least Σ(quantized − w)² is taken, of
equal ones the largest. All of it is float32, and the sum is `folded_sum`'s, whose order is part of the definition:
otherwise the last bit of a sum, and with it the winner, would depend on the library and the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from evoquant.quantization.precision import Precision

SMALLEST_SCALE = 2.0**-24
SHRINK = tuple(k / 32 for k in range(32, 5, -1))  # down to 0.19: where ternary codes of a million normal weights end
BLOCK_VALUES = 1 << 16  # weights that are searched together, to stay in the processor's cache


def slice_ranges(rows: NDArray[np.float32], precision: Precision) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`(slices,)` low ≤ 0 and high ≥ 0 of each row; not finite where a row holds what is not."""
    low, high = rows.min(axis=1), rows.max(axis=1)
    if precision.asymmetric:
        zero = np.float32(0)
        return np.minimum(low, zero), np.maximum(high, zero)
    absmax = np.maximum(high, -low)
    return -absmax, absmax


def slice_scales(
    low: NDArray[np.float32], high: NDArray[np.float32], precision: Precision
) -> tuple[NDArray[np.float16], NDArray[np.float32] | None]:
    """`(slices,)` scales and, if asymmetric, zero points of the ranges."""
    size = high - low if precision.asymmetric else high
    scales = (size / np.float32(precision.largest_code)).astype(np.float16)
    scales[scales == 0] = SMALLEST_SCALE
    scales[size == 0] = 1
    if not precision.asymmetric:
        return scales, None
    return scales, np.clip(np.rint(-low / scales.astype(np.float32)), 0, precision.largest_code)


def integer_codes(
    rows: NDArray[np.float32],
    scales: NDArray[np.float16],
    zero_points: NDArray[np.float32] | None,
    precision: Precision,
) -> NDArray[np.float32]:
    """Codes of the rows, as float32."""
    codes = rows / scales.astype(np.float32)[:, None]
    np.rint(codes, out=codes)
    if zero_points is not None:
        codes += zero_points[:, None]
    lowest = -precision.largest_code if zero_points is None else 0
    return np.clip(codes, lowest, precision.largest_code, out=codes)


def integer_values(
    codes: NDArray[np.float32], scales: NDArray[np.float16], zero_points: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """(code − zero point) · scale in float32."""
    steps = codes if zero_points is None else codes - zero_points[:, None]
    return steps * scales.astype(np.float32)[:, None]


def clipped_scales(
    rows: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32], precision: Precision
) -> tuple[NDArray[np.float16], NDArray[np.float32] | None]:
    """`(slices,)` scales and, if asymmetric, zero points of the shrunk range that costs the least squared error."""
    scales, zero_points = slice_scales(low, high, precision)
    for block in row_blocks(*rows.shape):
        least: NDArray[np.float32] | None = None
        for factor in SHRINK:
            ends = (np.float32(factor) * low[block], np.float32(factor) * high[block])
            tried, zeros = slice_scales(*ends, precision)
            error = integer_values(integer_codes(rows[block], tried, zeros, precision), tried, zeros)
            error -= rows[block]
            error *= error
            sums = folded_sum(error)
            better = sums < least if least is not None else np.ones(len(sums), dtype=bool)
            least = np.where(better, sums, least) if least is not None else sums
            scales[block][better] = tried[better]
            if zero_points is not None and zeros is not None:
                zero_points[block][better] = zeros[better]
    return scales, zero_points


def folded_sum(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(slices,)` sums of float32 rows in one fixed order; the rows are overwritten.

    The second half of a row is added to its first, item by item, until one is left; the first half is the longer one
    where the number is odd.
    """
    count = rows.shape[1]
    while count > 1:
        half = (count + 1) // 2
        rows[:, : count - half] += rows[:, half:count]
        count = half
    return rows[:, 0].copy()


def row_blocks(rows: int, per_row: int, values: int = BLOCK_VALUES) -> Iterator[slice]:
    """Consecutive rows, about `values` values together and at least one row; none depends on another."""
    count = max(1, values // per_row)
    return (slice(start, start + count) for start in range(0, rows, count))
