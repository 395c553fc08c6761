import os

import numpy as np
import pytest

from evoquant.bench import speed_trees


@pytest.fixture
def small(monkeypatch):
    for name, value in {"TREES": 60, "GENERATIONS": 2, "SAMPLE": 20, "UNITS": (300,)}.items():
        monkeypatch.setattr(speed_trees, name, value)


def test_all_ways_allocate_the_same(small):
    space, problem = speed_trees.tree_space(), speed_trees.problem_of(150)
    assert len(problem.units) == 150
    for rows in speed_trees.populations(problem).values():
        assert len(np.unique(rows, axis=0)) == len(rows) > 30
        wanted = space.allocate(rows, problem)
        np.testing.assert_array_equal(speed_trees.by_numpy(space, rows, problem)(), wanted)
        np.testing.assert_array_equal(speed_trees.by_deap(space, rows, problem)(), wanted)


def test_figures(small, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    measures = speed_trees.measure(rounds=1)
    assert {m.topic for m in measures} == {"trees"}
    assert [m.goal for m in measures if speed_trees.DEAP in m.what] == [speed_trees.GOAL] * 2
    assert any("300 units" in m.what for m in measures)
    assert all(m.values[0] > 0 for m in measures)
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_ways_that_differ_are_not_timed(small, monkeypatch):
    monkeypatch.setitem(speed_trees._ON_ARRAYS, "add", lambda a, b: a - b)
    with pytest.raises(AssertionError, match="DEAP's compile-and-call allocates differently"):
        speed_trees.measure(rounds=1)
