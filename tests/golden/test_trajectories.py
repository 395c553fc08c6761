"""Golden trajectories: what each search asks for, generation by generation, may change only on purpose."""

import hashlib

import numpy as np
import pytest

from evoquant.campaign.build import LAYER_TYPES
from evoquant.campaign.evaluate import SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.rule import RuleSpace
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.random import RandomSearch

SPACE = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2)
SEARCHES = {
    "genetic": lambda: GeneticSearch(SPACE, seed=7, settings=GeneticSettings(population=40)),
    "genetic, started": lambda: GeneticSearch(
        SPACE, seed=7, settings=GeneticSettings(population=40, initial=10), start=[STRATEGIES["all_fp16"]]
    ),
    "random": lambda: RandomSearch(SPACE, seed=7, population=40),
}
EXPECTED = {
    "genetic": ("acb9381752fec770", 3.2392),
    "genetic, started": ("4a499d00fe844c8e", 3.2392),
    "random": ("c8edab8c28858981", 2.6656),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_trajectory(name):
    estimator = SeparableEstimator(SPACE, (compile_problem(seed_profile("train"), SEED_MENU),), Cliff(), "mean", 64)
    estimator.use(LocalExecutor())
    search, digest, best = SEARCHES[name](), hashlib.sha256(), -np.inf
    for _ in range(8):
        batch = search.ask()
        digest.update(batch.genes.tobytes() + batch.parents.tobytes())
        evaluations = estimator.evaluate(batch, {})
        best = max(best, float(np.nanmax(evaluations.fitness)))
        search.tell(evaluations)
    assert (digest.hexdigest()[:16], round(best, 4)) == EXPECTED[name]
