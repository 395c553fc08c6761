import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from evoquant.errors import CampaignError
from evoquant.execution import actors
from evoquant.execution.ray import RayExecutor
from evoquant.testing.executors import check_time_limit, echo, killer, sleeper


@pytest.fixture(scope="module")
def cluster():
    before = os.environ.get("RAY_AUTH_MODE")
    owner = RayExecutor(workers=2)
    owner.start(echo, None)
    owner._pool.stop()
    yield
    owner.close()
    assert os.environ.get("RAY_AUTH_MODE") == before, "the next cluster may want no token"
    assert not ray.is_initialized(), "close should end what this executor started"


@pytest.fixture
def executor(cluster):
    with RayExecutor(workers=2) as made:
        yield made
    assert ray.is_initialized(), "close should leave a connection that it did not make"


def processes(_):
    return lambda batch: (time.sleep(0.1), os.getpid())[1]


def naps(_):
    return lambda seconds: (time.sleep(seconds), os.getpid())[1]


def threads(_):
    return lambda batch: {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}


def big(payload):
    return lambda batch: (float(payload[batch]), payload.flags.writeable)


def by_value(function):
    """Workers cannot import a test module; a function without one is sent whole."""
    function.__module__ = "__main__"
    return function


def test_all_workers_work_and_none_is_the_driver(executor):
    executor.start(by_value(processes), None)
    found = set(executor.map(range(8)))
    assert len(found) == 2
    assert os.getpid() not in found


def test_a_slow_batch_does_not_hold_up_the_other_worker(executor):
    executor.start(sleeper, 0)
    began = time.monotonic()
    assert list(executor.map([1.0, *[0.1] * 8])) == [1.0, *[0.1] * 8]
    assert time.monotonic() - began < 1.7, "eight short batches should go to the worker that is free"


def test_a_worker_has_one_thread(executor):
    executor.start(by_value(threads), None)
    (found,) = executor.map([0])
    assert found == {**found, **actors.ONE_THREAD}


def test_the_payload_is_shared_and_read_only(executor):
    import numpy as np

    executor.start(by_value(big), np.arange(1e6))
    assert list(executor.map([7, 9])) == [(7.0, False), (9.0, False)]


def test_one_worker_is_built_again_within_nobody_s_limit(cluster):
    check_time_limit(lambda: RayExecutor(workers=1))


def test_a_result_that_cannot_be_pickled_is_that_batch_alone(executor):
    import threading

    executor.start(by_value(lambda payload: lambda batch: threading.Lock() if batch else batch), None)
    assert [getattr(result, "reason", result) for result in executor.map([0, 1, 0])] == [0, "raised:TypeError", 0]


def test_an_old_map_ends_with_the_next_start(executor):
    executor.start(sleeper, 0)
    old = executor.map([0.0, 0.0, 0.0])
    next(old)
    executor.start(sleeper, 1)
    with pytest.raises(CampaignError, match="take its results before"):
        next(old)
    assert list(executor.map([0.0])) == [1.0]


def test_default_workers_are_the_callers_cluster(cluster):
    with RayExecutor() as executor:
        executor.start(echo, None)
        assert executor.workers == 2


def test_a_full_cluster_gives_fewer_workers_or_a_clear_error(cluster, monkeypatch):
    monkeypatch.setattr(actors, "PLACE_S", 6.0)
    with RayExecutor(workers=3) as executor, RayExecutor(workers=1) as second:
        executor.start(echo, None)
        assert executor.workers == 2
        assert list(executor.map(range(5))) == list(range(5))
        with pytest.raises(CampaignError, match=r"no worker found a place.*2 CPUs, 0 of them free"):
            second.start(echo, None)


def test_a_lost_worker_prints_nothing_and_ctrl_c_prints_no_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, threading\n"
        "from evoquant.execution.ray import RayExecutor\n"
        "from evoquant.testing.executors import killer, sleeper\n"
        "with RayExecutor(workers=2) as executor:\n"
        f"    executor.start(killer, {str(tmp_path)!r})\n"
        "    print(list(executor.map(['a', 'once', 'b'])), flush=True)\n"
        "    executor.start(sleeper, 0)\n"
        "    threading.Timer(0.5, os.killpg, (os.getpgid(0), signal.SIGINT)).start()\n"
        "    try:\n"
        "        list(executor.map([50.0, 50.0]))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, start_new_session=True, timeout=90)
    assert done.stdout == "['a', 'once', 'b']\ninterrupted\n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_ctrl_c_leaves_nothing_for_the_next_map(executor):
    executor.start(sleeper, 0)
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(executor.map([40.0, 40.0]))
    finally:
        signal.signal(signal.SIGALRM, previous)
    began = time.monotonic()
    assert list(executor.map([0.01, 0.02])) == [0.01, 0.02]
    assert time.monotonic() - began < 20


def test_an_always_deadly_batch_takes_no_other_along(executor, tmp_path):
    executor.start(killer, str(tmp_path))
    found = list(executor.map(["always", *"abcdef"]))
    assert found[0].reason == "worker_lost"
    assert found[1:] == list("abcdef")


def test_a_batch_behind_a_deadly_one_is_not_blamed(executor, tmp_path):
    """However many innocent batches wait behind deadly ones, each comes back, and only the deadly are lost."""
    executor.start(killer, str(tmp_path))
    batches = ["a", "always", "b", "once", "c", "d", "always", "e"]
    found = list(executor.map(batches))
    expected = [batch for batch in batches if batch != "always"]
    assert [batch for batch in found if isinstance(batch, str)] == expected
    assert [found[i].reason for i in (1, 6)] == ["worker_lost"] * 2


def test_a_batch_behind_a_slow_one_goes_to_who_is_free(executor):
    executor.start(by_value(naps), None)
    slow, short, behind = executor.map([3.0, 0.0, 0.0])
    assert slow != short
    assert behind == short, "the last batch waited behind the first"


def test_the_limit_counts_from_a_batch_s_own_begin(executor):
    executor.start(sleeper, 0, 2.0)
    assert list(executor.map([1.2] * 4)) == [1.2] * 4, "waiting behind another batch should not count"


def test_a_caller_that_takes_its_time_costs_no_batch_its_limit(executor):
    executor.start(sleeper, 0, 2.0)
    found = []
    for result in executor.map([0.1] * 4):
        found.append(result)
        time.sleep(2.5 if len(found) == 1 else 0.0)
    assert found == [0.1] * 4


def dies_at_start(flag):
    if Path(flag).exists():
        os._exit(1)
    return lambda batch: (time.sleep(0.1), os.getpid())[1]


def test_a_worker_that_cannot_start_again_is_left_out(executor, tmp_path, caplog):
    flag = tmp_path / "from now on"
    executor.start(by_value(dies_at_start), str(flag))
    first, second = sorted(set(executor.map(range(8))))
    flag.touch()
    os.kill(first, signal.SIGKILL)
    results = executor.map(range(40))
    assert set(results) == {second}
    deadline = time.monotonic() + 120
    while len(executor._pool.seats) > 1 and time.monotonic() < deadline:
        list(executor.map(range(4)))
    assert len(executor._pool.seats) == 1
    assert "the others go on without it" in caplog.text
    os.kill(second, signal.SIGKILL)
    with pytest.raises(CampaignError, match="a worker cannot start"):
        list(executor.map(range(4)))
