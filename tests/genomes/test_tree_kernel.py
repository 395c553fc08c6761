import numpy as np
import pytest
from numba.core.caching import CompileResultCacheImpl

from evoquant.genomes import tree_kernel
from evoquant.genomes.expression import OPERATORS
from evoquant.genomes.tree import COMPILED_FROM, CONSTANT
from evoquant.genomes.tree_numpy import costs

from .conftest import TREES, random_problem, random_trees

STATE = {"mean_bits": np.float64(7.25), "total_loss": np.float64(0.1)}
PROBLEMS = [random_problem(seed) for seed in range(100, 106)]


def row_of(tree):
    """Also for constants that no search has: 0, negative, huge."""
    row = np.array([gene.low for gene in TREES.genes])
    for i, token in enumerate(tree.expression):
        row[i] = TREES.tokens.index(token) if isinstance(token, str) else CONSTANT
        if not isinstance(token, str):
            row[TREES.max_nodes + i] = token
    return row


ROWS = np.array([row_of(tree) for tree in random_trees(600, seed=3)])


def test_codes_are_the_space_s():
    assert tree_kernel.CONSTANT == CONSTANT
    assert [TREES.tokens[code] for code in (tree_kernel.ADD, tree_kernel.NOT, tree_kernel.WHERE)] == [
        "add",
        "not",
        "where",
    ]
    used = np.unique(ROWS[:, : TREES.max_nodes])
    assert set(range(1, len(OPERATORS) + 2)) <= set(used.astype(int).tolist())


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_allocates_as_each_tree_alone(problem):
    assert len(ROWS) >= COMPILED_FROM
    together = TREES.allocate(ROWS, problem)
    alone = [TREES.decode(row).allocate(problem) for row in ROWS]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[:9], TREES.allocate(ROWS[:9], problem))


def test_costs_are_the_same_bits():
    problem = PROBLEMS[0]
    codes = ROWS[:, : TREES.max_nodes].astype(np.int64)
    table = TREES.leaves(codes, problem)
    stack = np.empty((TREES.max_nodes + 1, table.shape[1]))
    for row, length, some in zip(ROWS, TREES.lengths(ROWS), codes, strict=True):
        constants = row[TREES.max_nodes :].copy()
        tree_kernel.cost(some, constants, length, table, TREES.state_of, np.array(list(STATE.values())), stack)
        wanted = costs(TREES.decode(row).expression, problem, STATE).reshape(-1)
        np.testing.assert_array_equal(stack[0] + 0.0, wanted + 0.0)  # 0 and -0 are one cost
        assert np.isfinite(stack[0]).all()


def test_compiles_where_machine_code_cannot_be_kept(monkeypatch):
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])

    def double(x):
        return x * 2

    assert tree_kernel.compiled(double)(4) == 8
