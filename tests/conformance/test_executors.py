import json
from itertools import islice

import numpy as np
import pytest
import ray

from evoquant.errors import CampaignError
from evoquant.execution.base import NOT_YET, Failure
from evoquant.execution.local import LocalExecutor
from evoquant.execution.ray import RayExecutor
from evoquant.testing import ConformanceError, executors
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


class InProcess(LocalExecutor):
    """Knows no limits, and so needs no other process."""

    def start(self, factory, payload, limit_s=None):
        super().start(factory, payload)


def test_an_executor_within_the_process_is_told_and_not_killed():
    with pytest.raises(ConformanceError, match=r"in_process=True\) leaves both out"):
        executors.check_deaths(InProcess)
    check_executor(InProcess, in_process=True)


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


class Losing(LocalExecutor):
    """Leaves out what failed."""

    def map(self, batches):
        return (result for result in super().map(batches) if not isinstance(result, Failure))


class Nameless(LocalExecutor):
    """Tells that something failed, and not what."""

    def map(self, batches):
        for result in super().map(batches):
            yield Failure("failed", "") if isinstance(result, Failure) else result


class Textual(LocalExecutor):
    """Sends results as text."""

    def map(self, batches):
        for result in super().map(batches):
            yield result if isinstance(result, (Failure, np.ndarray)) else json.loads(json.dumps(result))


class Sticky(LocalExecutor):
    """What a given-up map left comes first in the next one."""

    left = ()

    def map(self, batches):
        results = [*self.left, *super().map(batches)]
        self.left = results[1:] if batches[:1] == [0.0] else ()
        return iter(results[: len(batches)])


class Workerless(LocalExecutor):
    @property
    def workers(self):
        return 0


BROKEN = [
    (Greedy, executors.check_stream, ConformanceError, "a stream of 12 batches gave 1 results"),
    (Numberless, executors.check_stream, ConformanceError, "each batch's number and result once"),
    (Reversed, executors.check_order, ConformanceError, "in their order"),
    (Workerless, executors.check_order, ConformanceError, "workers is 0"),
    (Hasty, executors.check_turns, ConformanceError, "map before start should raise"),
    (Rebuilding, executors.check_state, ConformanceError, "state was built 3 times by 1 workers"),
    (Fragile, executors.check_failures, CampaignError, "asked to raise"),
    (Losing, executors.check_failures, ConformanceError, "batches beside one that raised should go on"),
    (Nameless, executors.check_failures, ConformanceError, "expected the reason raised:ValueError, got failed"),
    (Textual, executors.check_values, ConformanceError, "a result differs from what the function returned"),
    (Sticky, executors.check_unfinished_map, ConformanceError, "got something else than its own results"),
    (Lenient, executors.check_factory, ConformanceError, "a broken factory should raise"),
]


@pytest.mark.parametrize(("broken", "check", "error", "clause"), BROKEN)
def test_the_suite_catches_each_sort_of_broken_executor(broken, check, error, clause):
    with pytest.raises(error, match=clause):
        check(broken)
