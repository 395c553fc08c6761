"""How far quantized weights are from the original ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def squared_error(weight: ArrayLike, quantized: ArrayLike) -> float:
    """Σ(quantized − weight)², not negative, summed in float64; both of one shape."""
    difference = np.asarray(quantized, dtype=np.float64) - np.asarray(weight, dtype=np.float64)
    return float(np.square(difference).sum())


def sqnr_db(weight: ArrayLike, quantized: ArrayLike) -> float:
    """Signal to quantization noise ratio 10 · log10(Σw² / Σ(quantized − w)²) in dB.

    Infinite where there is no error; minus infinite where weights of 0 came back as something else.
    """
    noise = squared_error(weight, quantized)
    signal = float(np.square(np.asarray(weight, dtype=np.float64)).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
