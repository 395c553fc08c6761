"""What is raced is the same: all ways score alike, mutate alike, and quality counts as reached only where it was."""

import numpy as np
import pytest

from evoquant.bench.speed_engine import CAMPAIGN, DEAP, Task, Trace, campaign, mutated, to_quality
from evoquant.genomes.base import mutate_genes, tidy
from evoquant.rng import generator_for


@pytest.fixture(scope="module")
def task():
    return Task()


def test_one_by_one_and_in_one_call_score_the_same(task):
    rows = task.space.canonical(task.space.sample(generator_for(0, 0, "test"), 50))
    np.testing.assert_allclose([task.one(row) for row in rows], task.fitness(rows), rtol=1e-12)


def test_the_rivals_mutation_is_spread_as_ours(task):
    rng, genes, n = generator_for(0, 0, "test"), task.space.genes, 3000
    rows = task.space.sample(rng, n)
    theirs = np.array([mutated(row.tolist(), genes, 1.0, rng) for row in rows])
    np.testing.assert_array_equal(tidy(genes, theirs), theirs)
    ours = mutate_genes(genes, rows, rng)
    for j, gene in enumerate(genes):
        for cut in np.quantile(ours[:, j], [0.2, 0.5, 0.8]):
            assert abs((ours[:, j] <= cut).mean() - (theirs[:, j] <= cut).mean()) < 0.06, gene
    unchanged = [mutated(row.tolist(), genes, 0.0, rng) for row in rows[:20]]
    np.testing.assert_array_equal(unchanged, rows[:20])


def test_a_campaign_leaves_a_trace_of_every_generation():
    trace = campaign(0, population=20, generations=4)
    assert len(trace.at) == 4 and trace.best == sorted(trace.best) and trace.at == sorted(trace.at)


def traced(best, at):
    trace = Trace()
    trace.best, trace.at = best, at
    return trace


def test_time_to_quality_says_how_often_it_was_reached():
    ours, theirs = traced([1.0, 3.0], [1.0, 2.0]), traced([1.0, 2.0], [5.0, 8.0])
    assert ours.rate == 1.0 and ours.reached(2.5) == (2.0, True) and theirs.reached(2.5) == (8.0, False)
    (found,) = to_quality({CAMPAIGN: [ours], DEAP: [theirs]}, {DEAP: 20.0}, 2.5)
    assert found.values == (4.0,) and f"{DEAP} 0;" in found.remark
