import random
from functools import partial

import numpy as np
import pytest

from evoquant.errors import InputError, SearchError
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.strategies import STRATEGIES
from evoquant.search.base import FAILED
from evoquant.testing import check_search
from evoquant.testing.examples import evaluator, example_spaces

from ..search.outside import PROBLEM, goes_on, run

pytest.importorskip("pymoo")

from evoquant.search.outside_names import BY_FITNESS, FRONTS
from evoquant.search.pymoo_search import PymooSearch, PymooSettings

SPACES = example_spaces(PROBLEM)
RULES, DIRECT = SPACES["rules"], SPACES["direct"]
# Those that know no pop_size of their own.
OTHERS = {"CMAES": {}, "BIPOPCMAES": {}, "NelderMead": {}, "PatternSearch": {}, "G3PCX": {}} | {
    "BRKGA": {"n_elites": 3, "n_offsprings": 6, "n_mutants": 3, "eliminate_duplicates": False}
}
SLOW = ("AGEMOEA", "AGEMOEA2")  # compile


def search(algorithm="GA", space=RULES, seed=3, start=(), **settings):
    options = settings.pop("options", OTHERS.get(algorithm, {"pop_size": 8}))
    return PymooSearch(space, seed=seed, settings=PymooSettings(algorithm, options, **settings), start=start)


@pytest.mark.parametrize(("algorithm", "space"), [("GA", "rules"), ("NSGA2", "direct")])
def test_it_conforms(algorithm, space):
    settings = PymooSettings(algorithm, {"pop_size": 6}, floor=0.5 if algorithm in FRONTS else 0.0)
    check_search(partial(PymooSearch, settings=settings), spaces={space: SPACES[space]})


@pytest.mark.parametrize("algorithm", [name for name in (*BY_FITNESS, *FRONTS) if name not in SLOW])
def test_every_algorithm_repeats_and_goes_on_from_its_state(algorithm):
    second = goes_on(partial(search, algorithm), 4, stop=2)
    assert (second.archive().shape[0] > 0) == (algorithm in FRONTS)


def test_it_climbs_and_ends_above_where_it_began():
    seen = run(search("GA", DIRECT, options={"pop_size": 20}), 15)
    best = [float(evaluations.fitness.max()) for _, evaluations in seen]
    assert max(best[-3:]) > 1.05 * best[0]


def test_start_genomes_are_asked_first():
    for algorithm in ("GA", "PSO", "CMAES", "NSGA2"):
        asked = search(algorithm, start=[STRATEGIES["all_fp16"]]).ask().genes
        assert RULES.encode(STRATEGIES["all_fp16"]).tolist() in asked.tolist(), algorithm


def test_categories_and_whole_numbers_stay_what_they_are():
    for space in (RULES, DIRECT):
        for genes, _ in run(search("MixedVariableGA", space), 2):
            whole = [j for j, gene in enumerate(space.genes) if gene.kind in ("flag", "option", "width")]
            assert np.array_equal(genes[:, whole], np.rint(genes[:, whole]))
            assert len(np.unique(genes, axis=0)) > 4


def test_a_failed_candidate_is_worse_than_any():
    one = search("GA")
    tell = evaluator(RULES, PROBLEM)

    def evaluate(batch):
        evaluations = tell(batch)
        evaluations.fitness[0], evaluations.status[0] = np.nan, FAILED
        return evaluations

    run(one, 3, evaluate)
    told = one._population.get("F")[:, 0]
    assert told[0] == max(told)
    assert np.isfinite(told).all()


def test_a_front_keeps_its_floor_and_only_what_nothing_beats():
    one = search("NSGA2", DIRECT, floor=0.8, options={"pop_size": 16})
    run(one, 12)
    genes = one.archive()
    evaluations = evaluator(DIRECT, PROBLEM)(partial_batch(genes))
    retention, bits = evaluations.retention[:, 0], evaluations.effective_bits[:, 0]
    assert len(genes) > 2
    assert (retention >= 0.8).all()
    assert (np.diff(bits) > 0).all() and (np.diff(retention) > 0).all()


def partial_batch(genes):
    from evoquant.search.base import CandidateBatch

    return CandidateBatch(0, np.full((len(genes), 2), -1), ("x",) * len(genes), genes=genes)


def test_one_that_has_come_to_its_end_begins_anew():
    one = search("NelderMead", DirectSpace(PROBLEM), options={"n_sample_points": 3})
    flat = evaluator(one.space, PROBLEM)

    def evaluate(batch):
        evaluations = flat(batch)
        evaluations.fitness[:] = 1.0
        return evaluations

    run(one, 60, evaluate)
    assert one._restart > 0


def test_another_version_that_asks_otherwise_is_found_out():
    one = search()
    run(one, 2)
    state = one.state() | {"package": "pymoo 0.0.1"}
    state["told"][0]["fitness"][0] = 99.0
    with pytest.raises(SearchError, match=r"asks for other candidates than 'pymoo 0\.0\.1' did"):
        search().restore(state)
    with pytest.raises(SearchError, match="other candidates"):
        search(seed=4).restore(one.state())
    with pytest.raises(SearchError, match="other candidates"):  # another size of a generation
        search(options={"pop_size": 7}).restore(one.state())


def test_streams_of_the_process_are_left_alone():
    before, before_numpy = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(search("SPEA2"), 2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (before, before_numpy)  # noqa: NPY002
    assert np.random.default_rng().random() != np.random.default_rng().random()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search("GAA"), r"search\.algorithm: nothing is called 'GAA', .*module:Class\. Did you mean 'GA'"),
        (lambda: search(space=SPACES["trees"]), "tree genomes are none; use it with genome.kind: rule or direct"),
        (lambda: search(options={"pop_sise": 3}), r"GA has no option 'pop_sise'\. Did you mean 'pop_size'"),
        (
            lambda: run(search("CMAES", options={"wings": 3}), 1),
            "CMAES raised ValueError, .wings is not a valid option.*look at search.options",
        ),
        (lambda: run(search("MOEAD", floor=0.5), 1), "does not support any constraints"),
    ],
)
def test_faults_are_one_message(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_class_of_ones_own():
    from pymoo.algorithms.soo.nonconvex.ga import GA

    class Mine(GA):
        pass

    assert len(search(Mine).ask()) == 8
