"""The same journal from every executor, number of workers and interruption, with real processes and real Ray."""

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
EXECUTORS = {
    "local": ["--executor", "local"],
    "ray-1": ["--executor", "ray", "--workers", "1"],
    "ray-2": ["--executor", "ray", "--workers", "2"],
}
DISTURBANCES = {
    "undisturbed": [],
    "interrupted": [signal.SIGINT],
    "terminated": [signal.SIGTERM],  # for which Ray has a handler of its own
    "killed twice": [signal.SIGKILL, signal.SIGKILL],
}
SOON = (("ray-2", "killed twice"),)
LONG = pytest.mark.long
SUITE = ["--set", "stop.generations=40", "--set", "search.population=60"]


def launch(words):
    command = [sys.executable, "-m", "evoquant.cli", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def length(out):
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def disturb(words, out, number):
    """Start, wait for new lines in the journal, and send the signal."""
    before = length(out)
    process = launch(words)
    deadline = time.monotonic() + 120
    while process.poll() is None and length(out) <= before + 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate()
    return process.returncode


def run(out, options, config, changes, disturbances):
    start = ["run", CONFIGS / config, "--out", out, *options, *changes]
    again = ["resume", out, *options]
    words = start
    for number in disturbances:
        code = disturb(words, out, number)
        assert code in (130, -signal.SIGKILL), code
        assert not (out / "champion.json").exists(), "the run ended before it was disturbed"
        words = again
    last = launch(words)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    return (out / "journal.jsonl").read_bytes(), (out / "champion.json").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "run"
    return run(out, EXECUTORS["local"], "evolve.yaml", SUITE, [])


WAYS = [
    pytest.param(executor, disturbance, marks=() if executor == "local" or (executor, disturbance) in SOON else LONG)
    for executor in EXECUTORS
    for disturbance in DISTURBANCES
]


@pytest.mark.parametrize(("executor", "disturbance"), WAYS)
def test_many_ways_to_the_same_journal(expected, tmp_path, executor, disturbance):
    got = run(tmp_path / "run", EXECUTORS[executor], "evolve.yaml", SUITE, DISTURBANCES[disturbance])
    assert got == expected


@pytest.mark.long  # the same within a run: execution/test_rising.py
def test_an_executor_may_change_between_run_and_resume(expected, tmp_path):
    out = tmp_path / "run"
    disturb(["run", CONFIGS / "evolve.yaml", "--out", out, *EXECUTORS["local"], *SUITE], out, signal.SIGINT)
    last = launch(["resume", out, *EXECUTORS["ray-2"]])
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert (out / "journal.jsonl").read_bytes() == expected[0]


@pytest.mark.long  # the same without Ray: optional_torch/test_campaign.py
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the torch extra")
def test_measured_on_ray_with_the_cache_deleted_before_the_resume(tmp_path):
    import shutil

    small = ["--set", "stop.generations=6", "--set", "search.population=12"]
    whole = [*small, "--set", f"cache={tmp_path / 'one'}"]
    expected = run(tmp_path / "whole", EXECUTORS["local"], "digits.yaml", whole, [])
    out, cache = tmp_path / "run", tmp_path / "two"
    words = ["run", CONFIGS / "digits.yaml", "--out", out, *EXECUTORS["ray-2"], *small, "--set", f"cache={cache}"]
    assert disturb(words, out, signal.SIGKILL) == -signal.SIGKILL
    assert not (out / "champion.json").exists()
    shutil.rmtree(cache)
    last = launch(["resume", out, *EXECUTORS["ray-2"]])
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert ((out / "journal.jsonl").read_bytes(), (out / "champion.json").read_bytes()) == expected
