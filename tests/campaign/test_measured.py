"""Measured campaigns on the tiny network: budget, racing, failures, replay."""

import json
import shutil

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.build import build_campaign
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.racing import BEHIND, BELOW_FLOOR, SAFE, Racing, Size, stages, verdict
from evoquant.errors import InputError, Interrupted
from evoquant.scoring.chance import Limits
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst
from evoquant.search.base import CENSORED, FAILED, OK
from evoquant.testing.interrupt import StopAfter

BASE = """
name: tiny
task: {kind: tiny, block: 100}
menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2}
stop: {generations: 6}
executor: {kind: local}
"""


@pytest.fixture
def run(tmp_path, tiny):
    (tmp_path / "tiny.yaml").write_text(BASE)

    def go(name, *overrides, observer=None, cache="cache"):
        changes = [f"cache={tmp_path / cache}", *overrides]
        return api.run(tmp_path / "tiny.yaml", out=tmp_path / name, overrides=changes, observer=observer).path

    return go


def journal(path):
    return [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]


def counted(lines):
    """Passes by the journal: reference and signals, and each (allocation, block) once."""
    pairs = set()
    for line in lines:
        for digest, one in line["measured"]["measurements"].items():
            pairs |= {(digest, block) for block in one["blocks"]}
    return 1 + 3 + len(pairs) * 100 / 600


@pytest.mark.parametrize("limit", [5, 7.5, 13, 20])
@pytest.mark.parametrize("racing", [True, False])
def test_the_budget_is_honoured_exactly(run, limit, racing):
    path = run("run", f"stop.passes={limit}", f"racing.enabled={racing}", "stop.generations=200")
    lines = journal(path)
    assert lines[-1]["passes"] == pytest.approx(counted(lines))
    assert limit - 1 < lines[-1]["passes"] <= limit
    dropped = [
        one.get("reason") == "out_of_passes" for line in lines[:-1] for one in line["measured"]["measurements"].values()
    ]
    assert not any(dropped), "only the last generation meets the limit"
    report = json.loads((path / "report.json").read_text())
    assert report["budget"]["signal_passes"] == 3
    assert report["budget"]["search_passes"] + 3 == pytest.approx(lines[-1]["passes"], abs=1e-6)
    assert set(report["finalist_passes"]) >= {"selection", "gate", "test"}


def test_whatever_does_not_fit_is_censored_and_never_measured(run, tiny):
    lines = journal(run("run", "stop.passes=6", "racing.enabled=false"))
    (line,) = lines
    reasons = [one.get("reason") for one in line["measured"]["measurements"].values()]
    assert reasons.count("out_of_passes") >= 3
    assert line["summary"]["status"]["censored"] >= 3
    assert line["failures"] == {} or set(line["failures"].values()) == {"raised:ValueError"}
    measured = {request.widths for task in tiny for request in task.calls if request.split == "calibration"}
    assert len(measured) == 3  # FP32 and two candidates


def test_a_budget_that_does_not_pay_the_signals_says_what_is_needed(run):
    with pytest.raises(InputError, match=r"stop\.passes: 4\.5 is less than the 5 .* signals \(3\)"):
        run("run", "stop.passes=4.5")


def test_a_warm_store_changes_the_time_and_nothing_else(run, tiny):
    cold, warm = run("cold", "stop.passes=20"), run("warm", "stop.passes=20")
    assert tiny[0].calls
    known = [request for request in tiny[1].calls if request.widths[0] != "FP16"]
    assert not known, "failures are tried again, all else is in the store"
    for name in ("journal.jsonl", "champion.json", "gate.json", "report.json"):
        assert (cold / name).read_bytes() == (warm / name).read_bytes()


def test_racing_spends_less_and_finishes_what_it_keeps(run):
    raced = journal(run("raced"))
    plain = journal(run("plain", "racing.enabled=false"))
    cut = [one for line in raced for one in line["measured"]["measurements"].values() if one["status"] == "censored"]
    assert cut
    assert {one["reason"] for one in cut} <= {"below_floor", "behind"}
    assert all(len(one["blocks"]) < 6 for one in cut)
    assert raced[0]["passes"] < plain[0]["passes"]
    for line in raced:
        for one in line["measured"]["measurements"].values():
            assert one["status"] != "ok" or one["samples"] == 600
    assert all(one["status"] != "censored" for line in plain for one in line["measured"]["measurements"].values())
    assert raced[-1]["champion"]["fitness"] > 0.95 * plain[-1]["champion"]["fitness"]


