"""A population of rules on one model: the compiled pass, a compiled scalar loop, NumPy and plain Python, side by side.

python -m pytest benchmarks/test_rules.py        (the table shows each mean, and its ratio to the fastest)
"""

import numpy as np
import pytest

from evoquant.bench.contest import at_most_threads
from evoquant.bench.speed_rules import LOOPS, by_numpy, by_python, scalar_loops
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

RULES = 10_000
PROBLEM = compile_problem(seed_profile("train"), SEED_MENU)
SPACE = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
ROWS = SPACE.canonical(SPACE.sample(generator_for(0, 0, "benchmark"), RULES))

pytestmark = pytest.mark.benchmark(group=f"{RULES} rules on {len(PROBLEM.units)} units", disable_gc=True)


@pytest.fixture(scope="module")
def expected():
    return by_numpy(SPACE, ROWS, PROBLEM)


def test_compiled_pass(benchmark, expected):
    with at_most_threads(1):
        found = benchmark.pedantic(SPACE.sums, (ROWS, PROBLEM), rounds=20, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", LOOPS)
def test_compiled_scalar_loop(benchmark, expected, tmp_path, name):
    loops = scalar_loops(tmp_path)
    if not loops:
        pytest.skip("there is no C compiler")
    found = benchmark.pedantic(loops[name], (SPACE, ROWS, PROBLEM), rounds=10, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)


def test_numpy(benchmark, expected):
    found = benchmark.pedantic(by_numpy, (SPACE, ROWS, PROBLEM), rounds=3)
    np.testing.assert_array_equal(found, expected)


def test_plain_python(benchmark, expected):
    found = benchmark.pedantic(by_python, (SPACE, [SPACE.decode(row) for row in ROWS], PROBLEM), rounds=1)
    np.testing.assert_array_equal(found, expected)
