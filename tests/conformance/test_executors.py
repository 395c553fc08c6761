from itertools import islice

import pytest
import ray

from evoquant.errors import CampaignError
from evoquant.execution.base import NOT_YET, Failure
from evoquant.execution.local import LocalExecutor
from evoquant.execution.ray import RayExecutor
from evoquant.testing import executors
from evoquant.testing.executors import check_executor


@pytest.fixture(scope="module")
def cluster():
    """One for the module; executors join it and leave it open."""
    owner = RayExecutor(workers=2)
    owner.start(executors.echo, None)
    owner._pool.stop()
    yield
    owner.close()


EXECUTORS = {"local": LocalExecutor, "ray": lambda: RayExecutor(workers=2)}


@pytest.mark.parametrize("name", EXECUTORS)
def test_executor_conforms(name, request):
    if name == "ray":
        request.getfixturevalue("cluster")
    check_executor(EXECUTORS[name])
    assert EXECUTORS[name]().name == name
    assert ray.is_initialized() == (name == "ray"), "an executor should leave the caller's connection alone"


class Hasty(LocalExecutor):
    """Lets a map go ahead without its start."""

    def map(self, batches):
        return map(self._call or (lambda batch: batch), batches)


class Reversed(LocalExecutor):
    def map(self, batches):
        return iter(list(super().map(batches))[::-1])


class Rebuilding(LocalExecutor):
    def start(self, factory, payload, limit_s=None):
        super().start(factory, payload, limit_s)
        self.again = lambda: LocalExecutor.start(self, factory, payload, limit_s)

    def map(self, batches):
        if self._call is not None:
            self.again()
        return super().map(batches)


class Fragile(LocalExecutor):
    def map(self, batches):
        for result in super().map(batches):
            if isinstance(result, Failure):
                raise CampaignError(result.message)
            yield result


class Lenient(LocalExecutor):
    def start(self, factory, payload, limit_s=None):
        try:
            super().start(factory, payload, limit_s)
        except CampaignError:
            super().start(executors.echo, payload, limit_s)


class Greedy(LocalExecutor):
    """Takes all batches before it works on the first."""

    def stream(self, batches):
        return super().stream([batch for batch in islice(batches, 50) if batch is not NOT_YET])


class Numberless(LocalExecutor):
    def stream(self, batches):
        return ((0, result) for _, result in super().stream(batches))


BROKEN = [
    (Greedy, executors.check_stream, AssertionError),
    (Numberless, executors.check_stream, AssertionError),
    (Reversed, executors.check_order, AssertionError),
    (Hasty, executors.check_turns, AssertionError),
    (Rebuilding, executors.check_state, AssertionError),
    (Fragile, executors.check_failures, CampaignError),
    (Lenient, executors.check_factory, AssertionError),
]


@pytest.mark.parametrize(("broken", "check", "error"), BROKEN)
def test_the_suite_can_fail(broken, check, error):
    with pytest.raises(error):
        check(broken)