def test_estimates_of_those_cut_short_are_told(run, tmp_path, tiny):
    config = config_from_dict({**_plain(), "search": {"kind": "random", "population": 40}}, "test")
    campaign = build_campaign(config, tmp_path / "cache")
    try:
        told = campaign.estimator.evaluate(campaign.search.ask(), {})
    finally:
        campaign.close()
    cut, failed = told.status == CENSORED, told.status == FAILED
    assert cut.any()
    assert failed.any()
    for column in (told.fitness, told.retention[:, 0], told.standard_error, told.divergence):
        assert np.isfinite(column[~failed]).all()
    assert np.isnan(told.standard_error[failed]).all()
    assert np.isnan(told.divergence[failed]).all()
    assert (told.standard_error[cut] > told.standard_error[told.status == OK].max()).mean() > 0.5
    assert told.fitness[cut].max() < told.fitness[told.status == OK].max()
    assert (told.standard_error[~failed] > 0).all()


def test_one_is_measured_in_full_even_where_all_are_hopeless(run):
    path = run("run", "menu=[INT2-channel]", "stop.generations=2", "objective.threshold=0.99")
    line = journal(path)[0]
    assert [one["status"] for one in line["measured"]["measurements"].values()] == ["ok"]
    assert (path / "champion.json").exists()


def test_safe_candidates_need_fewer_samples(run):
    """Above the floor the fitness is the compression, whatever the retention."""
    path = run("run", "objective={kind: feasible_first, floor: 0.6}", "search.population=20", "stop.generations=2")
    safe = [
        one
        for line in journal(path)
        for one in line["measured"]["measurements"].values()
        if one["status"] == "ok" and one["samples"] < 600
    ]
    assert safe
    assert all(one["retention"] > 0.6 for one in safe)
    spent = json.loads((path / "report.json").read_text())["finalist_passes"]
    assert 0 < spent["calibration"] <= 32


def test_interrupted_at_every_generation_it_ends_the_same(run, tmp_path):
    whole = run("whole", "stop.passes=25")
    count = len(journal(whole))
    assert count >= 3
    for stop in range(1, count):
        with pytest.raises(Interrupted):
            run(f"run {stop}", "stop.passes=25", observer=StopAfter(stop), cache=f"cache {stop}")
        shutil.rmtree(tmp_path / f"cache {stop}")
        path = api.resume(tmp_path / f"run {stop}").path
        for name in ("journal.jsonl", "champion.json", "gate.json"):
            assert (path / name).read_bytes() == (whole / name).read_bytes(), (stop, name)


def test_a_failure_that_does_not_come_again_keeps_its_passes(run, tmp_path, monkeypatch):
    """A time limit that cut off a candidate in the middle of its race counts what had been asked for by then."""
    from evoquant.campaign.journal import failures_of

    path = run("run", "stop.generations=1", "search.population=40")
    (line,) = journal(path)
    known = failures_of(line, 0)
    assert known
    assert {one.blocks for one in known.values()} == {2}, "the network refuses FP16 on its second block"
    config = config_from_dict({**_plain(), "search": {"kind": "genetic", "population": 40}}, "test")
    campaign = build_campaign(config, tmp_path / "cache")
    try:
        campaign.measurer.task.calls.clear()
        told = campaign.estimator.evaluate(campaign.search.ask(), known)
        assert not campaign.measurer.task.calls
    finally:
        campaign.close()
    assert campaign.estimator.counters.passes == line["passes"]
    assert {row for row, reason in told.reasons.items() if reason == "raised:ValueError"} == set(known)


def _plain():
    from evoquant.campaign.yaml_file import parse_yaml

    return parse_yaml(BASE, "test")


def test_stages_double_and_wait_for_enough_samples():
    assert stages([100] * 10) == (1, 2, 4, 10)
    assert stages([100] * 5) == (1, 2, 5)
    assert stages([30] * 10) == (4, 10)
    assert stages([500]) == (1,)
    assert stages([100] * 10, racing=False) == (10,)


@pytest.mark.parametrize(
    ("objective", "limits", "best", "expected"),
    [
        (Cliff(), Limits(0.90, 0.94), -np.inf, BELOW_FLOOR),
        (Cliff(), Limits(0.90, 0.96), -np.inf, None),
        (Cliff(), Limits(0.96, 0.97), 5.7, BEHIND),  # 4 · 1.4 at best
        (Cliff(), Limits(0.96, 0.97), 5.5, None),
        (FeasibleFirst(), Limits(0.96, 0.97), 3.0, SAFE),
        (FeasibleFirst(), Limits(0.96, 0.97), 4.5, BEHIND),
        (FeasibleFirst(), Limits(0.94, 0.97), 3.0, None),
        (BitBudget(8.0), Limits(0.94, 0.97), 0.98, BEHIND),
        (BitBudget(4.0), Limits(0.94, 0.97), 0.5, BEHIND),  # too large, however good
        (Cliff(), Limits(np.nan, np.nan), 9.0, None),
    ],
)
def test_verdicts(objective, limits, best, expected):
    assert verdict(Racing(), objective, limits, Size(4.0, 8.0), best=best) == expected


def test_a_front_is_not_raced_for_its_fittest():
    assert verdict(Racing(behind=False), Cliff(), Limits(0.96, 0.97), Size(4.0, 8.0), best=9.0) is None
