import numpy as np
import pytest

from evoquant.campaign.build import LAYER_TYPES
from evoquant.campaign.evaluate import SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import RuleSpace
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.search.base import SearchError
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.random import RandomSearch
from evoquant.search.replay import Replay, ReplayEntry
from evoquant.testing.searches import check_search

PROBLEM = compile_problem(seed_profile("test"), SEED_MENU)
RULES = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2)
DIRECT = DirectSpace(PROBLEM)
SMALL = GeneticSettings(population=12, elites=2)

SEARCHES = {
    "genetic rules": (RULES, lambda: GeneticSearch(RULES, seed=3, settings=SMALL)),
    "genetic direct": (DIRECT, lambda: GeneticSearch(DIRECT, seed=3, settings=SMALL)),
    "genetic, started": (
        RULES,
        lambda: GeneticSearch(RULES, seed=3, settings=SMALL, start=[STRATEGIES["all_fp16"]]),
    ),
    "random": (RULES, lambda: RandomSearch(RULES, seed=3, population=5)),
    "replay": (None, lambda: Replay([[ReplayEntry("a", STRATEGIES["hybrid"], 0)]] * 3)),
}


def evaluator(space):
    estimator = SeparableEstimator(space, (PROBLEM,), Cliff(), "mean", 7)
    estimator.use(LocalExecutor())
    return lambda batch: estimator.evaluate(batch, {})


@pytest.mark.parametrize("name", SEARCHES)
def test_search_conforms(name):
    space, make = SEARCHES[name]
    check_search(make, evaluator(space))


def test_the_suite_can_fail():
    class Forgetful(RandomSearch):
        def restore(self, state):
            self._generation = 0

    class Patient(RandomSearch):
        def ask(self):
            self._turn = type(self._turn)()
            return super().ask()

    for broken in (Forgetful, Patient):
        with pytest.raises(AssertionError):
            check_search(lambda broken=broken: broken(RULES, seed=1, population=3), evaluator(RULES))


def test_wrong_number_of_evaluations_is_named():
    search = RandomSearch(RULES, seed=0, population=4)
    search.ask()
    few = RandomSearch(RULES, seed=0, population=2)
    evaluations = evaluator(RULES)(few.ask())
    with pytest.raises(SearchError, match=r"takes 4 evaluations.*got 2"):
        search.tell(evaluations)


def test_a_generation_that_failed_whole_is_followed_by_another():
    search = GeneticSearch(RULES, seed=3, settings=SMALL)
    estimator = SeparableEstimator(RULES, (PROBLEM,), Cliff(), "mean", 7)
    estimator.use(LocalExecutor())
    first = search.ask()
    search.tell(estimator.evaluate(first, dict.fromkeys(range(len(first)), "time_limit")))
    second = search.ask()
    assert second.first_id == len(first)
    assert not np.array_equal(first.genes, second.genes)
