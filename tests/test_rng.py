import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evoquant.rng import generator_for

KEYS = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 10**9), st.text(max_size=20))


def test_golden_values():
    """Any change here changes every campaign that was ever run."""
    assert generator_for(0, 0, "variation").integers(0, 2**32, 4).tolist() == [
        3304953151,
        2763364194,
        1273945455,
        3942150810,
    ]
    assert generator_for(42, 7, "bootstrap").integers(0, 2**32, 4).tolist() == [
        2377943019,
        3636526327,
        758879947,
        3023078108,
    ]
    assert generator_for(2**63 - 1, 10**6, "α").random().hex() == "0x1.f50681bf1b771p-1"


@given(KEYS)
def test_equal_keys_give_equal_streams(key):
    assert generator_for(*key).bytes(32) == generator_for(*key).bytes(32)


@given(KEYS, KEYS)
def test_other_keys_give_other_streams(one, other):
    assert (generator_for(*one).bytes(32) == generator_for(*other).bytes(32)) == (one == other)


def test_the_parts_of_a_key_do_not_run_together():
    keys = [(1, 11, "x"), (11, 1, "x"), (1, 1, "1x"), (1, 1, "x"), (111, 0, "x")]
    assert len({generator_for(*key).bytes(16) for key in keys}) == len(keys)


def test_streams_do_not_disturb_each_other():
    alone = generator_for(3, 0, "a").random(5)
    first, second = generator_for(3, 0, "a"), generator_for(3, 0, "b")
    mixed = []
    for _ in range(5):
        second.random(3)
        mixed.append(first.random())
    assert mixed == alone.tolist()


def test_streams_are_independent():
    draws = np.array([generator_for(0, generation, "x").random(2000) for generation in range(20)])
    off_diagonal = np.corrcoef(draws)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(2000)
    assert abs(draws.mean() - 0.5) < 5 * np.sqrt(1 / 12 / draws.size)


def test_global_state_is_left_alone():
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    generator_for(1, 2, "x").random(100)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy  # noqa: NPY002
