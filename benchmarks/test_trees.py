"""A population of trees on one model: compiled, tree by tree with NumPy, and DEAP's compile-and-call, side by side.

python -m pytest benchmarks/test_trees.py        (the table shows each mean, and its ratio to the fastest)
"""

import numpy as np
import pytest

from evoquant.bench.speed_trees import by_deap, by_numpy, populations, problem_of, tree_space

PROBLEM = problem_of()
SPACE = tree_space()
POPULATIONS = populations(PROBLEM)

pytestmark = pytest.mark.benchmark(disable_gc=True)


@pytest.fixture(params=POPULATIONS)
def rows(request, benchmark):
    chosen = POPULATIONS[request.param]
    benchmark.group = f"{len(chosen)} {request.param} trees on {len(PROBLEM.units)} units"
    return chosen


@pytest.fixture
def expected(rows):
    return by_numpy(SPACE, rows, PROBLEM)()


def test_compiled(benchmark, rows, expected):
    found = benchmark.pedantic(SPACE.allocate, (rows, PROBLEM), rounds=50, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)


def test_compiled_sums(benchmark, rows):
    benchmark.pedantic(SPACE.sums, (rows, PROBLEM), rounds=50, warmup_rounds=1)


def test_numpy(benchmark, rows):
    benchmark.pedantic(by_numpy(SPACE, rows, PROBLEM), rounds=5, warmup_rounds=1)


def test_deap_compile_and_call(benchmark, rows, expected):
    found = benchmark.pedantic(by_deap(SPACE, rows, PROBLEM), rounds=5, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)
