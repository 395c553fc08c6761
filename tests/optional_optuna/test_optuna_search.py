from functools import partial

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.genomes.strategies import STRATEGIES
from evoquant.search.base import FAILED
from evoquant.testing import check_search
from evoquant.testing.examples import evaluator, example_spaces

from ..search.outside import PROBLEM, goes_on, run

pytest.importorskip("optuna")

from evoquant.search.optuna_search import OptunaSearch, OptunaSettings

SPACES = example_spaces(PROBLEM)
RULES = SPACES["rules"]


def search(sampler="TPESampler", space=RULES, seed=3, batch=3, start=(), **options):
    return OptunaSearch(space, seed=seed, settings=OptunaSettings(sampler, options, batch), start=start)


def test_it_conforms():
    settings = OptunaSettings("NSGAIISampler", {"population_size": 4}, batch=2)
    check_search(partial(OptunaSearch, settings=settings), spaces={"rules": RULES})


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("TPESampler", {"n_startup_trials": 4}),
        ("CmaEsSampler", {"n_startup_trials": 2}),
        ("NSGAIIISampler", {"population_size": 4}),
        ("QMCSampler", {"scramble": True}),
        ("RandomSampler", {}),
    ],
)
def test_every_sampler_repeats_and_goes_on_from_its_state(sampler, options):
    goes_on(partial(search, sampler, **options), 5, stop=3)


def test_start_genomes_are_asked_first():
    asked = search(start=[STRATEGIES["all_fp16"], STRATEGIES["uniform_int8"]]).ask().genes
    wanted = [RULES.encode(STRATEGIES[name]) for name in ("all_fp16", "uniform_int8")]
    assert np.array_equal(asked[:2], RULES.canonical(np.array(wanted)))


def test_a_failed_candidate_is_a_failed_trial():
    from optuna.trial import TrialState

    one = search("RandomSampler")
    tell = evaluator(RULES, PROBLEM)

    def evaluate(batch):
        evaluations = tell(batch)
        evaluations.fitness[1], evaluations.status[1] = np.nan, FAILED
        return evaluations

    run(one, 2, evaluate)
    states = [trial.state for trial in one._study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE] * 2
    assert one.state()["told"][0]["fitness"][1] is None


def test_the_log_level_of_the_process_is_left_alone():
    import optuna

    before = optuna.logging.get_verbosity()
    search("RandomSampler").ask()
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search("TPE"), r"search\.sampler: nothing is called 'TPE', nor .*module:Class\..*TPESampler"),
        (lambda: search(space=SPACES["trees"]), "tree genomes are none"),
        (lambda: search(wings=2), "search.kind: optuna: TPESampler raised TypeError, .*look at search.options"),
    ],
)
def test_faults_are_one_message(make, message):
    with pytest.raises(InputError, match=message):
        make()
