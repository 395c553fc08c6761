"""A population of trees on one model: the compiled interpreter, NumPy, and DEAP's compile-and-call, side by side.

python -m pytest benchmarks/test_trees.py        (the table shows each mean, and its ratio to the fastest)
"""

import numpy as np
import pytest
from deap import gp

from evoquant.genomes.expression import LARGEST, OPERATOR
from evoquant.genomes.tree import TreeSpace
from evoquant.genomes.tree_numpy import settled, signal_values
from evoquant.genomes.tree_operators import TreeOperators, primitives
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

TREES = 1000
SIGNALS = ("loss", "bits", "share", "gradient_sensitivity", "position", "units", "model_loss")
PROBLEM = compile_problem(seed_profile("train"), SEED_MENU)
SPACE = TreeSpace(SEED_MENU, ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear"), SIGNALS)
ROWS = SPACE.sample(generator_for(0, 0, "benchmark"), TREES)

pytestmark = pytest.mark.benchmark(group=f"{TREES} trees on {len(PROBLEM.units)} units", disable_gc=True)


@pytest.fixture(scope="module")
def expected():
    return np.array([SPACE.decode(row).allocate(PROBLEM) for row in ROWS])


def test_compiled_interpreter(benchmark, expected):
    found = benchmark.pedantic(SPACE.allocate, (ROWS, PROBLEM), rounds=20, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)


def test_numpy(benchmark, expected):
    def allocate():
        return np.array([settled(SPACE.expression(row), PROBLEM) for row in SPACE.canonical(ROWS)])

    found = benchmark.pedantic(allocate, rounds=5, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)


def clipped(values):
    return np.minimum(np.maximum(values, -LARGEST), LARGEST)


ON_ARRAYS = {
    "add": lambda a, b: clipped(a + b),
    "sub": lambda a, b: clipped(a - b),
    "mul": lambda a, b: clipped(a * b),
    "div": lambda a, b: np.where(b == 0.0, 1.0, clipped(a / b)),
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "sqrt": lambda a: np.sqrt(np.abs(a)),
    "square": lambda a: clipped(a * a),
    "greater": np.greater,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
}


def deap_trees():
    """The same trees as DEAP's, and a set of primitives that can be compiled and called."""
    known = primitives(SPACE.types, SPACE.signals, SPACE.operators)
    names = [*SPACE.signals, *(f"is_{kind}" for kind in SPACE.types)]
    made = gp.PrimitiveSet("cost", len(names))
    made.renameArguments(**{f"ARG{i}": name for i, name in enumerate(names)})
    for name, operator in OPERATOR.items():
        # Python's own words cannot be called; as in any tree that DEAP compiles, the functions have other names.
        made.addPrimitive(ON_ARRAYS[name], len(operator.args), f"{name}_")
    trees = TreeOperators(SPACE, known)._trees(ROWS)
    for individual in trees:
        for i, node in enumerate(individual):
            if node.arity:
                list.__setitem__(individual, i, made.mapping[f"{node.name}_"])
    return trees, made, names


def test_deap_compile_and_call(benchmark, expected):
    trees, made, names = deap_trees()
    shape = (len(PROBLEM.units), len(PROBLEM.menu))
    allowed = PROBLEM.allowed

    def allocate():
        values = [signal_values(PROBLEM, name) for name in names]
        result = np.empty((TREES, shape[0]), dtype=np.int8)
        with np.errstate(all="ignore"):
            for i, individual in enumerate(trees):
                costs = np.broadcast_to(gp.compile(individual, made)(*values), shape)
                result[i] = np.where(allowed, costs, np.inf).argmin(axis=1)
        return result

    found = benchmark.pedantic(allocate, rounds=5, warmup_rounds=1)
    np.testing.assert_array_equal(found, expected)
