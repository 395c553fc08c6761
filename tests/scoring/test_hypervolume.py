import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.scoring.hypervolume import hypervolume


def area(bits, retention):
    return hypervolume(np.array(bits, dtype=float), np.array(retention, dtype=float))


def test_rectangles_by_hand():
    assert area([12.0], [0.95]) == pytest.approx(20 * 0.05)
    assert area([12.0, 22.0], [0.95, 0.98]) == pytest.approx(20 * 0.05 + 10 * 0.03)
    assert area([12.0, 13.0], [0.95, 0.94]) == pytest.approx(20 * 0.05)  # a dominated point adds nothing


def test_the_box():
    assert area([2.0], [1.0]) == pytest.approx(30 * 0.10)
    assert area([1.0], [1.5]) == pytest.approx(30 * 0.10)  # beyond it counts no more than its corner
    assert area([32.0, 40.0, 12.0], [1.0, 1.0, 0.90]) == 0.0
    assert area([], []) == 0.0
    assert area([12.0, 3.0], [0.95, np.nan]) == pytest.approx(20 * 0.05)
    assert hypervolume(np.array([4.0]), np.array([0.5]), bits=(0.0, 8.0), floor=0.0) == pytest.approx(4 * 0.5)


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0.8, 1.1)), max_size=20))
def test_it_is_the_area_under_the_staircase(points):
    bits, retention = np.array(points, dtype=float).reshape(-1, 2).T
    grid = np.unique(np.clip([2.0, 32.0, *bits], 2.0, 32.0))
    heights = [max([r for b, r in zip(bits, retention, strict=True) if b <= x], default=0.0) for x in grid[:-1]]
    expected = float((np.diff(grid) * np.clip(np.array(heights) - 0.9, 0.0, 0.1)).sum())
    assert hypervolume(bits, retention) == pytest.approx(expected, abs=1e-9)
