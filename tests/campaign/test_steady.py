"""Campaigns without generations: the order of arrival is the journal's, replay is exact, the budget holds."""

import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evoquant import api
from evoquant.campaign import build, gate, loop
from evoquant.campaign.config import config_from_dict
from evoquant.errors import ConfigError, Interrupted, RunDirError
from evoquant.execution.base import NOT_YET
from evoquant.execution.local import LocalExecutor
from evoquant.testing.interrupt import StopAfter

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = """
name: tiny
task: {kind: tiny, block: 100}
menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2, in_flight: 5}
stop: {generations: 6}
executor: {kind: local}
"""
SURROGATE = ("search={kind: surrogate, batch: 3, in_flight: 4}", "signals=[fisher]")
KEPT = ("journal.jsonl", "champion.json", "gate.json", "report.json")


class Shuffled(LocalExecutor):
    """Holds up to `workers` batches and finishes them in an order that a seed decides."""

    workers = 3

    def __init__(self, seed):
        super().__init__()
        self._order = random.Random(seed)

    def stream(self, batches):
        source = iter(batches)
        held, count = [], 0
        while True:
            while len(held) < self.workers:
                batch = next(source)
                if batch is NOT_YET:
                    break
                held.append((count, batch))
                count += 1
            assert held, "a NOT_YET with nothing at work"
            index, batch = held.pop(self._order.randrange(len(held)))
            yield index, self._call(batch)


@pytest.fixture
def go(tmp_path, tiny, monkeypatch):
    """Run or resume the campaign with arrivals in an order of its own (`seed`), or in the order of asking."""
    (tmp_path / "tiny.yaml").write_text(BASE)
    monkeypatch.setattr(gate, "RESAMPLES", 100)

    def with_order(seed):
        monkeypatch.setattr(build, "make_executor", lambda *_: LocalExecutor() if seed is None else Shuffled(seed))

    def run(name, *overrides, seed=None, observer=None, cache=None):
        with_order(seed)
        changes = [f"cache={tmp_path / (cache or f'cache of {name}')}", *overrides]
        return api.run(tmp_path / "tiny.yaml", out=tmp_path / name, overrides=changes, observer=observer).path

    def resume(path, seed=None):
        with_order(seed)
        return api.resume(path).path

    run.resume = resume
    run.tasks = tiny
    return run


def journal(path):
    return [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]


def arrivals(lines):
    return [number for line in lines for number in line["population"]["asked"]]


def replayed(go, path, tmp_path, *, lines=None):
    """The run again from its config and (the first lines of) its journal alone, with an empty cache."""
    copy = tmp_path / f"copy of {path.name}"
    copy.mkdir()
    for name in ("config.yaml", "resolved.json", "environment.json", "profile.json"):
        if (path / name).exists():
            shutil.copy(path / name, copy / name)
    kept = (path / "journal.jsonl").read_text().splitlines(keepends=True)[:lines]
    (copy / "journal.jsonl").write_text("".join(kept))
    shutil.rmtree(tmp_path / f"cache of {path.name}", ignore_errors=True)
    return copy


@pytest.mark.parametrize("more", [(), SURROGATE])
def test_on_one_worker_candidates_arrive_as_they_were_asked_whatever_the_store_has(go, more):
    cold = go("cold", *more, cache="one")
    lines = journal(cold)
    assert arrivals(lines) == list(range(len(arrivals(lines))))
    warm = go("warm", *more, cache="one")
    for name in KEPT:
        assert (cold / name).read_bytes() == (warm / name).read_bytes()


def test_a_line_holds_so_many_arrivals_with_their_ids_and_parents(go):
    path = go("run", seed=1)
    lines = journal(path)
    assert len(lines) == 6
    for number, line in enumerate(lines):
        population = line["population"]
        assert (population["first_id"], population["size"]) == (8 * number, 8)
        assert all(p < population["first_id"] + row for row, of in enumerate(population["parents"]) for p in of)
    assert sorted(arrivals(lines)) == list(range(48)), "nothing was asked that no line holds"
    assert arrivals(lines) != list(range(48))
    report = json.loads((path / "report.json").read_text())
    assert report["evaluations"]["asked"] == 48
    assert report["generations"] == 6
    assert (path / "gate.json").exists()


