"""Measured retention from paired per-sample scores: its value, standard error, interval and chance to hold a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError, ProfileError, raised_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NOT_A_NUMBER = float("nan")
RESAMPLES = 10_000
FEW_CELLS = 64  # with more distinct pairs than this a resample costs n draws, and fewer of them are made
FEWER_RESAMPLES = 2_000
STEP = 1e-4  # of the mean, for the derivatives of anyone's own retention
_CHUNK = 2**22


@dataclass(frozen=True)
class Metric:
    """How the scores of samples become one figure, and two figures a retention.

    Attributes:
        name: accuracy, agreement, r2, perplexity, cosine, or anyone's own.
        lower_is_better: whether retention is FP32 / quantized; else quantized / FP32.
        exponential: whether the figure is exp(mean score), as perplexity is of nats; else the mean.
        own: retention of (quantized figure, FP32 figure) for a metric that can be 0 or negative.
    """

    name: str
    lower_is_better: bool = False
    exponential: bool = False
    own: Callable[[float, float], float] | None = None

    def figure(self, mean: float) -> float:
        """The figure of a mean score."""
        return math.exp(mean) if self.exponential else mean

    def retention(self, quantized: float, reference: float) -> float:
        """Retention from two mean scores; NaN where it is not defined: figures that are not above 0, or no numbers.

        A quantized figure below 0 (an R² may be) is a retention below 0.

        Raises:
            InputError: somebody's own retention raised something.
        """
        if self.exponential:
            difference = reference - quantized if self.lower_is_better else quantized - reference
            value = math.exp(min(difference, 700.0)) if math.isfinite(difference) else NOT_A_NUMBER
        elif self.own is not None:
            try:
                value = float(self.own(quantized, reference))
            except Exception as error:  # whatever somebody's own code may raise
                pair = f"{quantized:.6g} against {reference:.6g}"
                raise InputError(f"metric {self.name!r}: its retention of {pair} raised {raised_by(error)}") from error
        elif self.lower_is_better:
            value = reference / quantized if quantized > 0 and reference > 0 else NOT_A_NUMBER
        else:
            value = quantized / reference if reference > 0 else NOT_A_NUMBER
        return value if math.isfinite(value) else NOT_A_NUMBER

    def retentions(self, quantized: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
        """`retention` for arrays of mean scores of one shape, element by element."""
        if self.own is not None:
            pairs = zip(quantized.ravel().tolist(), reference.ravel().tolist(), strict=True)
            values = np.array([self.retention(q, r) for q, r in pairs], dtype=np.float64)
            return values.reshape(quantized.shape)
        above, below = (reference, quantized) if self.lower_is_better else (quantized, reference)
        with np.errstate(all="ignore"):
            if self.exponential:
                result = np.exp(np.minimum(above - below, 700.0))
            else:
                defined = (below > 0) & ((above > 0) | (not self.lower_is_better))
                result = np.where(defined, above / below, NOT_A_NUMBER)
        return np.where(np.isfinite(result), result, NOT_A_NUMBER)

    def derivatives(self, quantized: float, reference: float) -> tuple[float, float]:
        """∂retention/∂(mean quantized score) and ∂retention/∂(mean FP32 score)."""
        if self.exponential:
            value = self.retention(quantized, reference)
            return (-value, value) if self.lower_is_better else (value, -value)
        if self.own is not None:
            return (
                _slope(lambda x: self.retention(x, reference), quantized),
                _slope(lambda x: self.retention(quantized, x), reference),
            )
        if self.lower_is_better:
            return -reference / quantized**2, 1.0 / quantized
        return 1.0 / reference, -quantized / reference**2


ACCURACY = Metric("accuracy")
AGREEMENT = Metric("agreement")
R2 = Metric("r2")
PERPLEXITY = Metric("perplexity", lower_is_better=True, exponential=True)
COSINE = Metric("cosine")
METRICS: dict[str, Metric] = {metric.name: metric for metric in (ACCURACY, AGREEMENT, R2, PERPLEXITY, COSINE)}


@dataclass(frozen=True)
class Retention:
    """Retention measured on samples.

    Attributes:
        value: quantized metric / FP32 metric (or its reverse), as it is (may exceed 1).
        standard_error: by the delta method for two paired means.
        samples: how many.
    """

    value: float
    standard_error: float
    samples: int


UNKNOWN = Retention(NOT_A_NUMBER, NOT_A_NUMBER, 0)


def paired_retention(
    quantized: NDArray[np.generic], reference: NDArray[np.generic], metric: Metric = ACCURACY
) -> Retention:
    """Retention from the scores of the same `(samples,)`, with its standard error.

    Delta method: var f(q̄, r̄) ≈ var(∂f/∂q̄ · q + ∂f/∂r̄ · r) / n; for a ratio this is Cochran, Sampling Techniques,
    3rd ed., eq. 6.13. The value is NaN where the metric has none.
    """
    n = len(reference)
    q, r = quantized.astype(np.float64), reference.astype(np.float64)
    q_mean, r_mean = float(q.sum()) / n, float(r.sum()) / n
    value = metric.retention(q_mean, r_mean)
    if math.isnan(value):
        return Retention(value, NOT_A_NUMBER, n)
    by_q, by_r = metric.derivatives(q_mean, r_mean)
    influence = by_q * (q - q_mean) + by_r * (r - r_mean)
    variance = float(np.square(influence).sum()) / max(n - 1, 1) / n
    return Retention(value, variance**0.5, n)


def require_reference(metric: Metric, mean: float) -> None:
    """Whether retention can be a share of the FP32 network's figure on the calibration data.

    Args:
        metric: whose retention it is.
        mean: score of the FP32 network.

    Raises:
        ProfileError: every retention would be undefined.
    """
    if not math.isnan(metric.retention(mean, mean)):
        return
    figure = f"{metric.name} of the FP32 network on the calibration data is {metric.figure(mean):.4g}"
    if metric.own is not None:
        raise ProfileError(f"metric: {figure}, and its own retention of that against itself is no number; mend it.")
    raise ProfileError(
        f"metric: {figure}, and retention is a share of that, so it has to be above 0: train the network, look at the "
        f"data, give a metric of your own with an attribute `retention`, a function (quantized, reference), or compare "
        f"with the FP32 outputs instead of with targets (metric agreement; --agreement)."
    )


def bootstrap(
    quantized: NDArray[np.generic],
    reference: NDArray[np.generic],
    rng: np.random.Generator,
    metric: Metric = ACCURACY,
) -> NDArray[np.float64]:
    """Retentions of resampled pairs, sorted; empty where none is defined (Efron 1979).

    Equal pairs count together, so that for scores of 0 and 1 a resample is one multinomial draw over four cells.
    """
    pairs = np.stack([quantized.astype(np.float64), reference.astype(np.float64)], axis=1)
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    resamples = RESAMPLES if len(cells) <= FEW_CELLS else FEWER_RESAMPLES
    chunk = max(1, _CHUNK // len(cells))
    found = []
    for start in range(0, resamples, chunk):
        draws = rng.multinomial(len(pairs), counts / len(pairs), size=min(chunk, resamples - start))
        means = draws @ cells / len(pairs)
        found.append(metric.retentions(means[:, 0], means[:, 1]))
    values = np.concatenate(found)
    return np.sort(values[~np.isnan(values)])


def bootstrap_interval(
    quantized: NDArray[np.generic],
    reference: NDArray[np.generic],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    metric: Metric = ACCURACY,
) -> tuple[float, float]:
    """Percentile interval of retention by resampling pairs; NaN where the metric has no retention."""
    return interval(bootstrap(quantized, reference, rng, metric), level)


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped values; NaN where there are none."""
    if not len(values):
        return NOT_A_NUMBER, NOT_A_NUMBER
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _slope(function: Callable[[float], float], x: float) -> float:
    step = max(abs(x), 1.0) * STEP
    return (function(x + step) - function(x - step)) / (2.0 * step)
