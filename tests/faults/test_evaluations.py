"""Evaluations that hang, die, raise, eat memory or say nonsense: whole campaigns, by the command line."""

import contextlib
import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest

from .driving import LIMIT, MEASURED, RAY, SUITE, Driver, files, lines, one_message

REASONS = {
    "hang": "time_limit",
    "spin": "time_limit",
    "kill": "worker_lost",
    "leave": "raised:SystemExit",
    "complain": "raised:ValueError",
    "hunger": "raised:MemoryError",
}
ON_RAY = pytest.param(RAY, marks=pytest.mark.long, id="ray")


def mostly_long(names, short):
    """The parameters, all but the named ones only with the long tests."""
    return [name if name in short else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.fixture
def start(tmp_path):
    """Start the command line; what is still running at the end is killed."""
    (tmp_path / "faults.yaml").write_text(MEASURED)
    started = []

    def begin(verb, *words, mood="", config=None, cache="cache", **environment):
        what = (config or tmp_path / "faults.yaml") if verb == "run" else None
        started.append(Driver([verb, *([what] if what else []), *words], tmp_path / cache, mood, **environment))
        return started[-1]

    yield begin
    for driver in started:
        driver.clear()


def failures(out):
    return {key: reason for line in lines(out) for key, reason in line["failures"].items()}


@pytest.fixture(scope="module")
def guilty(tmp_path_factory):
    """The candidates that misbehave: the same whatever they do, and wherever."""
    folder = tmp_path_factory.mktemp("guilty")
    (folder / "faults.yaml").write_text(MEASURED)
    driver = Driver(["run", folder / "faults.yaml", "--out", folder / "run"], folder / "cache", "complain")
    code, errors = driver.end()
    assert code == 0, errors
    found = set(failures(folder / "run"))
    assert 0 < len(found) < 8
    return found


@pytest.mark.parametrize("executor", [pytest.param((), id="local"), ON_RAY])
@pytest.mark.parametrize("fault", mostly_long(REASONS, ("spin", "kill", "hunger")))
def test_a_fault_is_recorded_with_its_reason_of_those_that_have_it(start, tmp_path, guilty, record, fault, executor):
    out = tmp_path / "run"
    code, errors = start("run", "--out", out, *LIMIT, *executor, mood=fault).end()
    assert code == 0, errors
    assert "Traceback" not in errors
    assert failures(out) == dict.fromkeys(guilty, REASONS[fault])
    assert len(lines(out)) == 4
    if executor:
        record("evaluations", f"{fault} on Ray", tried=len(guilty), held=len(guilty), reason=REASONS[fault])


@pytest.mark.parametrize("fault", mostly_long(("leave", "complain"), ("leave",)))
def test_a_batch_without_a_limit_blames_nobody_else(start, tmp_path, guilty, fault):
    out = tmp_path / "run"
    code, errors = start("run", "--out", out, mood=fault).end()
    assert code == 0, errors
    assert set(failures(out)) == guilty


def test_a_time_limit_that_was_journalled_stays_when_nothing_hangs_any_more(start, tmp_path, guilty):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert start("run", "--out", whole, *LIMIT, mood="hang").end()[0] == 0
    disturbed = start("run", "--out", out, *LIMIT, mood="hang", cache="other", MISBEHAVE_NAP="0.05")
    disturbed.wait_until(lambda: len(lines(out)) > 0)
    disturbed.process.send_signal(signal.SIGKILL)
    disturbed.end()
    assert not (out / "champion.json").exists()
    code, errors = start("resume", out, cache="third").end()
    assert code == 0, errors
    assert files(out) == files(whole)


@pytest.mark.parametrize("fault", mostly_long(("hang", "spin"), ("spin",)))
@pytest.mark.parametrize("executor", [pytest.param((), id="local"), ON_RAY])
def test_a_campaign_that_is_killed_leaves_no_process(start, tmp_path, record, fault, executor):
    """Also of an evaluation that is deaf to all signals, in C code that never lets go of the interpreter."""
    driver = start("run", "--out", tmp_path / "run", "--set", "executor.limit_s=600", *executor, mood=f"{fault}")
    driver.wait_until(lambda: _deaf(driver))
    driver.process.kill()
    driver.process.wait()
    seconds = driver.gone()
    if executor:
        record("processes", f"driver killed, {fault} on Ray", tried=1, held=1, seconds=round(seconds, 1))


def _deaf(driver):
    """Whether one of its processes has blocked SIGTERM, as those that misbehave have."""
    for pid in driver.others():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
            masks = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk:")]
            if masks and masks[0] >> (signal.SIGTERM - 1) & 1 and masks[0] >> (signal.SIGUSR1 - 1) & 1:
                return True
    return False


@pytest.mark.parametrize("executor", [pytest.param((*LIMIT[:1], "executor.limit_s=600"), id="local"), ON_RAY])
def test_ctrl_c_ends_a_campaign_whose_evaluation_hangs(start, tmp_path, executor):
    driver = start("run", "--out", tmp_path / "run", *executor, mood="hang")
    driver.wait_until(lambda: _deaf(driver))
    os.killpg(driver.process.pid, signal.SIGINT)
    code, errors = driver.end()
    assert code == 130, errors
    assert "evoquant resume" in one_message(errors)
    driver.gone()


def test_ctrl_c_ends_an_evaluation_in_this_process(start, tmp_path):
    driver = start("run", "--out", tmp_path / "run", MISBEHAVE_NAP="600")
    time.sleep(4)
    driver.process.send_signal(signal.SIGINT)
    code, errors = driver.end()
    assert code == 130, errors


SEARCHES = {
    "genetic": (),
    "steady": ("--set", "search.in_flight=3"),
    "surrogate": ("--set", "search={kind: surrogate, batch: 3}", "--set", "signals=[fisher]"),
    "short": ("--set", "stop.generations=2"),
}


@pytest.mark.parametrize("search", mostly_long(SEARCHES, ("genetic", "steady")))
def test_where_all_fail_the_campaign_ends_early_and_says_why(start, tmp_path, search):
    out = tmp_path / "run"
    code, errors = start("run", "--out", out, *SEARCHES[search], mood="complain always").end()
    assert code == 1, errors
    message = one_message(errors)
    asked = sum(line["population"]["size"] for line in lines(out))
    assert f"{asked} raised:ValueError" in message
    assert "'asked to'" in message
    assert len(lines(out)) <= 3
    before = (out / "journal.jsonl").read_bytes()
    code, errors = start("resume", out).end()
    assert (code, one_message(errors)) == (1, message)
    assert (out / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("how", mostly_long(("nan", "inf", "raise"), ("inf", "raise")))
@pytest.mark.parametrize("suite", [True, False], ids=["suite", "measured"])
def test_an_objective_that_gives_nobody_a_number(start, tmp_path, how, suite):
    out = tmp_path / "run"
    own = f"objective={{kind: 'misbehaving:Broken', options: {{how: {how}}}}}"
    small = ("--executor", "local", "--set", "search.population=8", "--set", own)
    code, errors = start("run", "--out", out, *small, config=SUITE if suite else None).end()
    message = one_message(errors)
    assert code == 1, errors
    assert ("ZeroDivisionError: asked to (" if how == "raise" else "24 not_finite") in message
    code, errors = start("resume", out, "--allow-code", "misbehaving:Broken").end()
    assert (code, one_message(errors)) == (1, message)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the torch extra")
@pytest.mark.parametrize("fault", mostly_long(("nan", "inf", "complain", "leave"), ("inf",)))
def test_a_network_of_ones_own(start, tmp_path, fault):
    """By `module:function`: its outputs are not finite, or it raises, where its first weights are few."""
    out, task = tmp_path / "run", "task={kind: torch, factory: 'misbehaving:torch_network', block: 100}"
    code, errors = start("run", "--out", out, "--set", task, "--set", "signals=[fisher]", NETWORK=fault).end()
    assert code == 0, errors
    expected = {"complain": "raised:ValueError", "leave": "raised:SystemExit"}.get(fault, "not_finite")
    assert set(failures(out).values()) == {expected}
    assert json.loads((out / "report.json").read_text())["failures"] == len(failures(out))
