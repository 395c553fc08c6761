"""Models, spaces and evaluation, shared by the tests of the searches."""

import dataclasses

import numpy as np
import pytest

from evoquant.campaign.evaluate import KnownFailure, SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem


@pytest.fixture(scope="session")
def problem():
    return compile_problem(seed_profile("train"), SEED_MENU)


@pytest.fixture(scope="session")
def restricted(problem):
    """The same model, where some layers may not take some widths: INT4 and FP16 only, or no INT2."""
    allowed = problem.allowed.copy()
    allowed[::5] = [False, True, False, True, False]
    allowed[1::5, 0] = False
    return dataclasses.replace(problem, allowed=allowed)


@pytest.fixture(scope="session")
def rules():
    return RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2)


@pytest.fixture(scope="session")
def direct(problem):
    return DirectSpace(problem)


@pytest.fixture(scope="session")
def evaluate(problem):
    """`evaluate(space, batch)`; rows in `failed` fail."""

    def run(space, batch, failed=(), model=problem):
        estimator = SeparableEstimator(space, (model,), Cliff(), "mean", 4096)
        estimator.use(LocalExecutor())
        return estimator.evaluate(batch, dict.fromkeys(failed, KnownFailure("time_limit")))

    return run


@pytest.fixture(scope="session")
def drive(evaluate):
    """Run a search for so many generations; returns all batches and their evaluations."""

    def run(search, generations, **kwargs):
        seen = []
        for _ in range(generations):
            batch = search.ask()
            evaluations = evaluate(search.space, batch, **kwargs)
            search.tell(evaluations)
            seen.append((batch, evaluations))
        return seen

    return run


@pytest.fixture(scope="session")
def survives_failures(evaluate):
    """All of the first generation failed, then a part, then all again: no failed row may ever be built on."""

    def run(search):
        lost = set()
        for generation in range(6):
            batch = search.ask()
            n = len(batch)
            failed = range(n) if generation in (0, 3) else range(0, n, 2)
            lost.update(batch.first_id + row for row in failed)
            assert lost.isdisjoint(batch.parents.ravel().tolist())
            evaluations = evaluate(search.space, batch, failed)
            assert np.isnan(evaluations.fitness[list(failed)]).all()
            search.tell(evaluations)
        assert batch.first_id + n > n

    return run
