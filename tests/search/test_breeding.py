"""Compiled operators of large populations: what they make is of the space, repeats, and is spread as NumPy's is."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from evoquant.genomes.base import ALWAYS, Gene, Linkage, NumericOperators, sample_genes, tidy
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.genomes.strategies import STRATEGIES
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring import threads
from evoquant.scoring.rows_kernel import hash_rows
from evoquant.search.base import LARGE, NO_PARENT
from evoquant.search.breeding import THREADS_FROM, Survivors, breeder_of, with_room
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.variation import children
from evoquant.testing.searches import check_search

RULES = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
SIZES = RuleSpace(SEED_MENU, (), ("parameters",), 1)  # no types, thresholds up to 1e12, a ladder of one rung
BARE = RuleSpace(SEED_MENU, ("Linear",), (), 0)  # no rungs
SPACES = {"rules": RULES, "sizes": SIZES, "bare": BARE}
N = 4000


def stream(generation=0):
    return generator_for(3, generation, "variation")


def survivors_of(space, n=N, *, fitness=None):
    genes = space.canonical(space.sample(stream(99), n))
    fitness = np.zeros(n) if fitness is None else fitness
    return Survivors(genes, np.arange(n), fitness, np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64))


def bred(space, survivors, n=N, generation=0, **settings):
    breeder = breeder_of(space)
    return breeder.children(survivors, stream(generation), n, GeneticSettings(**settings), first_id=N)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_what_is_made_is_within_the_limits_written_short_and_canonical(space):
    first = breeder_of(space).newcomers(stream(), N)
    low, high = (np.array([getattr(gene, side) for gene in space.genes]) for side in ("low", "high"))
    genes, parents = first.genes, survivors_of(space)
    for generation in range(4):
        assert (genes >= low).all() and (genes <= high).all()
        np.testing.assert_array_equal(tidy(space.genes, genes), genes)
        np.testing.assert_array_equal(space.canonical(genes), genes)
        parents = dataclasses.replace(parents, genes=genes)
        genes = bred(space, parents, generation=generation, mutation_rate=0.4).genes
        assert len(np.unique(genes, axis=0)) > 100


def test_the_number_of_threads_changes_nothing(monkeypatch):
    n, found = THREADS_FROM + 7, []
    for count in (1, 3):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        batch = bred(RULES, survivors_of(RULES), n)
        found.append((batch.genes.tobytes(), batch.parents.tobytes(), batch.operators.codes.tobytes()))
        found.append(breeder_of(RULES).newcomers(stream(), n).genes.tobytes())
    assert found[:2] == found[2:]


def test_each_generation_and_row_has_a_stream_of_its_own():
    one, other = (bred(RULES, survivors_of(RULES), generation=generation).genes for generation in (0, 1))
    assert (one != other).any(axis=1).mean() > 0.99
    assert len(np.unique(breeder_of(RULES).newcomers(stream(), N).genes, axis=0)) > 0.95 * N


def close(a, b, n=N, sigmas=5.0):
    """Whether two shares of n draws each may be of one distribution."""
    return abs(a - b) <= sigmas * np.sqrt(max(a + b, 4.0 / n) / n)


RATES = {"crossover_rate": 0.6, "mutation_rate": 0.2, "immigrant_rate": 0.1}


@pytest.mark.parametrize(
    "rates", [RATES, RATES | {"crossover_rate": 0.0}, RATES | {"mutation_rate": 0.0, "immigrant_rate": 0.0}]
)
def test_the_operators_are_numpys_within_the_error_of_sampling(rates):
    parents = survivors_of(RULES)
    ours = bred(RULES, parents, **rates)
    rng = stream()
    chosen = rng.integers(0, N, (N, 2))
    theirs = children(RULES, parents.genes[chosen], chosen, rng, GeneticSettings(**rates), first_id=N)
    for name in ("random", "crossover", "mutation", "copy"):
        assert close(*(sum(o == name for o in batch.operators) / N for batch in (ours, theirs))), name
    for column in range(2):
        assert close(*((batch.parents[:, column] == NO_PARENT).mean() for batch in (ours, theirs)))
    for j, gene in enumerate(RULES.genes):
        for cut in np.unique(theirs.genes[:, j])[:: 1 if gene.kind != "log" else 7]:
            assert close(*((batch.genes[:, j] <= cut).mean() for batch in (ours, theirs))), (gene, cut)
    changed = [
        np.array([(batch.genes[row] != parents.genes[batch.parents[row, 0]]).mean() for row in range(N)])
        for batch in (ours, theirs)
    ]
    assert abs(changed[0].mean() - changed[1].mean()) < 5 * np.hypot(*(c.std() / np.sqrt(N) for c in changed))


def test_newcomers_are_spread_as_numpys():
    ours, theirs = breeder_of(RULES).newcomers(stream(), N).genes, RULES.canonical(RULES.sample(stream(), N))
    for j, gene in enumerate(RULES.genes):
        for cut in np.unique(theirs[:, j])[:: 1 if gene.kind != "log" else 7]:
            assert close((ours[:, j] <= cut).mean(), (theirs[:, j] <= cut).mean()), (gene, cut)


def test_the_tournament_goes_by_fitness_then_parts_then_cost_then_lot():
    parents = survivors_of(RULES, 4, fitness=np.array([1.0, 2.0, 2.0, 2.0]))
    parents = dataclasses.replace(parents, parts=np.array([0, 1, 1, 2]), cost=np.array([1, 5, 5, 1]))
    shares = np.bincount(bred(RULES, parents, tournament=2, immigrant_rate=0.0).parents[:, 0], minlength=4) / N
    expected = np.array([1 / 16, 3 / 8, 3 / 8, 3 / 16])  # 1 and 2 beat 3, all beat 0
    assert all(close(a, b) for a, b in zip(shares, expected, strict=True)), shares


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_hashes_and_parts_are_those_of_the_rows(space):
    first = breeder_of(space).newcomers(stream(), N, start=[STRATEGIES["all_fp16"]], room=3)
    parents = dataclasses.replace(survivors_of(space), genes=first.genes)
    for batch in (first, bred(space, parents, mutation_rate=0.4)):
        hashes = np.empty(N, dtype=np.uint64)
        hash_rows(np.ascontiguousarray(batch.genes).view(np.uint64), 0, N, hashes)
        np.testing.assert_array_equal(batch.hashes, hashes)
        np.testing.assert_array_equal(batch.parts, space.parts(batch.genes))


def test_survivors_lie_before_the_children_without_a_copy_where_there_is_room():
    batch = breeder_of(RULES).newcomers(stream(), 50, room=3)
    genes, before = batch.genes.copy(), survivors_of(RULES, 4).genes
    assert with_room(batch.genes, before) is None  # one too many
    whole = with_room(batch.genes, before[:2])
    np.testing.assert_array_equal(whole, np.concatenate([before[:2], genes]))
    assert np.shares_memory(whole, batch.genes)
    np.testing.assert_array_equal(batch.genes, genes)
    assert with_room(genes, before[:1]) is None and with_room(batch.genes[:20], before[:1]) is None


def test_what_a_large_search_has_handed_out_stays_as_it_was(drive):
    search = GeneticSearch(RULES, seed=5, settings=GeneticSettings(population=LARGE, tune_rate=0.1))
    drive(search, 2)
    kept = search.snapshot()()
    before = {key: np.copy(value) for key, value in kept.items()}
    seen = [(batch, batch.genes.copy()) for batch, _ in drive(search, 3)]
    for key, value in kept.items():
        np.testing.assert_array_equal(value, before[key])
    for batch, genes in seen:
        np.testing.assert_array_equal(batch.genes, genes)


class Waiting(NumericOperators):
    """A space of every kind of gene, where the last waits for either of two flags."""

    kind = "waiting"
    genes = (
        *(Gene(f"flag {i}", "flag", 0, 1, 0) for i in range(2)),
        *(Gene(f"option {i}", "option", 0, 3, 70) for i in range(2)),
        Gene("width", "width", 0, 4, 1),
        Gene("fraction", "fraction", 0, 0.5, 2),
        Gene("threshold", "log", 1e-5, 1.0, 3),
    )
    linkage = Linkage((*((ALWAYS,) * 6), (0, 2)), (2, 1, 2))

    def sample(self, rng, n):
        return sample_genes(self.genes, rng, n)


def test_any_space_whose_linkage_is_data_is_bred():
    batch = breeder_of(Waiting()).newcomers(stream(), N)
    parents = Survivors(batch.genes, np.arange(N), np.zeros(N), np.zeros(N, int), np.zeros(N, int))
    genes = bred(Waiting(), parents, mutation_rate=0.5).genes
    on = genes[:, :2].any(axis=1)
    assert (genes[~on, 6] == 1e-5).all() and (genes[on, 6] > 1e-5).mean() > 0.7
    assert not ((genes[:, 2] == 0) & (genes[:, 3] > 0)).any() and (genes[:, 2:4] > 0).all(axis=1).any()
    np.testing.assert_array_equal(tidy(Waiting.genes, genes), genes)


def test_spaces_with_operators_of_their_own_are_not_bred(direct):
    class Own(RuleSpace):
        def mutate(self, genes, rate, rng):
            return genes

    assert breeder_of(direct) is None
    assert breeder_of(Own(SEED_MENU, LAYER_TYPES, (), 0)) is None


def test_a_large_search_keeps_what_every_search_does(evaluate):
    settings = GeneticSettings(population=LARGE, elites=3)

    def make():
        return GeneticSearch(RULES, seed=5, settings=settings, start=[STRATEGIES["all_fp16"]])

    assert make().ask().operators[:2] == ("start", "random")
    check_search(make, lambda batch: evaluate(RULES, batch))


def test_a_large_search_may_tune_and_keep_forms(drive):
    settings = GeneticSettings(population=LARGE, elites=5, elite_forms=True, tune_rate=0.3, parsimony=0.001)
    seen = drive(GeneticSearch(RULES, seed=5, settings=settings), 4)
    share = sum(operator == "tune" for operator in seen[-1][0].operators) / LARGE
    assert close(share, 0.3, LARGE)


def test_the_best_of_a_large_search_survive(drive):
    search = GeneticSearch(RULES, seed=5, settings=GeneticSettings(population=LARGE))
    best = max(evaluations.fitness.max() for _, evaluations in drive(search, 8))
    assert max(search.state()["fitness"]) == best


def test_small_populations_load_no_compiler():
    code = (
        "import sys; from evoquant.genomes.rule import *; from evoquant.quantization.precision import SEED_MENU\n"
        "from evoquant.search.genetic import *\n"
        "search = GeneticSearch(RuleSpace(SEED_MENU, LAYER_TYPES, (), 0), seed=0, settings=GeneticSettings(999))\n"
        "search.ask(); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
