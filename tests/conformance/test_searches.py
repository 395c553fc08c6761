import dataclasses

import numpy as np
import pytest

from evoquant.campaign.evaluate import KnownFailure, SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.genomes.strategies import STRATEGIES
from evoquant.genomes.tree import TreeSpace
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.search.base import SearchError
from evoquant.search.cmaes import CmaesSearch
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.islands import IslandSearch, IslandSettings
from evoquant.search.level_switch import LevelSwitchSearch, LevelSwitchSettings
from evoquant.search.map_elites import MapElitesSearch, MapElitesSettings
from evoquant.search.nsga2 import Nsga2Search, Nsga2Settings
from evoquant.search.random import RandomSearch
from evoquant.search.replay import Replay, ReplayEntry
from evoquant.search.surrogate import SurrogateSearch, SurrogateSettings
from evoquant.testing.searches import check_search

PROBLEM = compile_problem(seed_profile("test"), SEED_MENU)
RULES = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2)
DIRECT = DirectSpace(PROBLEM)
TREES = TreeSpace(SEED_MENU, LAYER_TYPES, ("loss", "bits", "share"))
SMALL = GeneticSettings(population=12, elites=2)
FEW = Nsga2Settings(population=12, floor=0.5, archive=8)
RING = IslandSettings(islands=3, every=2, migrants=1, genetic=GeneticSettings(population=5, elites=1))


def surrogate(space):
    settings = SurrogateSettings(batch=2, population=12, rounds=4)
    return SurrogateSearch(space, seed=3, problem=PROBLEM, objective=Cliff(), settings=settings)


SEARCHES = {
    "genetic rules": (RULES, lambda: GeneticSearch(RULES, seed=3, settings=SMALL)),
    "genetic direct": (DIRECT, lambda: GeneticSearch(DIRECT, seed=3, settings=SMALL)),
    "genetic trees": (TREES, lambda: GeneticSearch(TREES, seed=3, settings=SMALL)),
    "random trees": (TREES, lambda: RandomSearch(TREES, seed=3, population=5)),
    "genetic, started": (
        RULES,
        lambda: GeneticSearch(RULES, seed=3, settings=SMALL, start=[STRATEGIES["all_fp16"]]),
    ),
    "nsga2 rules": (RULES, lambda: Nsga2Search(RULES, seed=3, settings=FEW)),
    "nsga2 direct": (DIRECT, lambda: Nsga2Search(DIRECT, seed=3, settings=FEW)),
    "nsga2 trees": (TREES, lambda: Nsga2Search(TREES, seed=3, settings=FEW)),
    "cmaes rules": (RULES, lambda: CmaesSearch(RULES, seed=3)),
    "cmaes direct": (DIRECT, lambda: CmaesSearch(DIRECT, seed=3)),
    "map_elites rules": (RULES, lambda: MapElitesSearch(RULES, seed=3, settings=MapElitesSettings(batch=12))),
    "map_elites direct": (DIRECT, lambda: MapElitesSearch(DIRECT, seed=3, settings=MapElitesSettings(batch=12))),
    "map_elites trees": (TREES, lambda: MapElitesSearch(TREES, seed=3, settings=MapElitesSettings(batch=12))),
    "islands rules": (RULES, lambda: IslandSearch(RULES, seed=3, settings=RING)),
    "islands direct": (DIRECT, lambda: IslandSearch(DIRECT, seed=3, settings=RING)),
    "islands trees": (TREES, lambda: IslandSearch(TREES, seed=3, settings=RING)),
    "level_switch": (DIRECT, lambda: LevelSwitchSearch(DIRECT, seed=3, settings=LevelSwitchSettings(offspring=6))),
    "surrogate direct": (DIRECT, lambda: surrogate(DIRECT)),
    "surrogate rules": (RULES, lambda: surrogate(RULES)),
    "surrogate trees": (TREES, lambda: surrogate(TREES)),
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


class Forgetful(RandomSearch):
    """Begins anew wherever it is restored."""

    def restore(self, state):
        self._generation = 0


class Halfway(GeneticSearch):
    """Restores its counters and not its survivors."""

    def restore(self, state):
        fresh = type(self)(self.space, seed=self._seed, settings=self._settings).state()
        super().restore(fresh | {"generation": state["generation"], "next_id": state["next_id"]})


class Patient(RandomSearch):
    """Lets itself be asked twice."""

    def ask(self):
        self._turn = type(self._turn)()
        return super().ask()


class Drifting(RandomSearch):
    """Asks differently each time that it is made."""

    made = 0

    def __init__(self, space, *, seed, population):
        type(self).made += 1
        super().__init__(space, seed=seed + self.made, population=population)


class Hidden(RandomSearch):
    """What it asks next depends on something that its state does not hold."""

    told = 0

    def tell(self, evaluations):
        super().tell(evaluations)
        self.told += 1
        self._seed += self.told


class Early(RandomSearch):
    """Is told before it was asked."""

    def tell(self, evaluations):
        if self._turn._asked is None:
            self._turn.asked(len(evaluations))
        super().tell(evaluations)


class Lenient(RandomSearch):
    """Takes any number of evaluations."""

    def tell(self, evaluations):
        if self._turn._asked is not None:
            self._turn._asked = len(evaluations)
        super().tell(evaluations)


class Stumbling(RandomSearch):
    """Refuses to be asked twice, and goes on elsewhere afterwards."""

    def ask(self):
        if self._turn._asked is not None:
            self._seed += 1
        return super().ask()


class Open(RandomSearch):
    """Gives a state with a batch open, which cannot go on."""

    def state(self):
        return {"generation": self._generation}


class Live(RandomSearch):
    """Its state is what it goes on working with."""

    def __init__(self, space, *, seed, population):
        super().__init__(space, seed=seed, population=population)
        self._kept = {"generation": 0}

    def state(self):
        super().state()
        self._kept["generation"] = self._generation
        return self._kept

    def tell(self, evaluations):
        super().tell(evaluations)
        self._kept["generation"] = self._generation


class Recounting(RandomSearch):
    """Its ids begin again with every generation."""

    def ask(self):
        return dataclasses.replace(super().ask(), first_id=0)


class Helpless(RandomSearch):
    """Cannot say in JSON what a generation of failures taught it."""

    best = None

    def tell(self, evaluations):
        super().tell(evaluations)
        self.best = float(np.max(evaluations.fitness))

    def state(self):
        return super().state() | {"best": self.best}


BROKEN = {
    Forgetful: "restored after 1 generations, the search goes on differently",
    Halfway: "restored after 1 generations, the search goes on differently",
    Patient: "asking twice should raise",
    Drifting: "what raised changed what is asked next|two equal searches ask differently",
    Hidden: "restored after 1 generations, the search goes on differently",
    Early: "telling twice should raise",
    Lenient: "telling too few should raise",
    Stumbling: "what raised changed what is asked next",
    Open: "a state with a batch open should raise",
    Live: "changed as the search went on",
    Recounting: "first id 0, expected 4",
    Helpless: "a state is not plain data",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_suite_catches_each_sort_of_broken_search(broken):
    def make():
        more = {"settings": SMALL} if broken is Halfway else {"population": 4}
        return broken(RULES, seed=1, **more)

    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_search(make, evaluator(RULES))


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
    search.tell(estimator.evaluate(first, dict.fromkeys(range(len(first)), KnownFailure("time_limit"))))
    second = search.ask()
    assert second.first_id == len(first)
    assert not np.array_equal(first.genes, second.genes)