def test_another_order_gives_another_journal(go):
    first, again, other = go("a", seed=1), go("b", seed=1), go("c", seed=2)
    assert (first / "journal.jsonl").read_bytes() == (again / "journal.jsonl").read_bytes()
    assert (first / "journal.jsonl").read_bytes() != (other / "journal.jsonl").read_bytes()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("more", [(), SURROGATE, ("stop.passes=14", "stop.generations=99"), ("stop.stagnation=1",)])
def test_replay_is_exact(go, tmp_path, seed, more):
    """From the journal alone, measured afresh on one worker, with failures among the candidates."""
    path = go("run", *more, seed=seed)
    assert any(line["failures"] for line in journal(path)) or more == SURROGATE
    copy = go.resume(replayed(go, path, tmp_path))
    for name in KEPT:
        assert (path / name).read_bytes() == (copy / name).read_bytes(), name


@pytest.mark.parametrize("stop", [1, 4])
def test_interrupted_it_goes_on_after_what_is_journalled(go, tmp_path, stop):
    with pytest.raises(Interrupted):
        go("run", seed=3, observer=StopAfter(stop))
    path = tmp_path / "run"
    before = (path / "journal.jsonl").read_bytes()
    assert before.count(b"\n") == stop
    go.resume(path, seed=8)
    assert (path / "journal.jsonl").read_bytes().startswith(before)
    lines = journal(path)
    assert sorted(arrivals(lines)) == list(range(48)), "those in flight were asked again, and nobody twice"
    copy = go.resume(replayed(go, path, tmp_path))
    for name in KEPT:
        assert (path / name).read_bytes() == (copy / name).read_bytes(), name


def test_what_is_in_the_store_is_not_measured_again(go, tmp_path):
    with pytest.raises(Interrupted):
        go("run", seed=3, observer=StopAfter(3))
    first = {request for request in go.tasks[0].calls if request.split == "calibration"}
    go.resume(tmp_path / "run", seed=8)
    again = [one for one in go.tasks[1].calls if one in first and not (one.widths[0] == "FP16" and one.block == 1)]
    assert not again, "only failures are tried again"


