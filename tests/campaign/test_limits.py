"""Campaigns over several costs: limits, fronts over named objectives, and picking from what they kept."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from evoquant import api, cli
from evoquant.campaign.build_scoring import compiled, make_objective
from evoquant.campaign.config import config_from_dict, load_config
from evoquant.campaign.storage import ARCHIVE, CHAMPION, JOURNAL
from evoquant.errors import ConfigError, InputError
from evoquant.profiles.builtin import any_profile
from evoquant.report.data import load_run
from evoquant.report.tables import run_tables
from evoquant.scoring.objective import WithinLimits
from evoquant.scoring.packed_bytes import PackedBytes

sys.path.insert(0, str(Path(__file__).parent))  # own_parts
LIMITS = Path(__file__).parents[2] / "configs" / "limits.yaml"
SMALL = ["stop.generations=6", "search.population=16", "search.floor=0", "executor.kind=local"]
LATENCY = 'costs.latency={"kind": "own_parts:Nanoseconds", "options": {"call": 3}}'
THREE = ["search.objectives=[retention, bytes, latency]", LATENCY]


def lines(path):
    return [json.loads(line) for line in (path / JOURNAL).read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The example and the same over three objectives."""
    place = tmp_path_factory.mktemp("runs")
    found = {}
    for name, changes in (("two", []), ("three", THREE)):
        found[name] = api.run(LIMITS, out=place / name, overrides=[*SMALL, *changes]).path
    return found


def test_old_configs_say_nothing_of_costs_and_keep_their_hash():
    config = config_from_dict({"name": "x", "search": {"kind": "nsga2"}}, "x")
    plain = config.to_dict()
    assert "costs" not in plain and "objectives" not in plain["search"]
    named = config_from_dict({"name": "x", "search": {"kind": "nsga2"}, "costs": {"bytes": {"kind": "bytes"}}}, "x")
    assert named.hash() != config.hash()


def test_every_candidate_is_journalled_with_what_it_costs(runs):
    last = lines(runs["three"])[-1]
    costs = last["population"]["costs"]
    assert set(costs) == {"bits", "bytes", "latency", "effective_bits"}
    assert all(len(rows) == last["population"]["size"] for rows in costs.values())
    champion = last["champion"]
    assert champion["costs"]["bits"] == [champion["cost"]]
    assert champion["costs"]["effective_bits"] == champion["effective_bits"]
    assert champion["costs"]["bytes"][0] == pytest.approx(champion["costs"]["bits"][0] / 8192, rel=1e-3)


def test_the_champion_says_how_far_it_is_from_each_limit(runs):
    scores = load_run(runs["two"]).champion.scores["train"]
    rows = {row["name"]: row for row in scores["limits"]}
    assert set(rows) == {"retention", "bytes", "effective_bits"}
    assert rows["bytes"]["at_most"] == 26e6 and rows["bytes"]["value"] == scores["costs"]["bytes"]["most"]
    assert rows["bytes"]["margin"] == pytest.approx(1 - rows["bytes"]["value"] / 26e6)
    kept = all(row["margin"] >= 0 for row in rows.values())
    assert kept == (scores["fitness"] > 0)
    drawn = {table.title: table for table in run_tables(load_run(runs["two"]))}
    assert len(drawn["Limits"].rows) == 3 and "at most 26 MB" in drawn["Limits"].rows[1][1]


def test_how_a_generation_is_cut_into_batches_changes_nothing_and_a_run_goes_on_where_it_was(runs, tmp_path):
    api.run(LIMITS, out=tmp_path / "cut", overrides=[*SMALL, *THREE, "executor.batch=3"])
    whole = (runs["three"] / JOURNAL).read_bytes()
    assert (tmp_path / "cut" / JOURNAL).read_bytes() == whole
    (tmp_path / "cut" / JOURNAL).write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    for name in (CHAMPION, ARCHIVE, "checkpoint.json"):
        (tmp_path / "cut" / name).unlink()
    api.resume(tmp_path / "cut", allow_code=["own_parts:Nanoseconds"])
    assert (tmp_path / "cut" / JOURNAL).read_bytes() == whole


@pytest.mark.parametrize(
    "genome, search",
    [
        ("rule", {"kind": "genetic", "elites": 2}),
        ("tree", {"kind": "genetic", "elites": 2}),
        ("direct", {"kind": "surrogate"}),
    ],
)
def test_any_space_and_search_goes_with_limits(tmp_path, genome, search):
    changes = [f"genome.kind={genome}", f"search={json.dumps(search | {'population': 12})}", "stop.generations=3"]
    if genome != "direct":
        changes += ["models={train: [seed/test, seed/valid], valid: [seed/valid], test: [seed/train]}"]
    run = api.run(LIMITS, out=tmp_path / "run", overrides=[*changes, LATENCY, "objective.minimise=latency"])
    champion = load_run(run.path).champion
    scores = champion.scores["train"]
    assert scores["minimise"] == "latency" and scores["cost"]["name"] == "nanoseconds"
    record = lines(run.path)[-1]["champion"]
    assert record["cost"] == sum(record["costs"]["latency"])


