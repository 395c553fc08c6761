import dataclasses
import random
from functools import partial

import numpy as np
import pytest

from evoquant.campaign.evaluate import KnownFailure, SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.strategies import STRATEGIES
from evoquant.scoring.objective import Cliff
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
from evoquant.testing import ConformanceError, check_search
from evoquant.testing.examples import evaluator, example_problem, example_spaces
from evoquant.testing.searches import check_each

PROBLEM = example_problem()
SPACES = example_spaces(PROBLEM)
RULES = SPACES["rules"]
SMALL = GeneticSettings(population=12, elites=2)
FEW = Nsga2Settings(population=12, floor=0.5, archive=8)
RING = IslandSettings(islands=3, every=2, migrants=1, genetic=GeneticSettings(population=5, elites=1))
MODEL = SurrogateSettings(batch=2, population=12, rounds=3)
SEARCHES = {
    "genetic": partial(GeneticSearch, settings=SMALL),
    "nsga2": partial(Nsga2Search, settings=FEW),
    "cmaes": CmaesSearch,
    "map_elites": partial(MapElitesSearch, settings=MapElitesSettings(batch=12)),
    "islands": partial(IslandSearch, settings=RING),
    "level_switch": partial(LevelSwitchSearch, settings=LevelSwitchSettings(offspring=6)),
    "surrogate": partial(SurrogateSearch, problem=PROBLEM, objective=Cliff(), settings=MODEL),
    "random": partial(RandomSearch, population=5),
}
NOT_OVER = {("cmaes", "trees"), ("level_switch", "rules"), ("level_switch", "trees")}
OVER = [(search, space) for search in SEARCHES for space in SPACES if (search, space) not in NOT_OVER]


@pytest.mark.parametrize(("search", "space"), OVER)
def test_search_conforms(search, space):
    check_search(SEARCHES[search], spaces={space: SPACES[space]})


def test_searches_that_are_given_their_candidates_conform():
    fp16 = STRATEGIES["all_fp16"]
    check_search(lambda: GeneticSearch(RULES, seed=3, settings=SMALL, start=[fp16]), evaluator(RULES))
    check_search(lambda: Replay([[ReplayEntry("a", STRATEGIES["hybrid"], 0)]] * 3), evaluator(None))


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


class Stubborn(RandomSearch):
    """Ignores its seed."""

    def __init__(self, space, *, seed, population):
        super().__init__(space, seed=0, population=population)


class Spoiling(RandomSearch):
    """Writes into what it is told."""

    def tell(self, evaluations):
        super().tell(evaluations)
        evaluations.fitness[:] = -np.nan_to_num(evaluations.fitness)


class Reusing(RandomSearch):
    """Asks in the array that it asked in before."""

    kept = None

    def ask(self):
        batch = super().ask()
        if self.kept is None:
            self.kept = np.empty_like(batch.genes)
        self.kept[:] = batch.genes
        return dataclasses.replace(batch, genes=self.kept)


class Shuffled(RandomSearch):
    """Draws from the stream of everybody."""

    def ask(self):
        batch = super().ask()
        rows = list(range(len(batch)))
        random.shuffle(rows)
        return dataclasses.replace(batch, genes=batch.genes[rows])


class Seeding(RandomSearch):
    """Seeds NumPy's shared stream: repeatable, at the cost of everybody else's draws."""

    def ask(self):
        np.random.seed(self._seed + self._generation)  # noqa: NPY002
        batch = super().ask()
        return dataclasses.replace(batch, genes=batch.genes[np.random.permutation(len(batch))])  # noqa: NPY002


class Outside(RandomSearch):
    """Leaves the limits of the genes."""

    def ask(self):
        batch = super().ask()
        return dataclasses.replace(batch, genes=batch.genes + 1000.0)


class Whole(RandomSearch):
    """Its genes are whole numbers in type."""

    def ask(self):
        batch = super().ask()
        return dataclasses.replace(batch, genes=batch.genes.astype(np.int64))


class Foretelling(RandomSearch):
    """Names parents that come later."""

    def ask(self):
        batch = super().ask()
        return dataclasses.replace(batch, parents=np.full((len(batch), 2), batch.first_id + 1))


class Hoarding(GeneticSearch):
    """Keeps in its archive whatever it was told, measured or not."""

    rows = None

    def ask(self):
        self.asked_now = super().ask()
        return self.asked_now

    def tell(self, evaluations):
        super().tell(evaluations)
        self.rows = self.asked_now.genes

    def archive(self):
        return self.rows


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
    Stubborn: "ignores its seed",
    Spoiling: "tell: changes the evaluations of generation 0",
    Reusing: "the batch of generation 0 changes",
    Shuffled: "draws from, or seeds, the global `random` module",
    Seeding: r"draws from, or seeds, the global `numpy\.random`",
    Outside: "a gene lies outside its limits",
    Whole: "genes: int64, not float64",
    Foretelling: "a parent is not an earlier candidate",
    Hoarding: "measured in part is in the archive",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_suite_catches_each_sort_of_broken_search(broken):
    more = {"settings": SMALL} if issubclass(broken, GeneticSearch) else {"population": 4}
    with pytest.raises(ConformanceError, match=BROKEN[broken]) as caught:
        check_search(partial(broken, **more), spaces={"rules": RULES})
    assert "evoquant.testing, check_" in caught.value.__notes__[0]
    assert "over the space 'rules'" in caught.value.__notes__[-1]


def test_what_a_search_raises_says_what_was_checked():
    class Raising(RandomSearch):
        def restore(self, state):
            raise KeyError("best")

    with pytest.raises(KeyError) as caught:
        check_each(lambda: Raising(RULES, seed=1, population=4), evaluator(RULES))
    assert caught.value.__notes__ == [
        "evoquant.testing, check_state: A state that went through JSON goes on identically."
    ]


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
