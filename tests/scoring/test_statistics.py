import math

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.rng import generator_for
from evoquant.scoring.statistics import METRICS, Metric, bootstrap_interval, paired_retention

# Chances of (quantized right, reference right): (no, no), (no, yes), (yes, no), (yes, yes).
CHANCES = (0.05, 0.07, 0.02, 0.86)
TRUTH = (CHANCES[2] + CHANCES[3]) / (CHANCES[1] + CHANCES[3])


def draw(rng, n, chances=CHANCES):
    cells = rng.choice(4, size=n, p=chances)
    return (cells // 2).astype(np.uint8), (cells % 2).astype(np.uint8)


def test_ratio_by_hand():
    quantized = np.array([1, 1, 0, 0, 1], dtype=np.uint8)
    reference = np.array([1, 1, 1, 1, 0], dtype=np.uint8)
    found = paired_retention(quantized, reference)
    assert found.value == pytest.approx(3 / 4)
    assert found.samples == 5
    residuals = [1 - 0.75, 1 - 0.75, -0.75, -0.75, 1.0]
    variance = sum(r * r for r in residuals) / 4
    assert found.standard_error == pytest.approx(math.sqrt(variance / 5) / 0.8)


def test_a_model_against_itself_is_certain():
    reference = np.array([1, 0, 1, 1], dtype=np.uint8)
    found = paired_retention(reference, reference)
    assert (found.value, found.standard_error) == (1.0, 0.0)
    assert bootstrap_interval(reference, reference, generator_for(0, 0, "t")) == (1.0, 1.0)


def test_large_counts_do_not_overflow_a_byte():
    quantized = np.ones(1000, dtype=np.uint8)
    quantized[:100] = 0
    assert paired_retention(quantized, np.ones(1000, dtype=np.uint8)).value == 0.9


def test_a_reference_that_never_scores_has_no_retention():
    found = paired_retention(np.ones(3, dtype=np.uint8), np.zeros(3, dtype=np.uint8))
    assert math.isnan(found.value)
    assert math.isnan(found.standard_error)
    assert found.samples == 3


def test_an_interval_of_a_reference_that_never_scores_is_not_a_number():
    low, high = bootstrap_interval(np.ones(3, dtype=np.uint8), np.zeros(3, dtype=np.uint8), generator_for(0, 0, "t"))
    assert math.isnan(low)
    assert math.isnan(high)


def test_standard_error_against_simulation():
    rng = generator_for(1, 0, "simulation")
    found = [paired_retention(*draw(rng, 1000)) for _ in range(2000)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(TRUTH, abs=0.001)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(values.std(ddof=1), rel=0.05)


def test_standard_error_against_a_plain_bootstrap():
    rng = generator_for(2, 0, "bootstrap")
    quantized, reference = draw(rng, 800)
    rows = rng.integers(0, 800, (4000, 800))
    ratios = quantized[rows].mean(axis=1) / reference[rows].mean(axis=1)
    assert paired_retention(quantized, reference).standard_error == pytest.approx(ratios.std(ddof=1), rel=0.05)
    low, high = bootstrap_interval(quantized, reference, rng)
    np.testing.assert_allclose((low, high), np.quantile(ratios, [0.025, 0.975]), atol=0.002)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_cover(level):
    rng = generator_for(3, 0, "coverage")
    inside = []
    for _ in range(400):
        quantized, reference = draw(rng, 400)
        low, high = bootstrap_interval(quantized, reference, rng, level=level)
        assert low <= high
        inside.append(low <= TRUTH <= high)
    # Within four standard errors of the coverage itself, and what a percentile interval loses at this size.
    slack = 4 * math.sqrt(level * (1 - level) / len(inside)) + 0.01
    assert np.mean(inside) == pytest.approx(level, abs=slack)


def test_pairing_is_used():
    rng = generator_for(4, 0, "pairing")
    quantized, reference = draw(rng, 500)
    paired = bootstrap_interval(quantized, reference, rng)
    shuffled = bootstrap_interval(rng.permutation(quantized), reference, rng)
    assert paired[1] - paired[0] < shuffled[1] - shuffled[0]


def test_the_same_generator_gives_the_same_interval():
    quantized, reference = draw(generator_for(5, 0, "data"), 300)
    intervals = {bootstrap_interval(quantized, reference, generator_for(5, 0, "bootstrap")) for _ in range(3)}
    assert len(intervals) == 1


@pytest.mark.parametrize(
    "metric", [*METRICS.values(), Metric("own", own=lambda q, r: 1 + q - r), Metric("error", True)]
)
def test_arrays_of_means_give_what_single_means_give(metric):
    means = np.array([[0.9, 1.0], [-0.5, 1.0], [0.5, 0.0], [0.0, 0.7], [2000.0, 0.1], [np.nan, 1.0]])
    expected = [metric.retention(*pair) for pair in means.tolist()]
    np.testing.assert_allclose(metric.retentions(means[:, 0], means[:, 1]), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "metric", [METRICS["perplexity"], Metric("error", True), Metric("own", own=lambda q, r: q / r)]
)
def test_standard_errors_of_other_metrics_against_simulation(metric):
    rng = generator_for(6, 0, "metrics")
    found = []
    for _ in range(1500):
        reference = rng.gamma(4.0, 0.25, 300)
        found.append(paired_retention(reference + rng.normal(0.1, 0.3, 300), reference, metric))
    spread = np.std([f.value for f in found], ddof=1)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(spread, rel=0.07)


def test_a_retention_of_ones_own_that_raises_is_named():
    metric = Metric("mine", own=lambda q, r: q / 0)
    with pytest.raises(
        InputError, match=r"metric 'mine': its retention of 0.5 against 1 raised ZeroDivisionError.*line"
    ):
        metric.retention(0.5, 1.0)
