"""Hypervolume of a front of retention and costs: how much of the plane, or of the space, it dominates.

Zitzler & Thiele, Multiobjective Evolutionary Algorithms, IEEE TEC 3(4), 1999; computed by `moocore`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def hypervolume(
    effective_bits: NDArray[np.float64],
    retention: NDArray[np.float64],
    *,
    bits: tuple[float, float] = (2.0, 32.0),
    floor: float = 0.90,
    ceiling: float = 1.0,
) -> float:
    """Area, in bits × retention, that the points dominate within a box; fewer bits and more retention are better.

    The reference point is (most bits, floor). A point outside the box counts with what it dominates inside.

    Args:
        effective_bits: `(n,)` bits per weight.
        retention: `(n,)`; NaN counts for nothing.
        bits: least and most effective bits of the box.
        floor: least retention of the box.
        ceiling: most retention of the box.

    Returns:
        From 0 to (most − least bits) · (ceiling − floor).
    """
    import moocore

    counts = (effective_bits < bits[1]) & (retention > floor)
    if not counts.any():
        return 0.0
    points = np.column_stack(
        [np.maximum(effective_bits[counts], bits[0]), -np.minimum(retention[counts], ceiling)]
    )  # moocore minimises
    return float(moocore.hypervolume(points, ref=[bits[1], -floor]))


def hypervolume_share(
    costs: NDArray[np.float64], retention: NDArray[np.float64], *, floor: float = 0.90, ceiling: float = 1.0
) -> float:
    """Share of a box that points of retention and any number of costs dominate, exactly.

    The box goes from costs of nothing and the ceiling to the FP32 costs and the floor, which is the reference point.

    Args:
        costs: `(n, k)` shares of the FP32 costs; less is better.
        retention: `(n,)`; NaN counts for nothing.
        floor, ceiling: least and most retention of the box.

    Returns:
        From 0 to 1.
    """
    import moocore

    counts = (costs < 1.0).all(axis=1) & (retention > floor)
    if not counts.any():
        return 0.0
    lost = (ceiling - np.minimum(retention[counts], ceiling)) / (ceiling - floor)
    points = np.column_stack([np.maximum(costs[counts], 0.0), lost])
    return float(moocore.hypervolume(points, ref=[1.0] * points.shape[1]))
