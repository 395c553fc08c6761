"""Hypervolume of a front of (effective bits, retention): how much of the plane it dominates.

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
