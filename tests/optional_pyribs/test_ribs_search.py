from functools import partial

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.genomes.strategies import STRATEGIES
from evoquant.search.base import FAILED
from evoquant.testing import check_search
from evoquant.testing.examples import evaluator, example_spaces

from ..search.outside import PROBLEM, goes_on, run

pytest.importorskip("ribs")

from evoquant.search.ribs_search import RibsSearch, RibsSettings

SPACES = example_spaces(PROBLEM)
RULES = SPACES["rules"]
GENETIC = {"operator": "gaussian", "operator_kwargs": {"sigma": 0.1}}


def search(emitter="GaussianEmitter", space=RULES, seed=3, start=(), **options):
    settings = RibsSettings(emitter, options, emitters=2, batch=6)
    return RibsSearch(space, seed=seed, settings=settings, start=start)


def test_it_conforms():
    settings = RibsSettings("IsoLineEmitter", emitters=2, batch=4)
    check_search(partial(RibsSearch, settings=settings), spaces={name: SPACES[name] for name in ("rules", "direct")})


@pytest.mark.parametrize(
    ("emitter", "options"),
    [
        ("EvolutionStrategyEmitter", {"es": "openai_es"}),  # the only one that compiles nothing
        ("GaussianEmitter", {"sigma": 0.1}),
        ("GeneticAlgorithmEmitter", GENETIC),
    ],
)
def test_every_emitter_repeats_and_goes_on_from_its_state(emitter, options):
    goes_on(partial(search, emitter, **options), 4, stop=2)


def test_the_archive_holds_the_best_of_each_cell():
    one = search("IsoLineEmitter")
    seen = run(one, 10)
    genes = np.concatenate([rows for rows, _ in seen])
    fitness = np.concatenate([evaluations.fitness for _, evaluations in seen])
    parts = np.concatenate([evaluations.parts for _, evaluations in seen])
    kept = one.archive()
    assert 2 < len(kept) < len(genes)
    asked = {row.tobytes(): value for row, value in zip(genes, fitness, strict=True)}
    assert all(row.tobytes() in asked for row in kept)
    assert max(asked[row.tobytes()] for row in kept) == fitness.max()
    of = {row.tobytes(): int(count) for row, count in zip(genes, parts, strict=True)}
    counts = [of[row.tobytes()] for row in kept]
    assert counts == sorted(counts)


def test_a_failed_candidate_is_not_added():
    one = search()
    tell = evaluator(RULES, PROBLEM)
    good = set()

    def lose(batch, rows):
        evaluations = tell(batch)
        evaluations.fitness[rows], evaluations.status[rows] = np.nan, FAILED
        good.update(row.tobytes() for row in np.delete(batch.genes, rows, axis=0))
        return evaluations

    run(one, 1, lambda batch: lose(batch, np.arange(len(batch))))
    assert len(one.archive()) == 0
    run(one, 4, lambda batch: lose(batch, np.arange(0, len(batch), 2)))
    kept = {row.tobytes() for row in one.archive()}
    assert kept and kept <= good


def test_start_genomes_are_asked_beside_the_first_generation():
    one = search(start=[STRATEGIES["all_fp16"]])
    (genes, _), (later, _) = run(one, 2)
    assert genes[0].tolist() == RULES.encode(STRATEGIES["all_fp16"]).tolist()
    assert (len(genes), len(later)) == (13, 12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: search("Gaussian"),
            r"search\.emitter: .*'Gaussian', nor .*module:Class\. .*GaussianEmitter",
        ),
        (lambda: search(space=SPACES["trees"]), "tree genomes are none"),
        (
            lambda: search("EvolutionStrategyEmitter", ranker="best"),
            "pyribs: EvolutionStrategyEmitter raised ValueError, .*look at search.options",
        ),
    ],
)
def test_faults_are_one_message(make, message):
    with pytest.raises(InputError, match=message):
        make()
