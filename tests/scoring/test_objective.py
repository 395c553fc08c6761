import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst, combine, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums


def column(*values):
    return np.array(values, dtype=np.float64)


def fitness(objective, retention, compression=4.0, bits=8.0):
    return float(objective.score(column(retention), column(compression), column(bits))[0])


def test_cliff():
    assert fitness(Cliff(), 0.949999) == pytest.approx(0.0949999)
    assert fitness(Cliff(), 0.95) == 4.0
    assert fitness(Cliff(), 1.0) == pytest.approx(8.0)
    assert fitness(Cliff(0.9), 0.95) == pytest.approx(4.0 * 1.5)


@given(st.floats(0, 1), st.floats(1, 16), st.floats(0.5, 0.99))
def test_cliff_against_the_formula(retention, compression, threshold):
    expected = (
        0.1 * retention if retention < threshold else compression * (1 + (retention - threshold) / (1 - threshold))
    )
    assert fitness(Cliff(threshold), retention, compression) == pytest.approx(expected)


def test_feasible_first():
    assert fitness(FeasibleFirst(0.95), 0.95) == 4.0
    assert fitness(FeasibleFirst(0.95), 1.0) == 4.0
    assert fitness(FeasibleFirst(0.95), 0.9) == pytest.approx(-0.1)


def test_budget():
    assert fitness(BitBudget(8.0), 0.9, bits=8.0) == 0.9
    assert fitness(BitBudget(8.0), 0.9, bits=4.0) == 0.9
    assert fitness(BitBudget(8.0), 0.9, bits=10.0) == pytest.approx(-0.25)


def model(name, shape, constant_bits=0):
    layers = (LayerProfile("a", "Conv", shape, 0.0), LayerProfile("b", "Conv", (3,), 1.0))
    return compile_problem(ModelProfile(name, layers, constant_bits), SEED_MENU)


def test_score_counts_the_constant_on_both_sides():
    problem = model("m", (5,), constant_bits=64)
    allocations = np.array([[4, 4], [0, 3]], dtype=np.int8)
    costs = cost_sums(problem, allocations)[:, None]
    scores = score(FeasibleFirst(0.5), (problem,), np.ones((2, 1)), costs)
    bits = 5 * 2 + 3 * 16
    assert scores.compression[:, 0].tolist() == [1.0, (8 * 32 + 64) / (bits + 64)]
    assert scores.effective_bits[:, 0].tolist() == [32.0, bits / 8]
    assert scores.cost.tolist() == [(8 * 32 + 64) * 1024, (bits + 64) * 1024]


def test_score_clips_inside_and_stores_as_it_is():
    problem = model("m", (5,))
    costs = np.full((3, 1), problem.cost.reference)
    scores = score(Cliff(), (problem,), np.array([[1.2], [-0.3], [np.nan]]), costs)
    assert scores.fitness[0] == pytest.approx(2.0)
    assert scores.fitness[1] == 0.0
    assert np.isnan(scores.fitness[2])
    np.testing.assert_array_equal(scores.retention, [[1.2], [-0.3], [np.nan]])


def test_score_over_several_models():
    problems = (model("m", (5,)), model("n", (50,)))
    allocations = np.array([[3, 3]], dtype=np.int8)
    costs = np.stack([cost_sums(problem, allocations) for problem in problems], axis=1)
    scores = score(FeasibleFirst(0.9), problems, np.array([[0.95, 0.5]]), costs)
    assert scores.per_model.tolist() == [[2.0, -0.5]]
    assert scores.fitness.tolist() == [0.75]
    assert scores.cost.tolist() == [costs.sum()]


def test_combine():
    rows = np.array([[1.0, 4.0], [2.0, 2.0], [0.0, 9.0], [-1.0, 9.0]])
    assert combine(rows, "mean").tolist() == [2.5, 2.0, 4.5, 4.0]
    assert combine(rows, "min").tolist() == [1.0, 2.0, 0.0, -1.0]
    assert combine(rows, "geometric").tolist() == pytest.approx([2.0, 2.0, 0.0, -1.0])


@pytest.mark.parametrize("aggregate", ["mean", "min", "geometric"])
def test_combine_takes_one_model_as_it_is_and_keeps_failures(aggregate):
    values = np.array([[0.1], [3.884304999999999]])
    assert combine(values, aggregate).tolist() == values[:, 0].tolist()
    assert np.isnan(combine(np.array([[np.nan, 2.0]]), aggregate)).all()
