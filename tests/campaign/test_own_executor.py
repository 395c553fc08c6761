"""Executors of somebody's own: by name, by class and as an object; what they may change is the time."""

import json
import sys
from pathlib import Path

import pytest

import evoquant
from evoquant.api.campaigns import resume, run
from evoquant.campaign.config import load_config
from evoquant.errors import CampaignError, ConfigError, InputError
from evoquant.testing import check_executor

sys.path.insert(0, str(Path(__file__).parent.parent / "execution"))
from threads import Threads

CONFIG = """
models: {train: [seed/train], valid: [seed/valid], test: []}
search: {kind: genetic, population: 24}
stop: {generations: 3}
finalists: 4
executor: {kind: local, batch: 5}
"""
OWN = "threads:Threads"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def journal(config):
    return (run(config, out=config.parent / "local").path / "journal.jsonl").read_bytes()


def names(path):
    rows = [json.loads(line) for line in (path / "timings.jsonl").read_text().splitlines()]
    return {(row["executor"], row["workers"]) for row in rows if "executor" in row}


@pytest.mark.parametrize(
    ("given", "workers"),
    [
        ({"executor": OWN, "overrides": ["executor.workers=3"]}, 3),
        ({"overrides": [f"executor={{kind: '{OWN}', options: {{workers: 2}}}}"]}, 2),
        ({"executor": Threads}, 2),
        ({"executor": Threads, "overrides": ["executor.workers=3"]}, 3),
    ],
)
def test_the_journal_is_the_same_and_timings_name_the_executor(config, journal, tmp_path, given, workers):
    found = run(config, out=tmp_path / "run", **given).path
    assert (found / "journal.jsonl").read_bytes() == journal
    assert names(found) == {("threads", workers)}


def test_an_object_serves_one_run_after_the_other(config, journal, tmp_path):
    own = Threads(workers=2)
    for name in ("a", "b"):
        found = evoquant.run(config, out=tmp_path / name, executor=own).path
        assert (found / "journal.jsonl").read_bytes() == journal
        assert names(found) == {("threads", 2)}
    assert own.started == 2
    assert json.loads((found / "resolved.json").read_text())["config"]["executor"]["kind"] == "local"


def test_the_hash_leaves_it_out(config):
    assert load_config(config)[0].hash() == load_config(config, [f"executor.kind={OWN}"])[0].hash()


@pytest.fixture
def interrupted(config, tmp_path):
    """The first generation of a run on an executor of somebody's own; wall time is up after it."""
    place = run(config, out=tmp_path / "run", executor=OWN, overrides=["stop.wall_time_s=0.000001"]).path
    assert len((place / "journal.jsonl").read_bytes().splitlines()) < 3
    return place


def finish(place, **given):
    """Resume as often as it takes: the wall time that the config allows is one generation each."""
    for _ in range(5):
        if resume(place, **given).champion is not None:
            return (place / "journal.jsonl").read_bytes()
    raise AssertionError("does not end")


def test_resume_takes_another_executor_or_the_same_if_it_is_named(interrupted, journal):
    with pytest.raises(InputError, match=f"--allow-code {OWN}; or go on with --executor local"):
        resume(interrupted)
    with pytest.raises(InputError, match="executor: no executor is called 'loca'"):
        resume(interrupted, executor="loca")
    own = Threads()
    resume(interrupted, allow_code=[OWN])
    resume(interrupted, executor=own)
    assert finish(interrupted, executor="local") == journal
    assert own.started


def test_what_is_wrong_with_it_is_said(config, tmp_path):
    class NoStream:
        name, workers = "none", 1
        start = map = close = None

    for executor, error, message in [
        ("threads:Nope", ConfigError, "threads:Nope: cannot be imported"),
        ("loca", ConfigError, "Did you mean 'local'? Or name your own class as module:Class"),
        (NoStream, ConfigError, r"NoStream lacks start\(\), map\(\), stream\(\), close\(\)"),
    ]:
        with pytest.raises(error, match=message.replace("?", "[?]")):
            run(config, out=tmp_path / "run", executor=executor)
    with pytest.raises(ConfigError, match="options are for an executor of your own"):
        load_config(config, ["executor.options={workers: 2}"])
    with pytest.raises(ConfigError, match=r"executor\.options: .*unexpected keyword argument 'many'"):
        run(config, out=tmp_path / "run", executor=OWN, overrides=["executor.options={many: 2}"])
    assert not (tmp_path / "run" / "journal.jsonl").exists()


class Breaking(Threads):
    def map(self, batches):
        raise ZeroDivisionError("no more")


def test_one_that_raises_is_blamed_by_name(config, tmp_path):
    sys.modules["breaking_executor"] = sys.modules[__name__]
    with pytest.raises(CampaignError, match="breaking_executor:Breaking: raised ZeroDivisionError: no more"):
        run(config, out=tmp_path / "run", executor="breaking_executor:Breaking")


def test_it_conforms_as_far_as_a_thread_can():
    check_executor(Threads, in_process=True)
