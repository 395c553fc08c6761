import math

import numpy as np
import pytest

from evoquant.campaign.additivity import additivity_of, draw_allocations, falling, measure_additivity
from evoquant.campaign.build_measured import opened_network
from evoquant.campaign.config_measured import source_of
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import loss_sums, retention_of
from evoquant.scoring.statistics import UNKNOWN, Retention

PROBLEM = compile_problem(seed_profile("train"), SEED_MENU)
ALLOCATIONS = draw_allocations(PROBLEM, 40, 0)
TRUE = retention_of(loss_sums(PROBLEM, ALLOCATIONS))


def test_what_is_additive_is_said_to_be():
    found = additivity_of(PROBLEM, ALLOCATIONS, [Retention(value, 1e-6, 1000) for value in TRUE])
    assert found.table == "loss"
    assert found.allocations == 40
    assert found.misordered == found.clear_misordered == 0.0
    assert found.r2 == pytest.approx(1.0)


def test_what_is_random_is_a_guess():
    found = [
        additivity_of(PROBLEM, ALLOCATIONS, [Retention(v, 0.01, 1000) for v in rng.permutation(TRUE)])
        for rng in (generator_for(seed, 0, "noise") for seed in range(30))
    ]
    assert np.mean([one.misordered for one in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.r2 for one in found]) < 0


def test_too_little_says_nothing():
    assert additivity_of(PROBLEM, ALLOCATIONS[:7], [Retention(value, 0.01, 1000) for value in TRUE[:7]]) is None
    unknown = [UNKNOWN] * 35 + [Retention(value, 0.01, 1000) for value in TRUE[35:]]
    assert additivity_of(PROBLEM, ALLOCATIONS, unknown) is None


def test_half_of_the_draws_are_near_the_cliff():
    losses = -np.log(TRUE)
    near = (losses > 0.1 * -math.log(0.95)) & (losses < 2.0 * -math.log(0.95))
    assert near.sum() >= 15
    assert len({row.tobytes() for row in ALLOCATIONS}) == 40
    assert np.array_equal(ALLOCATIONS, draw_allocations(PROBLEM, 40, 0))


def test_a_network_without_losses_is_judged_by_its_divergences(tiny, tmp_path):
    menu = Menu.parse(["INT2-channel", "INT4-channel", "INT8-channel", "FP32"])
    with opened_network(source_of(task="tiny"), menu, ("fisher",), tmp_path) as opened:
        found = measure_additivity(opened.measurer, opened.problem, 30, 0)
        few = measure_additivity(opened.measurer, opened.problem, 1000, 0)
    assert found.table == "fisher"
    assert found.passes == 31
    assert found.misordered < 0.3
    assert found.clear_misordered < found.misordered
    assert few.allocations <= 64, "there are no more"


def test_the_falling_link_pools_what_rises():
    assert falling(np.array([3.0, 1.0, 2.0, 0.0, 1.0, 0.2])).tolist() == [3.0, 1.5, 1.5, 0.5, 0.5, 0.2]
    assert falling(np.arange(4.0)).tolist() == [1.5] * 4
