import pytest

from evoquant.execution.sizing import LEAST_S, MOST_S, Sizer


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
@pytest.mark.parametrize("items", [0, 1, 5, 100, 1000])
@pytest.mark.parametrize("item_s", [None, 1e-7, 0.001, 0.05, 0.1, 20.0])
def test_every_item_is_in_one_batch(items, workers, item_s):
    sizer = Sizer(untold=4)
    if item_s is not None:
        sizer.observe(1, item_s, 1)
    sizes = sizer.sizes(items, workers)
    assert sum(sizes) == items
    assert all(size >= 1 for size in sizes)
    if item_s is not None:
        assert all(size == 1 or size * item_s <= 1.5 * MOST_S for size in sizes)


def test_before_anything_is_measured_the_size_is_the_given_one():
    assert Sizer(untold=4).sizes(40, 2)[:3] == [4, 4, 4]


def test_batches_shrink_towards_the_end_but_not_below_what_pays():
    sizer = Sizer()
    sizer.observe(10, 0.05, 1)
    sizes = sizer.sizes(100, 2)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 25
    assert min(sizes[:-1]) == 4, "0.02 s of 5 ms each"
    assert len(sizes) >= 8


def test_one_worker_gets_no_small_batches():
    sizer = Sizer()
    sizer.observe(1, 0.1, 1)
    assert sizer.sizes(9, 1) == [3, 3, 3]


def test_slow_items_go_one_by_one_and_every_worker_gets_some():
    sizer = Sizer()
    sizer.observe(2, 1.0, 2)
    assert sizer.sizes(5, 2) == [1] * 5
    sizer = Sizer()
    sizer.observe(1, LEAST_S, 1)
    assert len(sizer.sizes(8, 8)) == 8


def test_cost_is_per_worker_and_the_newest_counts_for_some():
    sizer = Sizer()
    sizer.observe(0, 5.0, 2)
    assert sizer.item_s is None
    sizer.observe(10, 1.0, 2)
    assert sizer.item_s == pytest.approx(0.2)
    sizer.observe(1, 1.2, 8)
    assert sizer.item_s == pytest.approx(0.7 * 0.2 + 0.3 * 1.2)
