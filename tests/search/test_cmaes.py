import json
import os
import subprocess
import sys

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.genomes.base import Gene, NumericOperators, sample_genes
from evoquant.genomes.tree import TreeSpace
from evoquant.quantization.precision import SEED_MENU
from evoquant.search.base import FAILED, OK, EvaluationBatch
from evoquant.search.cmaes import CmaesSearch, CmaesSettings
from evoquant.search.unit import from_unit

GENES = (
    *(Gene(f"fraction {i}", "fraction", 0.0, 0.5, i) for i in range(3)),
    *(Gene(f"log {i}", "log", 1e-6, 1.0, i) for i in range(3)),
    *(Gene(f"flag {i}", "flag", 0, 1, i) for i in range(4)),
    *(Gene(f"width {i}", "width", 0, 4, i) for i in range(4)),
    Gene("fixed", "width", 2, 2, 9),
)
BEST = np.array([0.2, 0.0, 0.4, 1e-3, 1e-5, 1e-1, 1, 0, 1, 0, 3, 1, 4, 0, 2])


class Toy(NumericOperators):
    """Genes without a genome; fitness is minus the distance to `BEST`, gene by gene."""

    kind = "toy"
    genes = GENES

    def sample(self, rng, n):
        return sample_genes(self.genes, rng, n)

    def canonical(self, genes):
        return genes


def told(genes, failed=()):
    n = len(genes)
    off = np.abs(genes - BEST)
    off[:, 3:6] = np.abs(np.log10(genes[:, 3:6]) - np.log10(BEST[3:6])) / 6
    off[:, :3] *= 2
    off[:, 10:14] /= 4
    fitness = -(off**2).sum(axis=1)
    fitness[list(failed)] = np.nan
    status = np.full(n, OK, dtype=np.int8)
    status[list(failed)] = FAILED
    zeros = np.zeros((n, 1))
    return EvaluationBatch(
        fitness, np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64), zeros, zeros, zeros, status, {}, str
    )


def run(search, generations):
    batches, best = [], []
    for _ in range(generations):
        batch = search.ask()
        evaluations = told(batch.genes)
        search.tell(evaluations)
        batches.append(batch)
        best.append(float(evaluations.fitness.max()))
    return batches, best


def test_it_rises_to_the_optimum_of_a_separable_mixed_problem():
    batches, best = run(CmaesSearch(Toy(), seed=1), 150)
    assert max(best) > -1e-3 > max(best[:3])
    last = max((row for batch in batches for row in batch.genes), key=lambda row: told(row[None]).fitness[0])
    assert np.array_equal(last[6:], BEST[6:])
    assert last[1] == 0.0  # a fraction can be switched off


def test_genes_are_on_their_own_scales():
    genes = from_unit(GENES[:14], np.tile(np.array([[0.0], [0.25], [0.625], [1.0]]), (1, 14)))
    assert genes[:, 0].tolist() == pytest.approx([0.0, 0.0, 0.25, 0.5])
    assert genes[:, 3].tolist() == pytest.approx([1e-6, 10**-4.5, 10**-2.25, 1.0])
    assert genes[:, 6].tolist() == [0, 0, 1, 1]
    assert genes[:, 10].tolist() == [0, 1, 2, 4]


def test_what_is_asked_is_within_limits_and_whole_where_it_has_to_be():
    batches, _ = run(CmaesSearch(Toy(), seed=2, settings=CmaesSettings(sigma=1.0)), 20)
    genes = np.concatenate([batch.genes for batch in batches])
    for j, gene in enumerate(GENES):
        assert (genes[:, j] >= gene.low).all() and (genes[:, j] <= gene.high).all()
        if gene.kind in ("flag", "width"):
            assert np.array_equal(genes[:, j], np.rint(genes[:, j]))
            assert len(np.unique(genes[:, j])) == gene.high - gene.low + 1


def test_it_restarts_with_a_larger_population_when_it_has_converged():
    search = CmaesSearch(Toy(), seed=1, settings=CmaesSettings(population=8))
    batches, _ = run(search, 400)
    sizes = [len(batch) for batch in batches]
    assert sizes[0] == 8 and set(sizes) >= {8, 16}
    assert sizes == sorted(sizes)
    ids = [batch.first_id for batch in batches]
    assert ids == [sum(sizes[:i]) for i in range(len(sizes))]
    plain = CmaesSearch(Toy(), seed=1, settings=CmaesSettings(population=8, growth=1.0))
    assert {len(batch) for batch in run(plain, 400)[0]} == {8}
    assert plain.state()["restarts"] > 0


def test_a_state_from_the_middle_of_a_later_start_goes_on_identically():
    search = CmaesSearch(Toy(), seed=1, settings=CmaesSettings(population=8))
    while search.state()["restarts"] == 0 or len(search.state()["told"]) < 7:
        run(search, 1)
    other = CmaesSearch(Toy(), seed=1, settings=CmaesSettings(population=8))
    other.restore(json.loads(json.dumps(search.state())))
    ours, theirs = run(search, 10)[0], run(other, 10)[0]
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.first_id == its.first_id and np.array_equal(mine.genes, its.genes)


def test_failed_rows_rank_last():
    # Whatever lies on one side fails: the distribution has to move to the other.
    search = CmaesSearch(Toy(), seed=3, settings=CmaesSettings(population=12))
    for _ in range(60):
        batch = search.ask()
        search.tell(told(batch.genes, np.flatnonzero(batch.genes[:, 0] < 0.3).tolist()))
    assert (search.ask().genes[:, 0] >= 0.3).mean() > 0.5


def test_a_generation_that_failed_whole_is_followed_by_another_of_the_same_distribution():
    search = CmaesSearch(Toy(), seed=3)
    first = search.ask()
    search.tell(told(first.genes, range(len(first))))
    mean = search._cma.mean.copy()
    second = search.ask()
    assert not np.array_equal(first.genes, second.genes)
    search.tell(told(second.genes, range(len(second))))
    assert np.array_equal(mean, search._cma.mean)
    other = CmaesSearch(Toy(), seed=3)
    other.restore(search.state())
    assert np.array_equal(search.ask().genes, other.ask().genes)


def test_it_names_what_it_can_search():
    trees = TreeSpace(SEED_MENU, (), ("loss", "bits"))
    with pytest.raises(InputError, match=r"tree genomes.*genome\.kind: rule or direct"):
        CmaesSearch(trees, seed=0)

    class Fixed(Toy):
        genes = GENES[-2:]

    with pytest.raises(InputError, match=r"at least 2 genes"):
        CmaesSearch(Fixed(), seed=0)


def test_failures_of_rules(rules, survives_failures):
    survives_failures(CmaesSearch(rules, seed=3))


def test_the_number_of_threads_changes_nothing():
    script = """
import hashlib, sys
import numpy as np
from evoquant.genomes.direct import DirectSpace
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem
from evoquant.search.base import EvaluationBatch
from evoquant.search.cmaes import CmaesSearch
search, digest = CmaesSearch(DirectSpace(compile_problem(seed_profile("train"), SEED_MENU)), seed=3), hashlib.sha256()
for _ in range(12):
    genes = search.ask().genes
    digest.update(genes.tobytes())
    n, zeros = len(genes), np.zeros((len(genes), 1))
    whole = np.zeros(n, dtype=np.int64)
    fitness = -((genes - 2.0) ** 2).sum(axis=1)
    search.tell(EvaluationBatch(fitness, whole, whole, zeros, zeros, zeros, np.zeros(n, dtype=np.int8), {}, str))
print(digest.hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1
