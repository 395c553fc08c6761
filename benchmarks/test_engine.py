"""A generation of a large population: bred by the compiled operators and by NumPy's, and copies found by hash.

python -m pytest benchmarks/test_engine.py        (the table shows each mean, and its ratio to the fastest)
"""

import numpy as np
import pytest

from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.rows_kernel import distinct_rows
from evoquant.search.breeding import Survivors, breeder_of
from evoquant.search.genetic import GeneticSettings
from evoquant.search.variation import children

N = 100_000
SPACE = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
SETTINGS = GeneticSettings(population=N)
GENES = SPACE.canonical(SPACE.sample(generator_for(0, 0, "benchmark"), N))
IDS = np.arange(N)
ONES = np.ones(N, dtype=np.int64)
FITNESS = generator_for(0, 0, "fitness").random(N)


@pytest.mark.benchmark(group=f"{N} children", disable_gc=True)
def test_compiled_operators(benchmark):
    breeder, survivors = breeder_of(SPACE), Survivors(GENES, IDS, FITNESS, ONES, ONES)
    made = benchmark.pedantic(
        lambda: breeder.children(survivors, generator_for(0, 1, "variation"), N, SETTINGS), rounds=5, warmup_rounds=1
    )
    assert made.genes.shape == GENES.shape


@pytest.mark.benchmark(group=f"{N} children", disable_gc=True)
def test_numpy_operators(benchmark):
    def breed():
        rng = generator_for(0, 1, "variation")
        rank = np.argsort(np.argsort(-FITNESS))
        contestants = rng.integers(0, N, (N, 2, SETTINGS.tournament))
        best = rank[contestants].argmin(axis=2)
        chosen = np.take_along_axis(contestants, best[:, :, None], axis=2)[:, :, 0]
        return children(SPACE, GENES[chosen], IDS[chosen], rng, SETTINGS)

    made = benchmark.pedantic(breed, rounds=3, warmup_rounds=1)
    assert made.genes.shape == GENES.shape


@pytest.mark.benchmark(group=f"copies among {N} rows", disable_gc=True)
def test_copies_by_hash(benchmark):
    firsts, _ = benchmark.pedantic(lambda: distinct_rows(GENES.view(np.uint64)), rounds=5, warmup_rounds=1)
    assert len(firsts) <= N


@pytest.mark.benchmark(group=f"copies among {N} rows", disable_gc=True)
def test_copies_by_sorting(benchmark):
    rows = benchmark.pedantic(lambda: np.unique(GENES, axis=0), rounds=2, warmup_rounds=0)
    assert len(rows) == len(distinct_rows(GENES.view(np.uint64))[0])
