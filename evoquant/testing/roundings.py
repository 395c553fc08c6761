"""Conformance of rounding methods: what measuring, stores and exports rely on.

check_rounding(toward_zero)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.quantization.integers import clipped_scales, slice_ranges, slice_scales
from evoquant.quantization.precision import Precision
from evoquant.rng import generator_for
from evoquant.testing.clauses import no_global_randomness, require, run_checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from evoquant.quantization.protocol import Rounding

PRECISIONS = (
    *("INT2-tensor", "INT3-channel", "INT4-channel", "INT4-channel-mse", "INT8-channel", "INT8-channel-a8"),
    *("INT2-channel-asym", "INT4-channel-asym", "INT8-tensor-asym"),
)
SLICES = 6
WILD = 8.0  # mean steps between a weight and what its code stands for, at 8 bits; neighbouring codes are 1 apart


def check_rounding(rounding: Rounding, *, seed: int = 0) -> None:
    """Put a rounding method through all that the protocol promises.

    Args:
        rounding: the function.
        seed: of the random weights.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    run_checks((check_name, check_arguments, check_codes, check_repeats, check_meaning), rounding, seed)


def check_name(rounding: Rounding, seed: int) -> None:
    """Every process can import it by its name: it is neither a lambda nor made within another function."""
    name = getattr(rounding, "__qualname__", type(rounding).__qualname__)
    within = "<" in name
    require(
        not within, f"{name}: cannot be named as module:function, by which workers import it; define it in a module"
    )


def check_arguments(rounding: Rounding, seed: int) -> None:
    """Weights, scales and zero points stay as they are: they are read-only."""
    for precision, rows, scales, zero_points in _tensors(seed):
        given = (rows, scales, zero_points)
        before = [array.copy() for array in given]
        for array in given:
            array.flags.writeable = False
        try:
            rounding(*given, precision)
        except ValueError as error:
            require("read-only" not in str(error), f"{precision.name}: writes into its arguments")
            raise
        same = all(np.array_equal(array, kept) for array, kept in zip(given, before, strict=True))
        require(same, f"{precision.name}: changes its arguments")


def check_codes(rounding: Rounding, seed: int) -> None:
    """Codes are integers of the rows' shape within the precision's range."""
    for precision, rows, scales, zero_points in _tensors(seed):
        codes = rounding(rows, scales, zero_points, precision)
        require(isinstance(codes, np.ndarray), f"{precision.name}: codes are a {type(codes).__name__}, not an array")
        whole = np.issubdtype(codes.dtype, np.integer)
        require(whole, f"{precision.name}: codes are {codes.dtype}, not of an integer type")
        shape = f"{precision.name}: codes of shape {codes.shape}, the rows have {rows.shape}"
        require(codes.shape == rows.shape, shape)
        low = 0 if precision.asymmetric else -precision.largest_code
        least, most = int(codes.min()), int(codes.max())
        held = low <= least and most <= precision.largest_code
        require(
            held, f"{precision.name}: codes from {least} to {most} leave its range {low} to {precision.largest_code}"
        )


def check_repeats(rounding: Rounding, seed: int) -> None:
    """The same tensor has the same codes, at any time and in every process."""
    first = []
    with no_global_randomness("the rounding"):
        for precision, rows, scales, zero_points in _tensors(seed):
            first.append(rounding(rows, scales, zero_points, precision).copy())
    for (precision, rows, scales, zero_points), codes in zip(_tensors(seed), first, strict=True):
        again = rounding(rows, scales, zero_points, precision)
        require(np.array_equal(again, codes), f"{precision.name}: the same tensor has other codes the second time")


def check_meaning(rounding: Rounding, seed: int) -> None:
    """A code stands for (code − zero point) · scale: at 8 bits that is near its weight."""
    for precision, rows, scales, zero_points in _tensors(seed):
        if precision.code_bits == 8:
            codes = rounding(rows, scales, zero_points, precision)
            steps = codes.astype(np.float64) - zero_points[:, None] - rows / scales[:, None].astype(np.float64)
            apart = float(np.abs(steps).mean())
            clause = f"{precision.name}: (code − zero point) · scale is {apart:.3g} steps from the weight on average"
            require(apart <= WILD, clause)


def _tensors(seed: int) -> Iterator[tuple[Precision, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
    """Weights with what is rare: zeros, constants, a slice of one sign, halves of a step, tiny and large numbers."""
    for name in PRECISIONS:
        precision = Precision.parse(name)
        rng = generator_for(seed, 0, "conformance")
        rows = rng.normal(0.0, 0.1, (SLICES, 40)).astype(np.float32)
        rows[1] = 0.0
        rows[2] = 0.25
        rows[3] = np.abs(rows[3])
        rows[4] = np.round(rows[4] * 40) / 8
        rows[5] *= np.float32(1e-6)
        if precision.granularity == "tensor":
            rows = rows.reshape(1, -1)
        for part in (rows, rows[:, :1]):
            low, high = slice_ranges(part, precision)
            if precision.clipped:
                scales, zero_points = clipped_scales(part, low, high, precision)
            else:
                scales, zero_points = slice_scales(low, high, precision)
            zeros = np.zeros(len(part), dtype=np.float32) if zero_points is None else zero_points
            yield precision, part.copy(), scales.astype(np.float32), zeros.astype(np.float32)
