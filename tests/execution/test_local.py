import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from evoquant.errors import CampaignError
from evoquant.execution.base import Failure
from evoquant.execution.local import LocalExecutor
from evoquant.testing.executors import echo, killer, raiser, sleeper, slow_sleeper

AMPLE_S = 60.0


@pytest.fixture
def executor():
    with LocalExecutor() as made:
        yield made


def test_without_a_limit_it_works_in_this_process_and_lazily(executor):
    seen = []
    executor.start(lambda payload: lambda batch: seen.append(batch) or os.getpid(), None)
    results = executor.map([1, 2])
    assert seen == []
    assert next(results) == os.getpid()
    assert seen == [1]


def test_map_without_start_fails_at_the_call(executor):
    with pytest.raises(CampaignError, match="local executor was not started"):
        executor.map([])


def test_in_process_the_cause_of_a_broken_factory_is_kept(executor):
    def broken(payload):
        raise OSError("no such network")

    with pytest.raises(CampaignError, match="OSError: no such network") as caught:
        executor.start(broken, None)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("limit_s", [None, AMPLE_S])
def test_ctrl_c_is_no_failure_of_a_batch(executor, limit_s):
    executor.start(sleeper, 0, limit_s)
    assert list(executor.map([0.0])) == [0.0]
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(executor.map([30.0]))
    timer.join()
    assert list(executor.map([0.25])) == [0.25], "the next batch got the result of the interrupted one"


def test_a_child_is_killed_at_close(executor):
    executor.start(echo, None, AMPLE_S)
    child_id = multiprocessing.active_children()[0].pid
    executor.close()
    assert not _alive(child_id)
    assert multiprocessing.active_children() == []


def test_a_lost_child_is_replaced_by_another_only_when_needed(executor, tmp_path):
    executor.start(killer, str(tmp_path), AMPLE_S)
    (failure,) = executor.map(["always"])
    assert failure == Failure("worker_lost", "the worker process died 2 times")
    assert multiprocessing.active_children() == []
    assert list(executor.map(["a"])) == ["a"]


def test_a_result_that_cannot_be_pickled_is_that_batch_alone(executor, tmp_path):
    # A worker cannot import this module, so a script of its own stands in for a plug-in's.
    script = tmp_path / "script.py"
    script.write_text(
        "import threading\n"
        "from evoquant.execution.local import LocalExecutor\n"
        "def locks(_):\n    return lambda batch: threading.Lock() if batch else batch\n"
        "if __name__ == '__main__':\n"
        "    with LocalExecutor() as executor:\n"
        "        executor.start(locks, None, 60.0)\n"
        "        print([getattr(result, 'reason', result) for result in executor.map([0, 1, 0])])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 'raised:TypeError', 0]\n"
    assert done.stderr == ""


def test_a_factory_that_cannot_be_sent_is_named(executor):
    with pytest.raises(CampaignError, match=r"a worker cannot start: .*sent to another process"):
        executor.start(lambda payload: payload, None, AMPLE_S)
    executor.start(raiser, None, AMPLE_S)
    assert [result.reason for result in executor.map(["ValueError"])] == ["raised:ValueError"]


def test_a_script_without_a_main_guard_gets_the_remedy(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from evoquant.execution.local import LocalExecutor\n"
        "from evoquant.testing.executors import echo\n"
        "LocalExecutor().start(echo, None, 60.0)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "if __name__ == '__main__':" in done.stderr


GROUP = """
import os, signal, sys, threading
from evoquant.execution.local import LocalExecutor
from evoquant.testing.executors import sleeper
if __name__ == "__main__":
    executor = LocalExecutor()
    executor.start(sleeper, 0, 60.0)
    print(executor._child._process.pid, flush=True)
    if sys.argv[1] == "interrupt":
        threading.Timer(0.3, os.killpg, (os.getpgid(0), signal.SIGINT)).start()
    try:
        list(executor.map([50.0]))
    except KeyboardInterrupt:
        executor.close()
        print("interrupted")
"""


def test_ctrl_c_in_a_terminal_prints_no_traceback_of_the_child(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GROUP)
    done = subprocess.run(
        [sys.executable, script, "interrupt"], capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert done.stdout.endswith("interrupted\n")
    assert done.stderr == ""


def test_a_child_does_not_outlive_a_killed_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GROUP)
    parent = subprocess.Popen([sys.executable, script, "hang"], stdout=subprocess.PIPE, text=True)
    with parent:
        child = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # An orphan whose new parent does not collect it stays as a zombie: dead, too.
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.strip().startswith("Z")


def test_the_limit_is_the_batch_s_and_not_the_build_s(executor):
    executor.start(slow_sleeper, 0.8, 0.5)
    assert list(executor.map([0.0])) == [0.0]
