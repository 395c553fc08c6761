import random
import threading

import numpy as np
import pytest

from evoquant.scoring.separable import loss_sums, retention_of
from evoquant.testing import ConformanceError, check_estimator


class Separable:
    """What campaigns on profiles estimate; each of those below breaks it in one way."""

    def retention(self, problem, allocations):
        return retention_of(loss_sums(problem, allocations))


def test_the_separable_estimate_conforms():
    check_estimator(Separable())


class Ranked(Separable):
    """Relative to the best of the batch."""

    def retention(self, problem, allocations):
        found = super().retention(problem, allocations)
        return found / found.max(initial=1e-9)


class Carrying(Separable):
    """What stood before an allocation in the batch weighs in."""

    def retention(self, problem, allocations):
        found = super().retention(problem, allocations)
        return found + 1e-9 * np.arange(len(found))


class Single(Separable):
    """Sums in single precision, whose rounding depends on what is added first."""

    def retention(self, problem, allocations):
        losses = loss_sums(problem, allocations) / 2**40
        if len(losses) > 20:
            losses = losses.astype(np.float32).astype(np.float64)
        return np.exp(-losses)


class Writing(Separable):
    def retention(self, problem, allocations):
        allocations[allocations == 0] = 1
        return super().retention(problem, problem.repair(allocations))


class Stamping(Separable):
    def retention(self, problem, allocations):
        allocations[...] = allocations
        return super().retention(problem, allocations)


class Tossed(Separable):
    def retention(self, problem, allocations):
        return super().retention(problem, allocations) * random.uniform(0.99, 1.0)


class Noisy(Separable):
    """Has a stream of its own, which goes on."""

    def __init__(self):
        self.rng = np.random.Generator(np.random.PCG64(1))

    def retention(self, problem, allocations):
        return super().retention(problem, allocations) * self.rng.uniform(0.99, 1.0, len(allocations))


class Remembering(Separable):
    """Says something else of what it has been asked before."""

    def __init__(self):
        self.seen = {}

    def retention(self, problem, allocations):
        found = super().retention(problem, allocations)
        for place, row in enumerate(allocations):
            found[place] = self.seen.setdefault((problem.name, row.tobytes()), found[place] + 1e-3 * len(self.seen))
        return found

    def __deepcopy__(self, memo):
        return type(self)()


class Rooted(Separable):
    def __init__(self):
        self.lock = threading.Lock()


class Undefined(Separable):
    def retention(self, problem, allocations):
        return np.log(super().retention(problem, allocations) - 1.0 + 1e-3)


class Negative(Separable):
    def retention(self, problem, allocations):
        return super().retention(problem, allocations) - 0.5


class Columns(Separable):
    def retention(self, problem, allocations):
        return super().retention(problem, allocations)[:, None]


class Listed(Separable):
    def retention(self, problem, allocations):
        return super().retention(problem, allocations).tolist()


class Halved(Separable):
    def retention(self, problem, allocations):
        return super().retention(problem, allocations).astype(np.float16)


BROKEN = {
    Ranked: "depends on the batch: .* by itself",
    Carrying: "depends on the batch: .* in another order",
    Single: "depends on the batch: .* by itself",
    Writing: "changes its argument allocations",
    Stamping: "writes into its argument allocations",
    Tossed: "the global `random` module",
    Noisy: "another one the second time",
    Remembering: "a copy of the estimator, as a worker gets one, says something else",
    Rooted: "cannot be copied to a worker",
    Undefined: "not all are finite",
    Negative: "is below 0",
    Columns: r"shape \(33, 1\), expected \(n,\) = \(33,\)",
    Listed: "a list, not an array",
    Halved: "float16, not float64",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_suite_catches_each_sort_of_broken_estimator(broken):
    with pytest.raises(ConformanceError, match=BROKEN[broken]):
        check_estimator(broken())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_failed_candidates_may_be_meant():
    check_estimator(Undefined(), may_fail=True)
