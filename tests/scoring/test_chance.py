import math

import numpy as np
import pytest
from scipy.stats import t as student

from evoquant.rng import generator_for
from evoquant.scoring.chance import (
    confidence_limits,
    resampled,
    share_at_least,
    student_quantile,
    with_doubt,
)
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst, retention_floor
from evoquant.scoring.statistics import ACCURACY, PERPLEXITY, R2


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


def test_networks_are_resampled_together():
    rng = generator_for(1, 0, "resample")
    reference = rng.random(300) + 1.0
    scores = reference[:, None] - np.array([0.0, 0.25])
    drawn = resampled(scores, reference, rng, 500)
    one, other = drawn.pair(0, 1, R2)
    assert one.shape == (500,)
    np.testing.assert_allclose(one, 1.0)
    np.testing.assert_allclose(1.0 - other, 0.25 / (drawn.reference / drawn.samples))
    means = drawn.reference / 300
    assert means.std() == pytest.approx(reference.std() / math.sqrt(300), rel=0.15)


def test_networks_that_agree_on_every_sample_may_still_differ():
    ones = np.ones((100, 2))
    drawn = resampled(ones, np.ones(100), generator_for(2, 0, "resample"), 4000)
    one, other = drawn.pair(0, 1, ACCURACY)
    assert np.mean(one - other) == pytest.approx(0.0, abs=0.001)
    assert np.std(one - other) == pytest.approx(math.sqrt(2) / 102, rel=0.1)
    quantized, reference = with_doubt(np.ones(5, dtype=np.float32), np.ones(5, dtype=np.float32))
    assert (quantized.sum(), reference.sum(), len(quantized)) == (6, 6, 7)
    other_scores = np.full(5, 0.3)
    assert with_doubt(other_scores, other_scores)[0] is other_scores


def test_chance_and_floor():
    assert share_at_least(np.array([0.9, 0.95, 0.99, 1.0]), 0.95) == 0.75
    assert math.isnan(share_at_least(np.empty(0), 0.95))
    assert retention_floor(Cliff(0.9)) == 0.9
    assert retention_floor(FeasibleFirst(0.97)) == 0.97
    assert retention_floor(BitBudget(4.5)) is None