def changed(path, change):
    lines = journal(path)
    change(lines)
    text = "".join(json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
    (path / "journal.jsonl").write_text(text)


def swap(lines):
    asked = lines[2]["population"]["asked"]
    asked[3], asked[4] = asked[4], asked[3]


def earlier(lines):
    lines[1]["population"]["asked"][0] = 0


def later(lines):
    lines[0]["population"]["asked"][0] = 40


def shorter(lines):
    lines[1]["population"]["asked"].pop()


def missing(lines):
    del lines[0]["population"]["asked"]


@pytest.mark.parametrize("change", [swap, earlier, later, shorter, missing])
def test_a_changed_order_of_arrival_is_refused(go, tmp_path, change):
    path = replayed(go, go("run", seed=1), tmp_path)
    unchanged = (path / "journal.jsonl").read_bytes()
    changed(path, lambda lines: None)
    assert (path / "journal.jsonl").read_bytes() == unchanged
    changed(path, change)
    with pytest.raises(RunDirError, match=r"generation [012]") as raised:
        go.resume(path)
    assert raised.value.exit_code == 2
    assert not (path / "champion.json").exists()


def counted(lines):
    """Passes by the journal: reference and signals, and each (allocation, block) once."""
    pairs = set()
    for line in lines:
        for digest, one in line["measured"]["measurements"].items():
            pairs |= {(digest, block) for block in one["blocks"]}
    return 1 + 3 + len(pairs) * 100 / 600


@pytest.mark.parametrize("limit", [5, 13])
@pytest.mark.parametrize("racing", [True, False])
@pytest.mark.parametrize("in_flight", [3, 20])
def test_the_budget_is_never_exceeded(go, limit, racing, in_flight):
    path = go(
        "run",
        f"stop.passes={limit}",
        f"racing.enabled={racing}",
        f"search.in_flight={in_flight}",
        "stop.generations=200",
        seed=4,
    )
    lines = journal(path)
    assert lines[-1]["passes"] == pytest.approx(counted(lines))
    assert limit - 1 < lines[-1]["passes"] <= limit
    passes = [line["passes"] for line in lines]
    assert passes == sorted(passes)
    numbers = arrivals(lines)
    assert sorted(numbers) == list(range(len(numbers))), "what was asked has arrived, so it is counted"
    calls = {(one.widths, one.block) for one in go.tasks[0].calls if one.split == "calibration"}
    searched = {d for line in lines for d in line["measured"]["allocations"]}
    assert len(searched) + 1 == lines[-1]["evaluations"]["distinct"]
    assert len(calls) >= (lines[-1]["passes"] - 3) * 6 - 1e-6, "the finalists' calls are among these, too"


def test_those_in_flight_at_the_end_are_waited_for(go):
    lines = journal(go("run", "stop.stagnation=1", "stop.generations=50", seed=2))
    numbers = arrivals(lines)
    assert sorted(numbers) == list(range(len(numbers)))
    assert lines[-1]["population"]["size"] == 5
    assert all(line["population"]["size"] == 8 for line in lines[:-1])


def test_an_allocation_is_raced_once(go):
    lines = journal(go("run", "search.immigrant_rate=0", "search.mutation_rate=0.01", seed=5))
    records = {}
    doubles = 0
    for line in lines:
        doubles += len(line["measured"]["allocations"]) - len(line["measured"]["measurements"])
        for digest, record in line["measured"]["measurements"].items():
            assert records.setdefault(digest, record) == record
    assert doubles


def test_evaluations_end_it_after_a_whole_line(go):
    lines = journal(go("run", "stop.evaluations=20", "stop.generations=50", seed=2))
    assert [line["evaluations"]["asked"] for line in lines] == [8, 16, 24]


def test_wall_time_ends_it_and_resume_goes_on(go):
    path = go("run", "stop.wall_time_s=1e-9", seed=1)
    assert len(journal(path)) == 1
    for _ in range(5):
        go.resume(path, seed=1)
    lines = journal(path)
    assert sorted(arrivals(lines)) == list(range(48))


def test_workers_may_change_after_the_first_line(go, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "auto_choice", lambda *_: ("ray", "for the test"))
    monkeypatch.setattr(loop, "make_executor", lambda *_: Shuffled(6))
    path = go("run", "executor.kind=auto", seed=1)
    lines = journal(path)
    assert sorted(arrivals(lines)) == list(range(48))
    copy = go.resume(replayed(go, path, tmp_path))
    assert (path / "journal.jsonl").read_bytes() == (copy / "journal.jsonl").read_bytes()


def test_the_hashes_of_others_stay_and_profiles_are_refused():
    plain = {"name": "x", "task": {"kind": "digits"}, "search": {"kind": "genetic"}}
    steady = {**plain, "search": {"kind": "genetic", "in_flight": 2}}
    assert "in_flight" not in config_from_dict(plain, "test").to_dict()["search"]
    assert config_from_dict(steady, "test").to_dict()["search"]["in_flight"] == 2
    assert config_from_dict(plain, "test").hash() != config_from_dict(steady, "test").hash()
    with pytest.raises(ConfigError, match=r"search\.in_flight is for measured tasks"):
        config_from_dict({"name": "x", "search": {"kind": "genetic", "in_flight": 2}}, "test")
    islands = {"kind": "islands", "genetic": {"in_flight": 2}}
    with pytest.raises(ConfigError, match="islands meet after whole generations"):
        config_from_dict({**plain, "search": islands}, "test")
    with pytest.raises(ConfigError, match="in_flight"):
        config_from_dict({**plain, "search": {"kind": "nsga2", "in_flight": 2}}, "test")


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the torch extra")
def test_a_run_on_ray_is_replayed_exactly_on_one_worker(tmp_path):
    def call(*words):
        done = subprocess.run([sys.executable, "-m", "evoquant.cli", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    path, cache = tmp_path / "run", tmp_path / "cache"
    small = ["--set", "stop.generations=3", "--set", "search.population=12", "--set", f"cache={cache}"]
    call("run", CONFIGS / "steady.yaml", "--out", path, "--executor", "ray", "--workers", 2, *small)
    expected = {name: (path / name).read_bytes() for name in KEPT}
    assert sorted(arrivals(journal(path))) == list(range(36))
    for name in (*KEPT[1:], "checkpoint.json"):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(cache)
    call("resume", path, "--executor", "local")
    for name in KEPT:
        assert (path / name).read_bytes() == expected[name], name
