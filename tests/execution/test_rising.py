import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from evoquant.errors import CampaignError, InputError
from evoquant.execution.base import NOT_YET, Failure
from evoquant.execution.local import LocalExecutor
from evoquant.execution.rising import Rising
from evoquant.testing.executors import broken, echo, raiser


class Later(LocalExecutor):
    """Stands in for Ray: ready when the test says so."""

    name = "later"
    workers = 3

    def __init__(self, error=None):
        super().__init__()
        self.go, self.closed, self.error = threading.Event(), 0, error

    def start(self, factory, payload, limit_s=None):
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        super().start(factory, payload, limit_s)

    def close(self):
        super().close()
        self.closed += self._call is None


def rising(second, factory=echo):
    first = LocalExecutor()
    first.start(factory, None)
    executor = Rising(first, second)
    executor.start(factory, None)
    return executor


def become_ready(executor):
    executor._second.go.set()
    assert executor._started.wait(20)


def test_work_moves_in_the_midst_of_a_map_and_of_a_stream():
    for of_stream in (False, True):
        executor = rising(Later())
        results = executor.stream(iter("abcd")) if of_stream else executor.map("abcd")
        found = [next(results), next(results)]
        assert (executor.name, executor.workers) == ("local", 1)
        become_ready(executor)
        found += results
        assert found == (list(enumerate("abcd")) if of_stream else list("abcd"))
        assert (executor.name, executor.workers) == ("later", 3)
        assert list(executor.map("ef")) == ["e", "f"]
        executor.close()
        assert executor._thread is not None
        assert not executor._thread.is_alive()


def test_without_moving_everything_is_as_the_first_alone_does_it():
    executor = rising(Later(), raiser)
    assert list(executor.map([])) == []
    found = list(executor.stream([1, "ValueError", 2]))
    assert [index for index, _ in found] == [0, 1, 2]
    assert isinstance(found[1][1], Failure)
    with pytest.raises(CampaignError, match="NOT_YET"):
        list(executor.stream([NOT_YET]))
    executor._second.go.set()
    executor.close()
    assert executor._second.closed


def test_what_hindered_the_start_is_raised_where_work_would_move():
    executor = rising(Later(InputError("no cluster there")))
    assert next(iter(executor.map("ab"))) == "a"
    become_ready(executor)
    with pytest.raises(InputError, match="no cluster there"):
        list(executor.map("c"))
    executor.close()


def test_another_start_ends_the_first():
    executor = rising(Later())
    become_ready(executor)
    with pytest.raises(CampaignError, match="KeyError"):
        executor.start(broken, "x")
    assert executor.name == "later"
    executor.start(echo, None)
    assert list(executor.map([1])) == [1]
    executor.close()


SCRIPT = """
import os, signal, sys, threading, time
from evoquant.execution.local import LocalExecutor
from evoquant.execution.ray import RayExecutor
from evoquant.execution.rising import Rising
from evoquant.testing.executors import sleeper
if __name__ == "__main__":
    first = LocalExecutor()
    first.start(sleeper, 0)
    executor = Rising(first, RayExecutor(workers=2, address="local"))
    try:
        executor.start(sleeper, 0)
        if sys.argv[1] == "interrupt":
            threading.Timer(float(sys.argv[2]), os.killpg, (os.getpgid(0), signal.SIGINT)).start()
            list(executor.map([60.0]))
        count = 0
        while executor.name == "local":
            assert list(executor.map([0.01] * 4)) == [0.01] * 4
        time.sleep(1.0)  # the cluster must not end with its start
        assert list(executor.map([0.01] * 4)) == [0.01] * 4
        assert dict(executor.stream([0.0, 0.01])) == {0: 0.0, 1: 0.01}
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        executor.close()
    import ray
    assert not ray.is_initialized()
    print(executor.name)
"""


@pytest.mark.parametrize(("words", "expected"), [(["go"], "ray\n"), (["interrupt", "1.5"], "interrupted\nlocal\n")])
def test_ray_rises_in_the_background_and_leaves_nothing_behind(tmp_path, words, expected):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    mark = f"mark-{os.getpid()}-{words[0]}"
    done = subprocess.run(
        [sys.executable, script, *words],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
        env={**os.environ, "RISING_MARK": mark},
    )
    assert done.stdout == expected, done.stderr
    assert done.stderr == ""
    assert not list(processes_with(f"RISING_MARK={mark}")), "a process of the cluster was left"


def processes_with(text):
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (process / "environ").read_bytes():
                yield process.name
        except OSError:
            continue


def test_closing_says_what_it_waits_for_and_needs_no_start():
    said = []
    second = Later()
    executor = Rising(LocalExecutor(), second, said.append)
    executor._thread = threading.Thread()  # as after Ctrl-C between its making and its start
    executor.close()
    assert said == []
    first = LocalExecutor()
    first.start(echo, None)
    executor = Rising(first, second, said.append)
    executor.start(echo, None)
    threading.Timer(0.2, second.go.set).start()
    executor.close()
    assert said == ["later is still starting; it is stopped as soon as it can be, within seconds"]
