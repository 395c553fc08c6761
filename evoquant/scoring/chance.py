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


def with_doubt(
    quantized: NDArray[np.generic], reference: NDArray[np.generic]
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Scores of 0 and 1 with two samples more, one won and one lost by the quantized network; others as they are.

    Resampled alone, a few samples that all agree would be certainty (cf. Agresti & Min, 2005).
    """
    if not (_binary(quantized) and _binary(reference)):
        return quantized, reference
    return np.append(quantized, [1, 0]), np.append(reference, [0, 1])


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scores of k networks and their FP32 network, resampled together (Efron 1979), so that comparisons stay paired.

    Attributes:
        sums: `(resamples, k)` summed scores.
        reference: `(resamples,)` of the FP32 network.
        doubt: `(resamples, 2)` how often the two samples of doubt were drawn, which the one of a pair of networks wins
            and the other loses; 0 where scores are not 0 and 1.
        samples: of a resample.
    """

    sums: NDArray[np.float64]
    reference: NDArray[np.float64]
    doubt: NDArray[np.float64]
    samples: int

    def pair(self, first: int, second: int, metric: Metric) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`(resamples,)` retentions of two of the networks, sample for sample the same."""
        reference = (self.reference + self.doubt.sum(axis=1)) / self.samples
        means = ((self.sums[:, row] + self.doubt[:, place]) / self.samples for place, row in enumerate((first, second)))
        one, other = (metric.retentions(mean, reference) for mean in means)
        return one, other


def resampled(
    scores: NDArray[np.float64], reference: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> Resampled:
    """Resample `(samples, k)` scores and the `(samples,)` scores of the FP32 network."""
    doubt = 2 if _binary(scores) and _binary(reference) else 0
    n = len(scores) + doubt
    table = np.zeros((n, scores.shape[1] + 1 + 2))
    table[: len(scores), :-3] = scores
    table[: len(scores), -3] = reference
    for place in range(doubt):
        table[len(scores) + place, -2 + place] = 1.0
    chunk = max(1, _CHUNK // n)
    chances = np.full(n, 1.0 / n)
    sums = np.concatenate(
        [
            rng.multinomial(n, chances, size=min(chunk, resamples - start)) @ table
            for start in range(0, resamples, chunk)
        ]
    )
    return Resampled(sums[:, :-3], sums[:, -3], sums[:, -2:], n)


def share_at_least(values: NDArray[np.float64], floor: float) -> float:
    """P(retention ≥ floor) as the share of bootstrapped `values`; NaN where there are none."""
    return float(np.mean(values >= floor)) if len(values) else NOT_A_NUMBER
