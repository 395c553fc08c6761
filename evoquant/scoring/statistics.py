"""Intervals and standard errors of measured retention, from paired per-sample outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Retention:
    """Retention measured on samples.

    Attributes:
        value: quantized metric / FP32 metric, as it is (may exceed 1).
        standard_error: by the delta method for a ratio of paired means.
        samples: how many.
    """

    value: float
    standard_error: float
    samples: int


def paired_retention(quantized: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Retention:
    """Ratio of mean outcomes on the same `(samples,)`, with its standard error.

    Delta method: var(q̄/r̄) ≈ var(q − R·r) / (n · r̄²) with R = q̄/r̄ (Cochran, Sampling Techniques, 3rd ed., eq. 6.13).
    The value is NaN where the reference never scores.
    """
    n = len(reference)
    hits = int(reference.sum(dtype=np.int64))
    if hits == 0:
        return Retention(float("nan"), float("nan"), n)
    ratio = int(quantized.sum(dtype=np.int64)) / hits
    residual = quantized.astype(np.float64) - ratio * reference.astype(np.float64)
    variance = float(np.square(residual).sum()) / max(n - 1, 1) / n
    return Retention(ratio, variance**0.5 / (hits / n), n)


def bootstrap_interval(
    quantized: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Percentile interval of retention by resampling pairs (Efron 1979), for outcomes 0 or 1.

    Pairs fall into four cells, so a resample is one multinomial draw. NaN where the reference never scores.
    """
    cells = np.bincount(2 * quantized.astype(np.intp) + reference.astype(np.intp), minlength=4)
    draws = rng.multinomial(len(reference), cells / cells.sum(), size=resamples)
    reference_hits = draws[:, 1] + draws[:, 3]
    quantized_hits = draws[:, 2] + draws[:, 3]
    ratios = quantized_hits[reference_hits > 0] / reference_hits[reference_hits > 0]
    if not len(ratios):
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return float(low), float(high)
