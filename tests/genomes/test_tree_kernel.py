import dataclasses

import numpy as np
import pytest
from numba.core.caching import CompileResultCacheImpl

from evoquant.errors import ProfileError
from evoquant.genomes import tree_compiled, tree_kernel
from evoquant.genomes.expression import LARGEST, OPERATORS
from evoquant.genomes.tree import COMPILED_FROM, CONSTANT, TreeSpace
from evoquant.genomes.tree_numpy import fold
from evoquant.scoring import threads
from evoquant.scoring.compiled import compiled
from evoquant.scoring.separable import cost_sums, loss_sums

from .conftest import TREES, random_problem, random_trees

PROBLEMS = [
    *(random_problem(seed) for seed in range(100, 106)),
    random_problem(106, 2 * tree_kernel.TILE + 7),  # tiles, of which the last is not full
]


def row_of(tree):
    """Also for constants that no search has: 0, negative, huge."""
    row = np.array([gene.low for gene in TREES.genes])
    for i, token in enumerate(tree.expression):
        row[i] = TREES.tokens.index(token) if isinstance(token, str) else CONSTANT
        if not isinstance(token, str):
            row[TREES.max_nodes + i] = token
    return row


ROWS = np.array([row_of(tree) for tree in random_trees(600, seed=3)])


def alone(problem, rows=ROWS):
    return np.array([TREES.decode(row).allocate(problem) for row in rows])


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
    wanted = alone(problem)
    np.testing.assert_array_equal(together, wanted)
    np.testing.assert_array_equal(together[:9], TREES.allocate(ROWS[:9], problem))
    for rows, some in ((ROWS, wanted), (ROWS[:3], wanted[:3])):  # the second by NumPy
        losses, costs = TREES.sums(rows, problem)
        np.testing.assert_array_equal(losses, loss_sums(problem, some))
        np.testing.assert_array_equal(costs, cost_sums(problem, some))
        assert losses.dtype == costs.dtype == np.int64


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_operators_give_the_same_bits(operator):
    numbers = [0.0, 1.0, -1.0, 0.3, -7e-4, 3e55, -3e55, LARGEST, -LARGEST, 5e-324, -1e-300, 1 / 3]
    choices = [[0.0, 1.0] if kind == "flag" else numbers for kind in operator.args]
    grid = np.array(np.meshgrid(*choices)).reshape(len(choices), -1)
    n = grid.shape[1]
    v = np.zeros((4, n))
    v[1 : len(choices) + 1] = grid
    one, two, three, size = (np.uintp(i * n) for i in (1, 2, 3, 1))
    tree_kernel.apply(OPERATORS.index(operator) + 1, v.reshape(-1), np.uintp(0), one, two, three, size)
    wanted = np.array([float(fold(operator.name, *args)) for args in grid.T])
    # 0 and -0 are one cost, and no operator tells them apart
    np.testing.assert_array_equal((v[0] + 0.0).view(np.int64), (wanted + 0.0).view(np.int64))


def test_chunks_and_threads_change_nothing(monkeypatch):
    problem = PROBLEMS[0]
    wanted, sums = TREES.allocate(ROWS, problem), TREES.sums(ROWS, problem)
    parts = []
    evaluate = tree_kernel.evaluate
    monkeypatch.setattr(tree_kernel, "evaluate", lambda *args: (parts.append(len(args[1])), evaluate(*args)))
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    monkeypatch.setattr(tree_compiled, "THREADS_FROM", 1)
    monkeypatch.setattr(tree_compiled, "CHUNK", 77)
    np.testing.assert_array_equal(TREES.allocate(ROWS, problem), wanted)
    assert len(parts) > len(ROWS) / 77
    assert max(parts) == 77
    np.testing.assert_array_equal(TREES.sums(ROWS, problem), sums)


def test_chunks_hold_no_more_nodes_than_can_be_numbered(monkeypatch):
    problem = PROBLEMS[0]
    wanted = TREES.allocate(ROWS, problem)
    monkeypatch.setattr(tree_compiled, "MOST_NODES", 500)
    np.testing.assert_array_equal(TREES.allocate(ROWS, problem), wanted)
    assert tree_compiled.MOST_NODES < (1 << 20) == tree_kernel.ARGUMENT + 1


