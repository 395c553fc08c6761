import itertools

import numpy as np
import pytest

from evoquant.bench.run import run_on_table
from evoquant.bench.table import OBJECTIVE, load_table
from evoquant.campaign.evaluate import as_evaluations
from evoquant.errors import InputError
from evoquant.genomes.direct import DirectSpace
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums
from evoquant.search.surrogate import SurrogateSearch, SurrogateSettings, front_vertices, prior_table
from evoquant.search.surrogate_kernel import likeness
from evoquant.search.surrogate_model import Measured, SurrogateModel

TABLE = load_table("digits-cnn")
SPACE = DirectSpace(TABLE.problem)
PRIOR = prior_table(TABLE.problem)


def measured(rows, error=0.0):
    allocations = TABLE.allocations(rows)
    loss = -np.log(np.maximum(TABLE.retention(rows), 0.02))
    return Measured(allocations, loss, np.full(len(rows), error), TABLE.divergence[rows].astype(np.float64))


def near_the_cliff(count, seed=0):
    (good,) = np.nonzero(TABLE.retention(np.arange(len(TABLE))) > 0.93)
    return generator_for(seed, 0, "rows").choice(good, count, replace=False)


def search(space=SPACE, seed=0, **settings):
    return SurrogateSearch(
        space, seed=seed, problem=TABLE.problem, objective=OBJECTIVE, settings=SurrogateSettings(batch=1, **settings)
    )


def test_the_compiled_sums_are_the_plain_ones():
    rng = generator_for(0, 0, "likeness")
    first, second = (rng.integers(0, 4, (n, 7)).astype(np.int8) for n in (5, 6))
    q, others = rng.random((5, 7)), rng.random((6, 7))
    found = likeness(first, q, np.ascontiguousarray(second.T), np.ascontiguousarray(others.T))
    same = first[:, None] == second[None]
    product = q[:, None] * others[None]
    assert np.allclose(found[0], product.sum(axis=2))
    assert np.allclose(found[1], (same * product).sum(axis=2))
    assert np.allclose(found[2], (same * np.sqrt(product)).sum(axis=2))


def test_what_was_measured_exactly_is_predicted_nearly_so_and_the_rest_is_uncertain():
    rows = near_the_cliff(60)
    model = SurrogateModel(PRIOR)
    model.fit(measured(rows[:40]))
    known, deviation = model.predict(TABLE.allocations(rows[:40]))
    truth = -np.log(TABLE.retention(rows[:40]))
    assert np.abs(known - truth).max() < 0.004
    elsewhere = model.predict(TABLE.allocations(rows[40:]))[1]
    assert np.median(elsewhere) > 2 * np.median(deviation)


def test_learning_beats_the_signal_alone():
    rows = near_the_cliff(160, seed=2)
    truth = -np.log(TABLE.retention(rows[60:]))
    errors = []
    for count in (2, 60):
        model = SurrogateModel(PRIOR)
        model.fit(measured(rows[:count]))
        errors.append(np.abs(model.predict(TABLE.allocations(rows[60:]))[0] - truth).mean())
    assert errors[1] < 0.95 * errors[0]


def test_noise_is_not_learnt_by_heart():
    rows = near_the_cliff(30)
    exact, noisy = SurrogateModel(PRIOR), SurrogateModel(PRIOR)
    exact.fit(measured(rows))
    noisy.fit(measured(rows, error=0.02))
    truth = -np.log(TABLE.retention(rows))
    off = [np.abs(model.predict(TABLE.allocations(rows))[0] - truth).mean() for model in (exact, noisy)]
    assert off[1] > 2 * off[0]


def test_vertices_are_the_convex_front_of_the_table():
    problem = TABLE.problem
    every = np.array(list(itertools.product(range(4), repeat=8)), dtype=np.int8)[::17]
    vertices = front_vertices(PRIOR, problem)
    units = np.arange(8)
    loss, cost = PRIOR[units, vertices].sum(axis=1), cost_sums(problem, vertices)
    others, costs = PRIOR[units, every].sum(axis=1), cost_sums(problem, every)
    for mine, size in zip(loss, cost, strict=True):
        assert not ((others < mine - 1e-12) & (costs < size)).any()
    assert len(vertices) > 4


def test_it_nears_the_true_optimum_in_fifty_measurements():
    best = run_on_table(search(), SPACE, TABLE, 50).best / TABLE.fitness[TABLE.optimum]
    assert best[9] > 0.9
    assert best[49] > 0.93


def test_a_failed_candidate_is_not_proposed_again():
    one = search()
    seen = set()
    for _ in range(6):
        batch = one.ask()
        key = batch.genes.tobytes()
        assert key not in seen
        seen.add(key)
        failed = TABLE.score(TABLE.rows(SPACE.allocate(batch.genes, TABLE.problem)))
        failed.retention[:] = np.nan
        one.tell(as_evaluations(batch, failed, SPACE, {0: "not_finite"}))
    assert len(seen) == 6
    assert not len(one._measured().loss)  # a failure teaches nothing


def test_a_search_that_hears_nothing_new_comes_to_its_end():
    one = search()
    batch = one.ask()
    told = as_evaluations(batch, TABLE.score(TABLE.rows(SPACE.allocate(batch.genes, TABLE.problem))), SPACE, {})
    one.tell(told)
    assert not one.done()
    state = one.state()
    state["barren"] = 6
    one.restore(state)
    assert one.done()


def test_a_profile_without_any_table_is_refused():
    problem = compile_problem(seed_profile("train"), SEED_MENU)
    assert prior_table(problem).shape == (len(problem.units), 5)  # measured losses will do
    bare = type(problem)(**{**vars_of(problem), "widths": {}})
    with pytest.raises(InputError, match=r"measure signals: \[fisher\]"):
        prior_table(bare)


def vars_of(problem):
    return {name: getattr(problem, name) for name in problem.__dataclass_fields__}
