"""What finitely many samples say: confidence limits of retention, and candidates resampled together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from evoquant.scoring.statistics import NOT_A_NUMBER, paired_retention

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.scoring.statistics import Metric

RESAMPLES = 4_000
_CHUNK = 2**22


@dataclass(frozen=True)
class Limits:
    """One-sided confidence limits of a retention.

    Attributes:
        low, high: each is passed by the true retention with at most the stated probability; NaN where it has none.
    """

    low: float
    high: float


def confidence_limits(
    quantized: NDArray[np.generic], reference: NDArray[np.generic], metric: Metric, error: float
) -> Limits:
    """Limits of the retention from the scores of the same `(samples,)`, each wrong with probability `error`.

    Scores of 0 and 1: a quarter of z² is added to each of the four cells of the paired table, so that a few samples
    that all agree are not taken for certainty (Agresti & Coull, The American Statistician 52(2), 1998; for paired
    proportions Agresti & Min, Statistics in Medicine 24(5), 2005). Other scores: delta method with Student's t.
    """
    if _binary(quantized) and _binary(reference):
        return _binary_limits(quantized, reference, metric, error)
    found = paired_retention(quantized, reference, metric)
    reach = student_quantile(1.0 - error, max(len(reference) - 1, 1)) * found.standard_error
    return Limits(found.value - reach, found.value + reach)


def _binary(scores: NDArray[np.generic]) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _binary_limits(
    quantized: NDArray[np.generic], reference: NDArray[np.generic], metric: Metric, error: float
) -> Limits:
    z = NormalDist().inv_cdf(1.0 - error)
    q, r = quantized.astype(np.float64), reference.astype(np.float64)
    added = z * z / 4.0
    n = len(r) + 4.0 * added
    q_mean = (float(q.sum()) + 2.0 * added) / n
    r_mean = (float(r.sum()) + 2.0 * added) / n
    both = (float((q * r).sum()) + added) / n
    value = metric.retention(q_mean, r_mean)
    if math.isnan(value):
        return Limits(NOT_A_NUMBER, NOT_A_NUMBER)
    by_q, by_r = metric.derivatives(q_mean, r_mean)
    variance = by_q**2 * q_mean * (1.0 - q_mean) + by_r**2 * r_mean * (1.0 - r_mean)
    variance += 2.0 * by_q * by_r * (both - q_mean * r_mean)
    reach = z * math.sqrt(max(variance, 0.0) / n)
    return Limits(value - reach, value + reach)


def student_quantile(probability: float, freedom: int) -> float:
    """Student's t quantile: Abramowitz & Stegun, Handbook of Mathematical Functions, eq. 26.7.5 (from 5 degrees on)."""
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4.0,
        (5.0 * x**5 + 16.0 * x**3 + 3.0 * x) / 96.0,
        (3.0 * x**7 + 19.0 * x**5 + 17.0 * x**3 - 15.0 * x) / 384.0,
        (79.0 * x**9 + 776.0 * x**7 + 1482.0 * x**5 - 1920.0 * x**3 - 945.0 * x) / 92160.0,
    )
    return x + math.fsum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def resampled_means(
    scores: NDArray[np.float64], rng: np.random.Generator, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """`(resamples, k)` mean scores of k networks on the same resampled samples (Efron 1979).

    Args:
        scores: `(samples, k)`; a resample draws whole rows, so that comparisons stay paired.
        rng: where the draws come from.
        resamples: how many.
    """
    n = len(scores)
    chances = np.full(n, 1.0 / n)
    chunk = max(1, _CHUNK // n)
    parts = [
        rng.multinomial(n, chances, size=min(chunk, resamples - start)) @ scores / n
        for start in range(0, resamples, chunk)
    ]
    return np.concatenate(parts)


def share_at_least(values: NDArray[np.float64], floor: float) -> float:
    """P(retention ≥ floor) as the share of bootstrapped `values`; NaN where there are none."""
    return float(np.mean(values >= floor)) if len(values) else NOT_A_NUMBER