def test_rows_as_others_keep_them():
    problem = PROBLEMS[1]
    wanted = TREES.allocate(ROWS, problem)
    fixed = ROWS.copy()
    fixed.setflags(write=False)
    np.testing.assert_array_equal(TREES.allocate(fixed, problem), wanted)
    np.testing.assert_array_equal(TREES.allocate(np.asfortranarray(ROWS), problem), wanted)
    wide = np.repeat(ROWS, 2, axis=1)
    np.testing.assert_array_equal(TREES.allocate(wide[:, ::2], problem), wanted)


def test_rows_without_a_tree_take_the_narrowest_and_read_nothing():
    problem = dataclasses.replace(PROBLEMS[0], loss=None)
    rows = np.zeros((COMPILED_FROM, len(TREES.genes)))
    rows[1::2, : TREES.max_nodes] = 1.0  # operators without an end
    rows[2::4, 0] = CONSTANT
    rows[2::4, 1] = TREES.tokens.index("loss")  # behind the end
    narrowest = np.broadcast_to(problem.allowed.argmax(axis=1), (len(rows), len(problem.units)))
    np.testing.assert_array_equal(TREES.allocate(rows, problem), narrowest)


def test_codes_that_there_are_not_read_nobody_s_memory():
    problem = PROBLEMS[0]
    rows = np.zeros((4, len(TREES.genes)))
    rows[:, 0] = len(TREES.tokens), -1.0, np.nan, 1e300
    narrowest = np.broadcast_to(problem.allowed.argmax(axis=1), (len(rows), len(problem.units)))
    np.testing.assert_array_equal(tree_compiled.allocations(TREES, rows, problem), narrowest)


def test_a_signal_or_a_loss_that_the_profile_lacks_is_named():
    problem = dataclasses.replace(PROBLEMS[0], loss=None)
    bits = np.zeros((COMPILED_FROM, len(TREES.genes)))
    bits[:, 0] = TREES.tokens.index("mean_bits")
    assert TREES.allocate(bits, problem).shape == (COMPILED_FROM, len(problem.units))
    with pytest.raises(ProfileError, match="loss"):
        TREES.sums(bits, problem)
    bits[7, 0] = TREES.tokens.index("total_loss")
    with pytest.raises(ProfileError, match="total_loss"):
        TREES.allocate(bits, problem)


def test_a_menu_of_one_and_a_model_of_one_unit():
    one = random_problem(7, 2)
    first = dataclasses.replace(
        one,
        **{name: getattr(one, name)[:1] for name in ("units", "types", "position", "loss", "allowed")},
        scalars={name: values[:1] for name, values in one.scalars.items()},
        widths={name: {p: v[:1] for p, v in values.items()} for name, values in one.widths.items()},
        cost=dataclasses.replace(one.cost, table=one.cost.table[:1]),
    )
    np.testing.assert_array_equal(TREES.allocate(ROWS, first), alone(first))


def test_equal_trees_are_computed_once():
    space = TreeSpace(TREES.menu, (), ("loss", "bits"))
    mul, add, loss, bits = (space.tokens.index(token) for token in ("mul", "add", "loss", "bits"))
    rows = np.zeros((2, len(space.genes)))
    rows[:, space.max_nodes :] = 2.0
    rows[0, :7] = add, loss, mul, CONSTANT, mul, CONSTANT, bits
    rows[1, :7] = add, mul, mul, bits, CONSTANT, CONSTANT, loss  # the same, turned round
    read = np.zeros(len(space.tokens), dtype=bool)
    lengths, told = tree_kernel.survey(rows, space.arity, space.state_of, read)
    assert lengths.tolist() == [7, 7]
    assert not told.any()
    assert np.flatnonzero(read).tolist() == sorted((mul, add, CONSTANT, loss, bits))
    node, slots = np.zeros((32, tree_kernel.FIELDS), dtype=np.int64), np.full(64, -1, dtype=np.int32)
    node[:3, tree_kernel.OP], node[:3, tree_kernel.WIDE] = tree_kernel.LEAF, 1
    roots = np.zeros(2, dtype=np.int64)
    shape = (rows, np.arange(2), lengths, space.arity, space.state_of, np.zeros((2, 2)), 3, node, slots, roots)
    assert tree_kernel.grow(*shape) == 3 + 4  # the constant, two products and a sum
    assert roots[0] == roots[1] == 6


def test_compiles_where_machine_code_cannot_be_kept(monkeypatch):
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])

    def double(x):
        return x * 2

    assert compiled(double)(4) == 8
