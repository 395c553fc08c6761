"""Forty items of 0.1 s: two Ray workers with a batch that waits, without one, and this process alone.

python -m pytest benchmarks/test_cluster.py        (the ideal on two workers is 2 s)
"""

import pytest

from evoquant.execution import actors
from evoquant.execution.local import LocalExecutor
from evoquant.execution.ray import RayExecutor
from evoquant.testing.executors import sleeper

ITEM_S, ITEMS = 0.1, 40

pytestmark = pytest.mark.benchmark(group=f"{ITEMS} items of {ITEM_S} s", disable_gc=True)


@pytest.fixture(scope="module")
def executor():
    with RayExecutor(workers=2) as made:
        made.start(sleeper, 0)
        yield made


def items(executor):
    assert list(executor.map([ITEM_S] * ITEMS)) == [ITEM_S] * ITEMS


def test_two_workers(benchmark, executor):
    benchmark.pedantic(items, (executor,), rounds=5, warmup_rounds=1)


def test_two_workers_that_wait_for_each_batch(benchmark, executor, monkeypatch):
    monkeypatch.setattr(actors, "DEPTH", 1)
    benchmark.pedantic(items, (executor,), rounds=5, warmup_rounds=1)


def test_alone(benchmark):
    with LocalExecutor() as made:
        made.start(sleeper, 0)
        benchmark.pedantic(items, (made,), rounds=1)