def test_the_share_of_the_optimum_is_of_the_one_under_all_limits(tmp_path):
    limits = {"kind": "limits", "retention": 0.3, "at_most": {"bytes": "30MB", "effective_bits": 13}}
    run = api.run(LIMITS, out=tmp_path / "run", overrides=[*SMALL, f"objective={json.dumps(limits)}"])
    scores = load_run(run.path).champion.scores["train"]
    assert scores["fitness"] > 0
    optimum = api.bound("seed/test", limits, costs={"bytes": PackedBytes()})["optimum"]
    assert [row["name"] for row in optimum["limits"]] == ["retention", "bytes", "effective_bits"]
    assert scores["share_of_optimum"] == pytest.approx(scores["fitness"] / optimum["upper_bound"])


def test_limits_that_contradict_leave_a_run_without_a_share_and_bound_says_which(tmp_path, monkeypatch, capsys):
    run = api.run(LIMITS, out=tmp_path / "run", overrides=[*SMALL, "objective.at_most={bytes: 9MB}"])
    scores = load_run(run.path).champion.scores["train"]
    assert scores["fitness"] < 0 and "share_of_optimum" not in scores
    words = ["bound", "seed/test", "--at-most", "bytes=9MB", "--cost", "bytes=bytes"]
    monkeypatch.setattr(sys, "argv", ["evoquant", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "retention at least 0.95 and bytes at most 9 MB together" in said and "Traceback" not in said


def test_the_archive_of_three_objectives_is_a_front_with_its_volume(runs):
    archive = load_run(runs["three"]).archive
    assert archive["objectives"] == ["retention", "bytes", "latency"]
    points = np.array(
        [
            [-one["retention"], one["costs"]["bytes"]["most"], one["costs"]["latency"]["most"]]
            for one in (entry["scores"]["train"] for entry in archive["entries"])
        ]
    )
    for row in points:
        assert not ((points <= row).all(axis=1) & (points < row).any(axis=1)).any()
    assert archive["hypervolume"]["objectives"] == archive["objectives"]
    assert 0 <= archive["hypervolume"]["value"] < 1
    table = next(table for table in run_tables(load_run(runs["three"])) if table.title == "The search's archive")
    assert {"bytes", "latency"} <= set(table.columns)


def test_an_archive_that_does_not_say_what_its_objectives_cost_is_refused_in_one_message(runs, tmp_path):
    shutil.copytree(runs["three"], tmp_path / "run")
    archive = json.loads((tmp_path / "run" / ARCHIVE).read_text())
    del archive["entries"][0]["scores"]["train"]["costs"]["latency"]
    (tmp_path / "run" / ARCHIVE).write_text(json.dumps(archive))
    with pytest.raises(InputError, match=r"archive.json: .*should all say what they cost in 'latency'"):
        load_run(tmp_path / "run")


def test_pick_takes_what_keeps_most_within_costs_or_costs_least_at_a_retention(runs):
    entries = [entry["scores"]["train"] for entry in load_run(runs["three"]).archive["entries"]]
    sizes = sorted(one["costs"]["bytes"]["most"] for one in entries)
    middle = sizes[len(sizes) // 2]
    within = [one for one in entries if one["costs"]["bytes"]["most"] <= middle]
    most = api.pick(runs["three"], at_most=f"{middle / 1000}kB")
    assert most.scores["train"]["retention"] == max(one["retention"] for one in within)
    assert "warnings" not in most.provenance  # of a profile retention is computed, without error
    least = api.pick(runs["three"], at_most={"bytes": middle, "latency": "1s"}, retention=0.2)
    keeping = [one for one in within if one["retention"] >= 0.2]
    assert least.scores["train"]["compression"] == max(one["compression"] for one in keeping)
    assert least.provenance["picked"].startswith("at least 0.2 retention, at most")
    assert api.pick(runs["three"], at_most={"effective_bits": 32}) is not None


@pytest.mark.parametrize(
    "given, said",
    [
        ({"at_most": "1kB"}, "Nearest: bytes"),
        ({"at_most": "latency=1ns"}, "Nearest: latency"),
        ({"at_most": {"joules": 3}}, "nothing was counted as 'joules'"),
        ({"at_most": "bytes=3ms"}, "3ms is a time, and this counts bytes"),
        ({"at_most": "20"}, "is no size; say of what"),
        ({"at_most": ["20MB", "bytes=3MB"]}, "bytes stands twice"),
        ({"at_most": "much"}, "is no amount"),
    ],
)
def test_what_cannot_be_picked_is_said_in_one_message(runs, given, said):
    with pytest.raises(InputError, match=said):
        api.pick(runs["three"], **given)


@pytest.mark.parametrize("given", [20_000_000, ["20MB", 3], None])
def test_amounts_that_are_no_texts_are_told(runs, given):
    with pytest.raises(InputError, match=r"at_most: is .*; write a text, such as"):
        api.pick(runs["two"], at_most=given)


def test_a_size_is_an_eighth_of_the_bits_where_the_campaign_counts_no_bytes(tmp_path):
    changes = ["search.objectives=[retention, bits]", "costs={}", "objective={kind: cliff}"]
    run = api.run(LIMITS, out=tmp_path / "run", overrides=[*SMALL, *changes])
    entries = [entry["scores"]["train"] for entry in load_run(run.path).archive["entries"]]
    size = sorted(one["costs"]["bits"]["most"] for one in entries)[3] // 8192 + 1
    picked = api.pick(run.path, at_most={"bytes": size})
    assert picked.scores["train"]["costs"]["bits"]["most"] <= 8192 * size
    old = json.loads((run.path / ARCHIVE).read_text())
    del old["objectives"], old["hypervolume"]
    for entry in old["entries"]:
        del entry["scores"]["train"]["costs"]
    (run.path / ARCHIVE).write_text(json.dumps(old))
    with pytest.raises(InputError, match="choose by --bits"):
        api.pick(run.path, at_most="20MB")


@pytest.mark.parametrize(
    "changes, said",
    [
        (["objective.at_most={byte: 3MB}"], "nothing is counted under the name 'byte'.*Did you mean 'bytes'"),
        (["objective.minimise=joules"], "objective.minimise: nothing is counted"),
        (["objective.at_most={retention: 0.9}"], "Retention is wanted at least"),
        (["objective.at_most={bytes: 3XB}"], "no unit is called 'XB'"),
        (["objective.at_most={effective_bits: 3MB}"], "no number of bits per weight"),
        (["objective.at_most={bytes: 0}"], "above 0"),
        (["objective.at_most={bytes: true}"], "True is no amount"),
        (["objective.at_most={bytes: .inf}"], "'inf' is no amount"),
        (["objective.at_most={bytes: [3]}"], "is no amount"),
        (["costs={bits: {kind: bytes}}"], "'bits' says something already"),
        (["costs={'a b': {kind: bytes}}"], "is no name"),
        (["search.objectives=[bits, bytes]"], "retention and one or two costs"),
        (["search.objectives=[retention, bytes, joules]"], "nothing is counted under the name 'joules'"),
        (["search.objectives=[retention, bits, bits]"], "each once"),
    ],
)
def test_a_wrong_config_is_told_by_key(changes, said):
    with pytest.raises(ConfigError, match=said):
        load_config(LIMITS, changes)


def test_an_amount_that_is_not_what_a_table_counts_is_told_when_it_is_built(tmp_path):
    with pytest.raises(InputError, match=r"objective.at_most.bytes: 3ms is a time, and this counts bytes"):
        api.run(LIMITS, out=tmp_path / "run", overrides=[*SMALL, "objective.at_most={bytes: 3ms}"])
    assert not (tmp_path / "run" / JOURNAL).exists()


class Frugal:
    """An objective of one's own over two costs; `score` is never asked where these are known."""

    floor = 0.9

    def score(self, retention, compression, effective_bits):
        return compression * 0.0

    def score_costs(self, retention, compression, effective_bits, costs):
        assert costs["bytes"].dtype == np.int64 and costs["bytes"].shape == retention.shape
        return np.where(retention >= self.floor, 1e9 / costs["latency"] + 1e6 / costs["bytes"], retention - 1.0)


def test_an_objective_of_ones_own_sees_all_costs(tmp_path):
    given = {"kind": "genetic", "population": 12, "elites": 2}
    changes = [*SMALL[:1], LATENCY, f"search={json.dumps(given)}"]
    run = api.run(LIMITS, out=tmp_path / "run", overrides=changes, objective=Frugal())
    champion = lines(run.path)[-1]["champion"]
    costs = {name: np.array([values]) for name, values in champion["costs"].items()}
    fitness = Frugal().score_costs(np.array([champion["retention"]]), None, None, costs)
    assert champion["fitness"] == fitness[0, 0]
    assert "limits" not in run.champion.scores["train"] and "bytes" in run.champion.scores["train"]["costs"]


def test_the_objective_is_the_one_that_the_bound_takes():
    config = load_config(LIMITS)[0]
    problems = compiled(config, [any_profile("seed/test")])
    objective = make_objective(config, problems)
    assert isinstance(objective, WithinLimits) and objective.floor == 0.95
    assert [limit.name for limit in objective.at_most] == ["bytes", "effective_bits"]
