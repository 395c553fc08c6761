import json
import shutil

import numpy as np
import pytest

import evoquant
from evoquant import api, cli
from evoquant.campaign.pick import Limits
from evoquant.errors import ConfigError, RunDirError
from evoquant.genomes.load import genome_from_dict
from evoquant.report.data import load_run
from evoquant.report.tables import run_tables
from evoquant.scoring.objective import combine

MAP_ELITES = """
name: map_elites
models: {train: [seed/train, family/cnn/0], valid: [seed/valid], test: []}
genome: {kind: rule, rungs: 2}
search: {kind: map_elites, batch: 60, bins: 8, parts: 6}
stop: {generations: 6}
"""
NSGA2 = """
name: nsga2
models: {train: [family/cnn/1], valid: [], test: []}
genome: {kind: direct}
search: {kind: nsga2, population: 40, mutation_rate: 0.03, floor: 0.9}
stop: {generations: 120}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    found = {}
    for name, text in (("map_elites", MAP_ELITES), ("nsga2", NSGA2)):
        config = folder / f"{name}.yaml"
        config.write_text(text)
        found[name] = evoquant.run(config, out=folder / name, overrides=["executor.kind=local"]).path
    return found


def test_an_archive_is_scored_on_train_and_valid_and_stands_in_the_report(runs):
    run = load_run(runs["map_elites"])
    entries = run.archive["entries"]
    assert len(entries) == run.archive["of"] > 3
    assert [entry["parts"] for entry in entries] == sorted(entry["parts"] for entry in entries)
    for entry in entries:
        assert set(entry["scores"]) == {"train", "valid"}
        assert genome_from_dict(entry["genome"], "test").parts == entry["parts"]
    (table,) = [table for table in run_tables(run) if table.title == "The search's archive"]
    parts = [row[0] for row in table.rows]
    assert len(parts) == len(set(parts)) > 1, "one line a complexity, the fittest"
    for row in table.rows:
        best = max(e["scores"]["valid"]["fitness"] for e in entries if str(e["parts"]) == row[0])
        assert row[4] == f"{best:.4f}"
    assert json.loads((run.path / "report.json").read_text())["archive"]["entries"] == len(entries)
    assert "hypervolume" not in run.archive, "two models have no one front"


def test_a_front_is_held_against_the_exact_one(runs):
    run = load_run(runs["nsga2"])
    area = run.archive["hypervolume"]
    assert 0.5 < area["share"] <= 1.0
    bits = [entry["scores"]["train"]["effective_bits"] for entry in run.archive["entries"]]
    assert bits == sorted(bits)
    (note,) = [n for table in run_tables(run) for n in table.notes if "Hypervolume" in n]
    assert f"{area['share']:.2%} of the exact front's" in note


@pytest.mark.parametrize("menu", ["[INT2, INT4]", "[INT2, FP32]", "[FP32]"])
def test_a_run_ends_where_no_front_lies_in_the_box_of_hypervolumes(menu, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(NSGA2.replace("family/cnn/1", "seed/train"))
    changes = ["executor.kind=local", f"menu={menu}", "stop.generations=2", "search.floor=0"]
    run = load_run(evoquant.run(config, out=tmp_path / "run", overrides=changes).path)
    assert run.champion is not None
    assert run.archive["hypervolume"] == {"bits": [2.0, 32.0], "floor": 0.9, "value": 0.0}
    assert run_tables(run)


def test_pick_takes_the_fittest_within_limits(runs):
    entries = load_run(runs["map_elites"]).archive["entries"]
    simple = [entry for entry in entries if entry["parts"] <= 2]
    assert 0 < len(simple) < len(entries)
    picked = api.pick(runs["map_elites"], parts=2)
    assert picked.scores["valid"]["fitness"] == max(entry["scores"]["valid"]["fitness"] for entry in simple)
    assert picked.provenance["picked"] == "at most 2 parts"
    front = load_run(runs["nsga2"]).archive["entries"]
    middle = front[len(front) // 2]["scores"]["train"]
    picked = api.pick(runs["nsga2"], bits=middle["effective_bits"])
    assert picked.scores["train"]["effective_bits"] <= middle["effective_bits"]


def test_pick_says_what_there_is_where_nothing_fits(runs, tmp_path):
    with pytest.raises(RunDirError, match=r"none of the \d+ entries keeps at most 1\.5 bits per weight"):
        api.pick(runs["nsga2"], bits=1.5)
    config = tmp_path / "plain.yaml"
    config.write_text("search: {kind: random, population: 5}\nstop: {generations: 1}\n")
    plain = evoquant.run(config, out=tmp_path / "run", overrides=["executor.kind=local"]).path
    with pytest.raises(RunDirError, match=r"kept no archive.*map_elites"):
        api.pick(plain)
    one = "models: {train: [seed/test], valid: [], test: []}\ngenome: {kind: direct}\nstop: {generations: 1}\n"
    config.write_text(one + "search: {kind: nsga2, population: 4, floor: 0.9999}\n")
    empty = evoquant.run(config, out=tmp_path / "empty", overrides=["executor.kind=local"]).path
    with pytest.raises(RunDirError, match=r"its front is empty: nothing .* keeps a retention of 0\.9999"):
        api.pick(empty)


FIGURES = {"fitness": 1.0, "retention": 1.0, "compression": 1.0, "effective_bits": 4.0}
ENTRY = {"genome": {"kind": "direct"}, "text": "x", "digest": "d", "parts": 0, "scores": {"train": FIGURES}}


@pytest.mark.parametrize(
    ("damaged", "fault"),
    [
        ([], "should hold keys and their values"),
        ({"of": 1, "entries": []}, "entries: List should have at least 1 item"),
        ({"of": 1, "entries": [3]}, r"entries\.0: "),
        ({"of": 1, "entries": [ENTRY | {"scores": {"train": None}}]}, r"scores\.train: "),
        ({"of": 1, "entries": [ENTRY | {"scores": {}}]}, "scores of the same splits, one of valid, train"),
        ({"of": 1, "entries": [ENTRY, ENTRY | {"scores": {"valid": FIGURES}}]}, "scores of the same splits"),
        ({"of": 1, "entries": [ENTRY | {"parts": "0"}]}, r"entries\.0\.parts: "),
        ({"of": 1, "entries": [ENTRY | {"text": 5}]}, r"entries\.0\.text: "),
        ({"entries": [ENTRY]}, "of: this key is required"),
        ({"of": 1, "entries": [ENTRY], "hypervolume": {"share": None}}, r"hypervolume\.share: "),
    ],
)
def test_a_damaged_archive_is_named_with_the_key(runs, tmp_path, damaged, fault):
    run = tmp_path / "run"
    shutil.copytree(runs["nsga2"], run)
    (run / "archive.json").write_text(json.dumps(damaged))
    for reading in (api.pick, load_run):
        with pytest.raises(RunDirError, match=rf"archive\.json: .*{fault}"):
            reading(run)


def test_pick_from_the_command_line(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "picked.json"

    def call(*words):
        monkeypatch.setattr("sys.argv", ["evoquant", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    assert call("pick", runs["map_elites"], "--parts", 2, "-o", out) == 0
    shown = capsys.readouterr().out
    assert api.load(out).genome.text in shown.replace("\n", " ")
    assert call("apply", out, "seed/valid", "--json") == 0
    assert json.loads(capsys.readouterr().out)["heuristic"] == api.load(out).genome.text
    assert call("pick", runs["map_elites"], "--retention", 2) == 2
    assert "retention up to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limits", "parts", "bits", "retention", "fits"),
    [
        (Limits(), 9, 30.0, 0.1, True),
        (Limits(parts=3), 3, 30.0, 0.1, True),
        (Limits(parts=3), 4, 30.0, 0.1, False),
        (Limits(bits=4.5), 9, 4.5, 0.1, True),
        (Limits(bits=4.5), 9, 4.6, 0.1, False),
        (Limits(retention=0.97), 9, 4.6, 0.97, True),
        (Limits(retention=0.97), 9, 4.6, 0.96, False),
    ],
)
def test_limits(limits, parts, bits, retention, fits):
    assert limits.accept(parts, {"effective_bits": bits, "retention": retention}) is fits


def test_shares_of_the_optimum(tmp_path):
    config = tmp_path / "relative.yaml"
    config.write_text(
        "models: {train: [seed/train, family/cnn/0], valid: [seed/valid, family/cnn/1], test: [seed/test]}\n"
        "relative_to_optimum: true\nsearch: {kind: genetic, population: 30}\nstop: {generations: 3}\n"
    )
    outcome = evoquant.run(config, out=tmp_path / "run", overrides=["executor.kind=local"])
    scores = outcome.champion.scores
    for split in ("train", "valid"):
        per_model = scores[split]["per_model"]
        assert len(per_model["share_of_optimum"]) == 2
        assert max(per_model["share_of_optimum"]) <= 1.0
        assert scores[split]["share_of_optimum"] == pytest.approx(np.mean(per_model["share_of_optimum"]))
        assert scores[split]["fitness"] == combine(np.array([per_model["fitness"]]), "mean")[0]
    run = load_run(outcome.path)
    # What the search maximised is the share: the journal's champion with the most has the best train share of all.
    assert run.journal[-1]["champion"]["fitness"] <= 1.0
    assert scores["test"]["share_of_optimum"] == pytest.approx(scores["test"]["fitness"] / 4.2731, rel=1e-4)
    assert "% of optimum" in run_tables(run)[-1].columns


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("task: {kind: digits}\nrelative_to_optimum: true\n", "relative_to_optimum is for campaigns on profiles"),
        ("objective: {kind: 'a.b:C'}\nrelative_to_optimum: true\n", "needs a built-in objective"),
    ],
)
def test_relative_to_optimum_where_there_is_none(tmp_path, text, fault):
    config = tmp_path / "x.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        evoquant.run(config, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("objective", "split"),
    [("{kind: budget, effective_bits: 1}", "train"), ("{kind: feasible_first, floor: 0.99}", "valid")],
)
def test_shares_of_an_optimum_that_is_not_above_0_are_refused(tmp_path, objective, split):
    models = {"train": "[family/cnn/1]", "valid": "[]"} | {split: "[seed/valid]"}
    config = tmp_path / "x.yaml"
    config.write_text(
        f"models: {{train: {models['train']}, valid: {models['valid']}, test: []}}\nmenu: [INT2, INT4, INT8]\n"
        f"objective: {objective}\nrelative_to_optimum: true\n"
    )
    with pytest.raises(ConfigError, match=r"relative_to_optimum: on 'seed/valid' the best possible fitness is -"):
        evoquant.run(config, out=tmp_path / "run", overrides=["stop.generations=1", "executor.kind=local"])
    assert not (tmp_path / "run" / "resolved.json").exists()
