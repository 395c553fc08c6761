"""Objects as parts of a campaign: the same call goes on, another is refused, the command line reports what it can."""

import functools
import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.api.parts import parts_of
from evoquant.campaign.build import require_allowed
from evoquant.campaign.in_memory import missing_parts
from evoquant.errors import InputError
from evoquant.genomes import load as loading
from evoquant.report.data import load_run
from evoquant.report.series import run_series
from evoquant.report.tables import run_tables
from evoquant.report.why import why_data
from evoquant.search.random import RandomSearch

sys.path.insert(0, str(Path(__file__).parent.parent / "campaign"))
import own_parts

CONFIG = """
models: {train: [seed/test], valid: [], test: []}
search: {kind: genetic, population: 10}
stop: {generations: 3}
report_test_by_generation: true
executor: {kind: local}
"""


class Weighted:
    """An objective that only this module has."""

    floor = 0.9

    def __init__(self, weights):
        self.weights = weights

    def score(self, retention, compression, effective_bits):
        return self.weights[0] * retention + self.weights[1] * compression


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    path = folder / "own.yaml"
    path.write_text(CONFIG)

    def called(**changed):
        given = {
            "search": functools.partial(RandomSearch, population=10),
            "space": own_parts.HalvesSpace,
            "objective": Weighted(np.array([1.0, 0.25])),
            "cost": own_parts.Nanoseconds(7),
            "estimator": own_parts.Pessimist(1.25),
            **changed,
        }
        return api.run(path, out=folder / "run", **given)

    called()
    return called


def test_what_can_be_imported_is_named_and_the_rest_is_told_by_a_digest(call):
    run = call()
    config = json.loads((run.path / "resolved.json").read_text())["config"]
    assert config["genome"] == {"kind": "own_parts:HalvesSpace", "options": {}}
    assert config["cost"]["kind"] == config["estimator"]["kind"] == config["objective"]["kind"] == "memory"
    assert config["cost"]["what"] == "own_parts.Nanoseconds"
    assert config["search"]["what"] == "evoquant.search.random.RandomSearch"
    assert (
        (run.path / "config.yaml").read_text().startswith("# Written by evoquant.run, which was given search=, space=")
    )


def test_the_same_call_returns_a_finished_run_and_goes_on_with_another(call):
    run = call()
    assert not run.fresh
    whole = (run.path / "journal.jsonl").read_bytes()
    for name in ("champion.json", "report.json", "checkpoint.json"):
        (run.path / name).unlink()
    (run.path / "journal.jsonl").write_bytes(whole.splitlines(keepends=True)[0])
    assert call().fresh
    assert (run.path / "journal.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"cost": own_parts.Nanoseconds(8)}, "cost (its code, or what it holds)"),
        ({"objective": Weighted(np.array([1.0, 0.5]))}, "objective (its code, or what it holds)"),
        ({"search": functools.partial(RandomSearch, population=11)}, "search (its code, or what it holds)"),
        ({"estimator": own_parts.Fragile(1.25)}, "estimator.what: 'own_parts.Pessimist' then, 'own_parts.Fragile' now"),
        ({"space": None}, "genome: 'own_parts:HalvesSpace' then, 'rule' now"),
    ],
)
def test_another_part_is_refused_and_named(call, changed, named):
    with pytest.raises(InputError) as caught:
        call(**changed)
    assert named in str(caught.value)
    assert "or choose another out=" in str(caught.value)


def test_without_the_objects_a_run_is_reported_and_says_what_is_left_out(call, monkeypatch):
    data = load_run(call().path)
    monkeypatch.setattr(loading, "_OWN", {})
    with pytest.raises(InputError, match="--allow-code own_parts:HalvesSpace"):
        require_allowed(data.config, (), data.path)
    require_allowed(data.config, ["own_parts:HalvesSpace"], data.path)
    assert missing_parts(data.config.own_parts(), "search", "objective") == [
        "cost (own_parts.Nanoseconds)",
        "estimator (own_parts.Pessimist)",
    ]
    (champion,) = [table for table in run_tables(data) if table.title.startswith("Champion: up to ")]
    assert champion.rows[0][0] == "train"
    series = run_series(data)
    assert len(series.curve) == 3
    assert series.points is None
    assert "Python program" in why_data(data)["notes"][0]
    for name in ("champion.json", "report.json"):
        (data.path / name).unlink()
    with pytest.raises(InputError, match="make the same call there again"):
        api.resume(data.path, allow_code=["own_parts:HalvesSpace"])


def test_a_search_that_is_given_as_an_object_stays_as_it_is(tmp_path):
    (tmp_path / "own.yaml").write_text(CONFIG)
    problems = api.search_space("direct", "seed/test")
    search = RandomSearch(problems.space, seed=3, population=4)
    before = search.state()
    api.run(tmp_path / "own.yaml", out=tmp_path / "run", overrides=["genome.kind=direct"], search=search)
    assert search.state() == before


def test_digests_tell_objects_apart_by_what_they_do_and_hold():
    def code(thing):
        return parts_of(objective=thing).entries["objective"]["code"]

    def made(value):
        class Local:
            floor = value

            def score(self, retention, compression, effective_bits):
                return compression

        return Local

    assert code(Weighted([1.0, [2.0, {"a": 1}]])) == code(Weighted([1.0, [2.0, {"a": 1}]]))
    assert code(Weighted([1.0, [2.0, {"a": 1}]])) != code(Weighted([1.0, [2.0, {"a": 2}]]))
    assert code(Weighted(np.array([1.0, 2.0]))) != code(Weighted(np.array([1.0, 2.5])))
    assert code(Weighted(own_parts.Nanoseconds(1))) != code(Weighted(own_parts.Nanoseconds(2)))
    assert code(made(0.5)()) == code(made(0.5)())
    assert code(made(0.5)()) != code(made(0.6)())
    ring = Weighted([])
    ring.weights.append(ring)
    assert len(code(ring)) == 64


def test_what_cannot_be_told_apart_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"objective: .*Weighted holds something .*lock.*functools\.partial"):
        parts_of(objective=Weighted(threading.Lock()))
