import itertools

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.scoring.hypervolume import hypervolume_share
from evoquant.scoring.limits import Limit, WithinLimits

BYTES = Limit("bytes", "bytes", 1000, "bytes")
LATENCY = Limit("latency", "latency", 50, "nanoseconds")


def scored(retention, size, late, objective):
    columns = [np.array([value], dtype=np.float64) for value in (retention, 4.0, 8.0)]
    costs = {"bytes": np.array([size]), "latency": np.array([late])}
    return float(objective.score_costs(*columns, costs)[0])


def test_what_keeps_all_limits_is_worth_its_compression_and_all_else_minus_its_excesses():
    objective = WithinLimits(0.95, (BYTES, LATENCY))
    assert scored(0.95, 1000, 50, objective) == 4.0  # at most and at least: the limits themselves are kept
    assert scored(0.95, 1001, 50, objective) == pytest.approx(-0.001)
    assert scored(0.90, 1000, 50, objective) == pytest.approx(-(1 - 0.90 / 0.95))
    assert scored(0.90, 1100, 60, objective) == pytest.approx(-(1 - 0.90 / 0.95) - 0.1 - 0.2)
    assert scored(0.5, 3000, 10, objective) < scored(0.5, 2999, 10, objective) < 0


def test_one_too_many_is_too_many_however_large_the_numbers():
    most = 2**61 + 1
    objective = WithinLimits(0.5, (Limit("bytes", "bytes", most, "bytes"),))
    assert scored(0.9, most, 0, objective) == 4.0
    assert scored(0.9, most + 1, 0, objective) < 0.0
    just_below = np.nextafter(0.95, 0.0)
    assert scored(just_below, 0, 0, WithinLimits(0.95)) < 0.0


def test_without_the_costs_it_says_which_it_needs():
    column = np.ones(2)
    assert WithinLimits(0.9).score(column, 3 * column, column).tolist() == [3.0, 3.0]
    bits = Limit("effective_bits", "effective_bits", 2.0, "")
    assert WithinLimits(0.9, (bits,)).score(column, 3 * column, 4 * column).tolist() == [-1.0, -1.0]
    with pytest.raises(InputError, match=r"what candidates cost in bytes, latency is not known"):
        WithinLimits(0.9, (BYTES, LATENCY)).score(column, column, column)


def test_hypervolume_of_three_objectives_is_exact():
    rng = np.random.default_rng(0)
    costs, retention = rng.uniform(0.0, 1.1, (9, 2)), rng.uniform(0.85, 1.0, 9)
    retention[3] = np.nan
    sides = [np.unique(np.concatenate([[0.0, 1.0], column[column < 1]])) for column in costs.T]
    levels = np.unique(np.concatenate([[0.9, 1.0], retention[retention > 0.9]]))
    volume = 0.0
    for i, x in enumerate(sides[0][1:]):  # cell by cell, whose upper corner decides
        for j, y in enumerate(sides[1][1:]):
            for low, high in itertools.pairwise(levels):
                beaten = (costs[:, 0] < x) & (costs[:, 1] < y) & (retention >= high)
                if beaten.any():
                    volume += (x - sides[0][i]) * (y - sides[1][j]) * (high - low) / 0.1
    assert hypervolume_share(costs, retention) == pytest.approx(volume)
    assert hypervolume_share(costs + 1.0, retention) == 0.0
    assert hypervolume_share(np.zeros((1, 2)), np.ones(1)) == 1.0
