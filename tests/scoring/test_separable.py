import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import LOSS_UNITS, compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

TRAIN = compile_problem(seed_profile("train"), SEED_MENU)
UNITS = len(TRAIN.units)


def random_allocations(n, seed=0):
    return np.random.default_rng(seed).integers(0, 5, (n, UNITS)).astype(np.int8)


@given(st.permutations(range(UNITS)), st.integers(1, UNITS - 1), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_any_order_and_any_split_give_the_same_integers(order, cut, seed):
    (allocation,) = random_allocations(1, seed)
    for table, total in (
        (TRAIN.separable_loss(), loss_sums(TRAIN, allocation[None])[0]),
        (TRAIN.cost.table, cost_sums(TRAIN, allocation[None])[0] - TRAIN.cost.constant),
    ):
        picked = table[np.arange(UNITS), allocation]
        assert sum(int(value) for value in picked[list(order)]) == total
        assert picked[order[:cut]].sum() + picked[order[cut:]].sum() == total
        assert np.cumsum(picked)[-1] == total


def test_any_batching_gives_the_same_integers():
    allocations = random_allocations(37)
    whole = loss_sums(TRAIN, allocations)
    for pieces in (2, 5, 37):
        parts = np.array_split(allocations, pieces)
        np.testing.assert_array_equal(np.concatenate([loss_sums(TRAIN, part) for part in parts]), whole)
    np.testing.assert_array_equal(loss_sums(TRAIN, np.asfortranarray(allocations)), whole)


def test_types_and_shapes():
    allocations = random_allocations(3)
    for sums in (loss_sums(TRAIN, allocations), cost_sums(TRAIN, allocations)):
        assert sums.shape == (3,)
        assert sums.dtype == np.int64
    assert loss_sums(TRAIN, allocations[:0]).shape == (0,)


def test_retention_is_the_product():
    allocations = random_allocations(20)
    retention = retention_of(loss_sums(TRAIN, allocations))
    s = np.stack([TRAIN.signal(f"loss:{name}") for name in SEED_MENU.names], axis=1)
    product = np.prod(1.0 - s[np.arange(UNITS), allocations], axis=1)
    np.testing.assert_allclose(retention, product, rtol=1e-9)


def test_negative_losses_give_more_than_one():
    assert retention_of(np.array([0]))[0] == 1.0
    assert retention_of(np.array([-LOSS_UNITS]))[0] == pytest.approx(np.e)
