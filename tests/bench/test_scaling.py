"""What is measured of Ray, at its smallest, on one real cluster."""

import pytest

from evoquant.bench import scaling, speed_cluster
from evoquant.bench.simulation import Costs
from evoquant.execution.ray import RayExecutor
from evoquant.testing.executors import echo


@pytest.fixture(scope="module")
def executor():
    with RayExecutor(workers=2, address="local") as made:
        made.start(echo, None)
        yield made


def whole(executor):
    assert list(executor.map(range(6))) == list(range(6)), "measuring should leave the executor as it was"
    assert len(executor._pool.seats) == 2


def test_the_driver_s_time_is_measured_for_more_workers_than_there_are(executor):
    assert scaling.driver_seconds(executor, 20) > 0
    whole(executor)


def test_a_worker_s_own_time_is_measured(executor):
    assert scaling.worker_seconds(executor, 0.001, 10) > 0
    assert len(executor._pool.seats) == 2


def test_efficiency_has_a_row_for_each_case(executor, monkeypatch):
    monkeypatch.setattr(scaling, "ITEM_S", (0.005, 0.02))
    monkeypatch.setattr(scaling, "WORK_S", 0.1)
    rows = scaling.efficiency_rows(executor)
    assert [(row["workers"], row["item_s"]) for row in rows[::2]] == [(1, 0.005), (1, 0.02), (2, 0.005), (2, 0.02)]
    assert {row["batching"] for row in rows} == {"one by one", "sized"}
    assert all(0 < row["efficiency"] <= 1 for row in rows)


def test_real_runs_take_about_as_long_as_simulated_or_longer(executor, monkeypatch):
    monkeypatch.setattr(scaling, "REAL_RUNS", 1)
    rows = scaling.validation_rows(executor, [0.1, 0.3], Costs())
    assert [row["mode"] for row in rows] == ["generational", "steady"] * 2
    assert all(row["simulated_s"] <= 1.1 * row["measured_s"] for row in rows)


def test_overhead_is_in_percent_of_the_ideal(executor, monkeypatch):
    monkeypatch.setattr(speed_cluster, "ITEMS", 6)
    monkeypatch.setattr(speed_cluster, "ITEM_S", 0.01)
    executor.start(speed_cluster.worker, 0.01)
    assert speed_cluster.overhead(executor, "sleep") > 0
    assert speed_cluster.overhead(executor, "spin") > 0


def test_the_search_s_part_is_measured(tmp_path):
    assert scaling.generation_seconds(8, tmp_path) > 0
    assert scaling.candidate_seconds(tmp_path, candidates=5) > 0
