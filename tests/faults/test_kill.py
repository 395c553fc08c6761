"""A campaign killed at any write or at any time, and again while it resumes, ends as the one that nobody disturbed."""

import importlib.util

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.report.data import load_run, report_data

from .crash import AFTER, BEFORE, CAMPAIGNS, CC, KEPT, KILLED, LARGE, POWER_CUT, STEADY, TORCH, WITHIN, Case

pytestmark = pytest.mark.skipif(CC is None, reason="a disk that fails is a C library, and there is no C compiler")

FAULTS = (BEFORE, WITHIN, AFTER, POWER_CUT)
IN_A_ROW = 3  # kills of one run at most
LONG = 34  # of each campaign


def check_killed(out, expected):
    """What a killed run leaves is complete so far, and can be looked at."""
    journal = out / "journal.jsonl"
    if journal.exists():
        whole = journal.read_bytes()
        assert expected["journal.jsonl"].startswith(whole[: whole.rfind(b"\n") + 1])
    for path in (path for path in out.glob("*.json") if path.name in KEPT):
        assert path.read_bytes() == expected[path.name], path.name
    try:
        report_data(load_run(out))
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kills", [1, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_killed_anywhere_and_resumed_it_is_byte_identical(servers, tmp_path, record, campaign, kills):
    if campaign in (LARGE, STEADY, TORCH) and kills < LONG:
        pytest.skip("takes long: left to the long test")
    if campaign == TORCH and importlib.util.find_spec("torch") is None:
        pytest.skip("needs the torch extra")
    rng = np.random.default_rng(list(CAMPAIGNS).index(campaign))
    server = servers(campaign)
    whole = Case(server, tmp_path / "whole", campaign)
    undisturbed = whole.go()
    assert undisturbed.code == 0, undisturbed.errors
    expected = whole.kept()
    survived = runs = by_time = 0
    resumed_s = []
    while survived < kills:
        case = Case(server, tmp_path / str(runs), campaign)
        runs += 1
        done = 0
        for number in range(min(IN_A_ROW, kills - survived)):
            if rng.random() < 0.25:
                point = {"after_s": float(rng.uniform(0, undisturbed.seconds))}
            else:
                reach = undisturbed.changes // (1 if number == 0 else IN_A_ROW)
                point = {
                    "fault": int(rng.choice(FAULTS)),
                    "at": int(rng.integers(1, reach + 1)),
                }
            ended = case.go(**point)
            if ended.code != KILLED:  # what was left to do took fewer writes
                assert ended.code == 0, ended.errors
                break
            done += 1
            by_time += "after_s" in point
            if case.out.exists():
                check_killed(case.out, expected)
        last = case.go()
        assert last.code == 0, (point, last.errors)
        assert case.kept() == expected, (runs, point)
        assert case.litter() == []
        survived += done
        resumed_s.append(last.seconds)
    record(
        "kills",
        f"{campaign}: killed, resumed, byte for byte the undisturbed run",
        tried=survived,
        held=survived,
        runs=runs,
        at_a_write=survived - by_time,
        at_a_time=by_time,
        writes=undisturbed.changes,
    )


@pytest.mark.parametrize("step", [101, pytest.param(1, marks=pytest.mark.long)])
def test_killed_within_each_write_of_a_run(servers, tmp_path, record, step):
    """Every one, in turn, from the first folder that is made to the report."""
    campaign = "rules on profiles"
    whole = Case(servers(campaign), tmp_path / "whole", campaign)
    undisturbed = whole.go()
    expected = whole.kept()
    points = [(at, fault) for at in range(1, undisturbed.changes + 1) for fault in FAULTS][::step]
    for at, fault in points:
        case = Case(servers(campaign), tmp_path / f"{at}-{fault}", campaign)
        killed = case.go(fault=fault, at=at)
        assert killed.code in (KILLED, 0)  # the number of checkpoints depends on the time
        check_killed(case.out, expected) if case.out.exists() else None
        last = case.go()
        assert last.code == 0, last.errors
        assert case.kept() == expected, (at, fault)
        assert case.litter() == []
    record(
        "kills",
        "each write of a run in turn: a kill before, within, after it, a power cut",
        tried=len(points),
        held=len(points),
    )
