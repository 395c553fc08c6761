"""A damaged run directory is reported, continued to the same end, or refused untouched."""

import json
import shutil

import numpy as np
import pytest

from evoquant import api
from evoquant.errors import Interrupted
from evoquant.testing.interrupt import StopAfter

from . import mutations
from .judging import CONFIGS, Tally, input_folder, state, tiny_task, tried, tried_cli

folder = pytest.fixture(input_folder)
measured_task = pytest.fixture(scope="module")(tiny_task)


SMALL = ["executor.kind=local", "stop.generations=5", "search.population=12"]
READ_BY_REPORT = ("journal.jsonl", "champion.json", "archive.json", "gate.json", "resolved.json", "profile.json")
READ_BY_RESUME = ("journal.jsonl", "checkpoint.json", "resolved.json", "environment.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, measured_task):
    """Finished runs by name, and the same interrupted in the middle."""
    home = tmp_path_factory.mktemp("runs")
    (home / "tiny.yaml").write_text(
        f"task: {{kind: {measured_task}}}\ngenome: {{kind: direct}}\nmenu: [INT2-channel, INT8-channel, FP32]\n"
        f"cache: {home}/cache\nsearch: {{kind: genetic, population: 8}}\nracing: {{enabled: false}}\n"
    )
    configs = {"rules": CONFIGS / "evolve.yaml", "trees": CONFIGS / "tree.yaml", "tiny": home / "tiny.yaml"}
    configs["archive"] = CONFIGS / "map_elites.yaml"
    made = {}
    for name, config in configs.items():
        sizes = SMALL if name != "archive" else [SMALL[0], "stop.generations=4", "search.batch=12"]
        api.run(config, out=home / name, overrides=sizes)
        with pytest.raises(Interrupted):
            api.run(config, out=home / f"{name}-half", overrides=sizes, observer=StopAfter(3))
        made[name] = (home / name, home / f"{name}-half")
    return made


def placed(original, folder, name, data):
    """A copy of a run directory with one file changed."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(original, run)
    (run / name).write_bytes(data)
    return run


def check_report(original, folder, name, data, i):
    run = placed(original, folder, name, data)
    before = state(run)
    words = (["report", run], ["report", run, "--json"], ["report", run, "--markdown"], ["pick", run])[i % 4]
    if i % 11 == 0:
        words = ["export", run, "--to", "csv"]
    used = tried_cli([str(run), "'small'", "export", "csv", "signal"], *words)
    assert state(run) == before
    return used


def check_resume(whole, half, folder, name, data):
    """Used: the journal ends as if nothing had been; refused: nothing that was whole is lost."""
    run = placed(half, folder, name, data)
    before, complete = state(run), (half / "journal.jsonl").read_bytes()
    ended = []
    used = tried([str(run)], lambda: ended.append(api.resume(run)))
    journal = (run / "journal.jsonl").read_bytes()
    if used:
        assert journal == (whole / "journal.jsonl").read_bytes()
        assert (run / "champion.json").read_bytes() == (whole / "champion.json").read_bytes()
        return True
    given = data if name == "journal.jsonl" else complete
    assert given.startswith(journal), "a journal that is refused is cut at most"
    assert b"\n" not in given[len(journal) :].removesuffix(b"\n"), "at most its last line"
    grown = {"journal.jsonl", "checkpoint.json", ".lock"}  # of what is sound up to the damage there may be a checkpoint
    after = {path: digest for path, digest in state(run).items() if path not in grown}
    assert after == {path: digest for path, digest in before.items() if path not in grown}
    return False


def variants(data, rng, i):
    """The file with changed bytes, or, where it is JSON, with a changed value, or one in one of its lines."""
    if i % 2:
        return mutations.garbled(data, rng)
    lines = data.splitlines(keepends=True)
    whole = json.loads(data) if len(lines) == 0 or not data.startswith(b'{"best"') else None
    pick = lambda n: int(rng.integers(0, n))  # noqa: E731
    if whole is not None:
        return mutations.as_json(mutations.changed(whole, pick))
    row = pick(len(lines))
    lines[row] = mutations.as_json(mutations.changed(json.loads(lines[row]), pick)) + b"\n"
    return b"".join(lines)


@pytest.mark.parametrize("count", [60, pytest.param(1800, marks=pytest.mark.long)])
def test_reports_of_damaged_runs(runs, folder, record, count):
    rng, tally = np.random.default_rng(6), Tally()
    cases = [(run, name) for run, _ in runs.values() for name in READ_BY_REPORT if (run / name).exists()]
    for i in range(count):
        run, name = cases[i % len(cases)]
        tally.add(check_report(run, folder, name, variants((run / name).read_bytes(), rng, i), i))
    record("input", "reports of runs with a damaged file", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", [40, pytest.param(1200, marks=pytest.mark.long)])
def test_runs_that_go_on_with_a_damaged_file(runs, folder, record, count):
    rng, tally = np.random.default_rng(7), Tally()
    cases = [(*pair, name) for pair in runs.values() for name in READ_BY_RESUME if (pair[1] / name).exists()]
    for i in range(count):
        whole, half, name = cases[i % len(cases)]
        tally.add(check_resume(whole, half, folder, name, variants((half / name).read_bytes(), rng, i)))
    record("input", "resumes with a damaged file", tried=tally.tried, held=tally.tried, used=tally.used)
