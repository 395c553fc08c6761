"""The simulation of many workers, on cases that can be counted by hand."""

import itertools
import random

import pytest

from evoquant.bench.simulation import Costs, batched, simulate, span


@pytest.mark.parametrize(("workers", "items"), [(1, 7), (2, 8), (10, 100), (1000, 1000)])
def test_equal_items_without_overhead_fill_all_workers(workers, items):
    assert span([2.0] * items, workers) == pytest.approx(2.0 * items / workers)
    for mode in ("generational", "steady"):
        found = simulate([[20.0] * items] * 3, workers, Costs(), mode)
        assert found.efficiency == pytest.approx(1.0)
        assert found.speedup == pytest.approx(workers)
        assert found.saturated_by is None
        assert sum(found.losses.values()) == pytest.approx(0.0, abs=1e-9)


def test_no_items_take_no_time():
    assert span([], 3) == 0.0
    assert batched([], 3) == []


@pytest.mark.parametrize(
    ("items", "workers", "expected"),
    [
        ([1.0] * 9, 2, 5.0),  # one worker idles in the last round
        ([1.0] * 3, 1000, 1.0),
        ([3.0, 1.0, 1.0, 1.0], 2, 3.0),
        ([3.0, 0.5, 2.0], 2, 3.0),  # the third does not wait behind the first
        ([5.0, 1.0, 1.0, 1.0, 1.0], 2, 5.0),  # nor does one that the first's worker was given already
    ],
)
def test_spans_counted_by_hand(items, workers, expected):
    assert span(items, workers) == pytest.approx(expected)


def test_the_driver_does_one_thing_at_a_time():
    # One worker, one batch: half a step to send it, half to take its result.
    assert span([1.0], 1, driver_s=0.2) == pytest.approx(1.2)
    # Batches of no length: the driver is all there is.
    assert span([0.0] * 50, 8, driver_s=0.2) == pytest.approx(50 * 0.2)
    # One that waits at the worker hides the driver's time: only the first's sending and the last's taking show.
    assert span([1.0] * 20, 2, driver_s=0.1) <= 10.0 + 2 * 0.1 + 1e-9


def test_no_schedule_beats_the_two_bounds_or_is_worse_than_twice_the_best():
    rng = random.Random(0)
    for workers, count in itertools.product((1, 2, 5, 16), (1, 7, 40)):
        items = [rng.lognormvariate(0.0, 1.0) for _ in range(count)]
        bound = max(max(items), sum(items) / workers)
        assert bound - 1e-9 <= span(items, workers) <= 2.0 * bound


def test_the_largest_loss_is_named():
    even, uneven = [[10.0] * 64] * 5, [[10.0] * 63 + [100.0]] * 5
    assert simulate(even, 64, Costs(start_s=500.0)).saturated_by == "start-up"
    assert simulate(even, 64, Costs(generation_s=30.0)).saturated_by == "search"
    assert simulate(even, 64, Costs(candidate_s=1.0), "steady").saturated_by == "search"
    assert simulate(even, 64, Costs(driver_s=1.0)).saturated_by == "driver"
    assert simulate(even, 256, Costs()).saturated_by == "too few candidates"
    barrier = simulate(uneven, 64, Costs())
    assert barrier.saturated_by == "barrier (slowest item)"
    assert barrier.wall_s == pytest.approx(5 * 100.0)
    steady = simulate(uneven, 64, Costs(), "steady")
    assert steady.wall_s < barrier.wall_s / 2, "without a barrier the slow items overlap"
    assert steady.efficiency + sum(steady.losses.values()) == pytest.approx(1.0)


def test_batches_are_sized_as_measured_requests_are():
    assert len(batched([10.0] * 100, 8)) == 100
    small = batched([0.001] * 1000, 2)
    assert sum(small) == pytest.approx(1.0)
    assert len(small) < 100
