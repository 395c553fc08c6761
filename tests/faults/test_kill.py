"""A campaign killed at any write, or at any time, and again while it resumes, ends as the one that nobody disturbed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.report.data import load_run, report_data

from .crash import AFTER, BEFORE, CC, KILLED, WITHIN, Server

pytestmark = pytest.mark.skipif(CC is None, reason="a disk that fails is a C library, and there is no C compiler")

CONFIGS = Path(__file__).parents[2] / "configs"
KEPT = ("journal.jsonl", "champion.json", "report.json", "archive.json", "gate.json")
TINY = """
name: tiny
task: {kind: tiny, block: 100}
menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2}
stop: {generations: 6}
executor: {kind: local}
"""
SMALL = ["stop.generations=8", "search.population=20"]
CAMPAIGNS = {
    "rules on profiles": ("evolve.yaml", SMALL),
    "a large population, its journal written by a thread": ("evolve.yaml", [*SMALL, "search.population=2100"]),
    "a search with an archive": ("nsga2.yaml", SMALL),
    "a network": ("tiny.yaml", []),
    "a network without generations": ("tiny.yaml", ["search.in_flight=5"]),
    "a network in PyTorch": ("digits.yaml", ["stop.generations=4", "search.population=8"]),
}
TORCH = "a network in PyTorch"
IN_A_ROW = 3  # kills of one run at most
LONG = 34  # of each campaign


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Campaign → what runs commands; PyTorch is loaded where it is needed."""
    made = {}

    def server(campaign):
        load = ("torch", "sklearn.datasets", "evoquant.models.torch_task") if campaign == TORCH else ()
        if load not in made:
            made[load] = Server(tmp_path_factory.mktemp("server"), load=load)
        return made[load]

    yield server
    for one in made.values():
        with one:
            pass


class Case:
    """One campaign in a folder of its own: `run` and `cache` lie below it."""

    def __init__(self, server, folder, campaign):
        config, changes = CAMPAIGNS[campaign]
        self.out = folder / "run"
        self._server, self._folder = server, folder
        folder.mkdir()
        if config == "tiny.yaml":
            (folder.parent / config).write_text(TINY)
        source = folder.parent / config if config == "tiny.yaml" else CONFIGS / config
        # a network that is trained once would take most of the time
        cache = folder.parent if campaign == TORCH else folder
        changes = [*changes, f"cache={cache / 'cache'}", "executor.kind=local"]
        self._run = ["run", source, "--out", self.out, *(word for change in changes for word in ("--set", change))]

    def go(self, **disturbance):
        """Run, or go on."""
        begun = (self.out / "resolved.json").exists()
        return self._server(
            *(["resume", self.out] if begun else self._run), **{"watch": str(self._folder), **disturbance}
        )

    def kept(self):
        return {name: (self.out / name).read_bytes() for name in KEPT if (self.out / name).exists()}

    def litter(self):
        return sorted(path.name for path in self.out.rglob("*") if path.name.endswith(".tmp"))


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


@pytest.mark.parametrize("kills", [2, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_killed_anywhere_and_resumed_it_is_byte_identical(servers, tmp_path, record, campaign, kills):
    if campaign == TORCH and (kills < LONG or importlib.util.find_spec("torch") is None):
        pytest.skip("a network in PyTorch is killed by the long test, with the torch extra")
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
                point = {"fault": int(rng.choice([BEFORE, WITHIN, AFTER])), "at": int(rng.integers(1, reach + 1))}
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


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])
def test_killed_within_each_write_of_a_run(servers, tmp_path, record, step):
    """Every one, in turn, from the first folder that is made to the report."""
    campaign = "rules on profiles"
    whole = Case(servers(campaign), tmp_path / "whole", campaign)
    undisturbed = whole.go()
    expected = whole.kept()
    points = [(at, fault) for at in range(1, undisturbed.changes + 1) for fault in (BEFORE, WITHIN, AFTER)][::step]
    for at, fault in points:
        case = Case(servers(campaign), tmp_path / f"{at}-{fault}", campaign)
        killed = case.go(fault=fault, at=at)
        assert killed.code in (KILLED, 0)  # the number of checkpoints depends on the time
        check_killed(case.out, expected) if case.out.exists() else None
        last = case.go()
        assert last.code == 0, last.errors
        assert case.kept() == expected, (at, fault)
        assert case.litter() == []
    record("kills", "each write of one run in turn, before, within and after it", tried=len(points), held=len(points))
