import math

import numpy as np
import pytest
from scipy.stats import t as student

from evoquant.rng import generator_for
from evoquant.scoring.chance import confidence_limits, resampled_means, share_at_least, student_quantile
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst, retention_floor
from evoquant.scoring.statistics import ACCURACY, PERPLEXITY


@pytest.mark.parametrize("freedom", [8, 63, 500])
@pytest.mark.parametrize("probability", [0.9, 0.99, 0.9975])
def test_students_quantiles(probability, freedom):
    assert student_quantile(probability, freedom) == pytest.approx(student.ppf(probability, freedom), rel=2e-3)


@pytest.mark.parametrize("n", [64, 256, 1000])
@pytest.mark.parametrize("lost", [0.002, 0.02, 0.1])
def test_limits_of_zeros_and_ones_are_passed_as_seldom_as_they_say(n, lost):
    """Also where most draws of this size hold no single lost sample, and the plain standard error is 0."""
    error, trials = 0.01, 3000
    rng = generator_for(n, int(lost * 1000), "limits")
    truth = (0.9 * (1 - lost) + 0.1 * 0.05) / 0.9
    low = high = 0
    for _ in range(trials):
        reference = rng.random(n) < 0.9
        quantized = np.where(reference, rng.random(n) >= lost, rng.random(n) < 0.05)
        limits = confidence_limits(quantized.astype(np.float32), reference.astype(np.float32), ACCURACY, error)
        low += truth < limits.low
        high += truth > limits.high
    allowed = trials * error * 1.5 + 3 * math.sqrt(trials * error)
    assert low <= allowed
    assert high <= allowed


def test_limits_of_other_scores_are_passed_as_seldom_as_they_say():
    rng = generator_for(0, 0, "limits")
    outside = 0
    for _ in range(2000):
        reference = rng.gamma(4.0, 0.25, 100)
        limits = confidence_limits(reference + rng.normal(0.1, 0.3, 100), reference, PERPLEXITY, 0.01)
        outside += not limits.low < math.exp(-0.1) < limits.high
    assert 10 < outside < 80  # 2% of 2000 is 40


def test_samples_that_all_agree_are_no_certainty():
    ones = np.ones(64, dtype=np.float32)
    limits = confidence_limits(ones, ones, ACCURACY, 0.01)
    assert limits.low < 0.95 < 1.0 < limits.high


def test_means_are_resampled_together():
    rng = generator_for(1, 0, "resample")
    scores = rng.random((300, 1)) + np.array([0.0, 0.25])
    means = resampled_means(scores, rng, 500)
    assert means.shape == (500, 2)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 0.25)
    assert means[:, 0].std() == pytest.approx(scores[:, 0].std() / math.sqrt(300), rel=0.15)


def test_chance_and_floor():
    assert share_at_least(np.array([0.9, 0.95, 0.99, 1.0]), 0.95) == 0.75
    assert math.isnan(share_at_least(np.empty(0), 0.95))
    assert retention_floor(Cliff(0.9)) == 0.9
    assert retention_floor(FeasibleFirst(0.97)) == 0.97
    assert retention_floor(BitBudget(4.5)) is None
