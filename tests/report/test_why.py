"""Why a champion looks as it does, against figures worked out by hand on models of a few layers."""

import dataclasses
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from evoquant.campaign.champion import Champion
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.measurer import allocation_digest
from evoquant.cli.commands import app
from evoquant.errors import InputError
from evoquant.genomes.direct import Direct
from evoquant.genomes.rule import Rule, Rung
from evoquant.genomes.tree import Tree
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from evoquant.report.data import RunData, load_run
from evoquant.report.table import markdown
from evoquant.report.why import why_data, why_tables

INT4, FP16, FP32 = "INT4", "FP16", "FP32"
MENU = [INT4, FP16, FP32]


def layer(name, position, loss, *, kind="Linear", size=64, **more):
    return LayerProfile(name, kind, (size,), position, loss=dict(zip(MENU, (*loss, 0.0), strict=True)), **more)


def run_of(tmp_path, profile, champion, **config):
    """A finished run on one profile, as far as the explanation reads it."""
    path = tmp_path / f"{profile.name}.json"
    path.write_text(profile_to_json(profile))
    models = {"train": [str(path)], "valid": [], "test": []} | config.pop("models", {})
    read = config_from_dict({"name": "run", "menu": MENU, "models": models, **config}, "config")
    return RunData(tmp_path, read, "hash", [], Champion(champion, {}, {}))


def cliff(kept, bits, threshold=0.95):
    """The published objective, written down again."""
    return 32 / bits * (1 + (kept - threshold) / (1 - threshold)) if kept >= threshold else 0.1 * kept


def by_what(data):
    return {row["what"]: row for row in data["knockouts"]["rows"]}


# The first layer is dear at INT4, the second is not, the third is protected.
THREE = ModelProfile(
    "three",
    (
        layer("a", 0.0, (0.2, 0.001)),
        layer("b", 0.5, (0.01, 0.0005)),
        layer("n", 1.0, (0.004, 0.0), kind="LayerNorm"),
    ),
)
USEFUL = Rung("loss:INT4", 0.1, FP16)
USELESS = Rung("loss:INT4", 0.5, FP32)
RULE = Rule(INT4, (USELESS, USEFUL), protected=frozenset({"LayerNorm"}), protected_width=FP32)


def test_each_part_of_a_rule_is_taken_away(tmp_path):
    data = why_data(run_of(tmp_path, THREE, RULE))
    champion = data["champion"]
    kept, bits = 0.999 * 0.99, (16 + 4 + 32) / 3
    assert champion["retention"] == pytest.approx(kept)
    assert champion["fitness"] == pytest.approx(cliff(kept, bits))
    rows = by_what(data)
    gone = rows["without loss:INT4 > 0.1 FP16"]
    assert gone["retention"] == pytest.approx(0.8 * 0.99)
    assert gone["compression"] == pytest.approx(32 * 3 / (4 + 4 + 32))
    assert gone["change"] == pytest.approx(0.1 * 0.8 * 0.99 - cliff(kept, bits))
    assert gone["layers"] == 1
    unprotected = rows["without LayerNorm FP32"]
    assert unprotected["change"] == pytest.approx(cliff(kept * 0.996, (16 + 4 + 4) / 3) - cliff(kept, bits))
    assert unprotected["verdict"] == "better without"
    useless = rows["without loss:INT4 > 0.5 FP32"]
    assert (useless["change"], useless["layers"], useless["verdict"]) == (0.0, 0, "changes nothing: could go")
    assert data["knockouts"]["nothing"] == ["without loss:INT4 > 0.5 FP32"]
    assert data["knockouts"]["simplest"] == "LayerNorm FP32; loss:INT4 > 0.1 FP16; else INT4"
    assert rows["else FP16, one wider"]["layers"] == 1
    assert "without the protected types" not in rows  # with one type it says nothing that the type does not
    changes = [abs(row["change"]) for row in data["knockouts"]["rows"]]
    assert changes == sorted(changes, reverse=True)


def test_of_parts_that_stand_in_for_each_other_one_has_to_stay(tmp_path):
    twice = Rule(INT4, (USEFUL, Rung("loss:INT4", 0.05, FP16)))
    data = why_data(run_of(tmp_path, THREE, twice))
    verdicts = {what: row["verdict"] for what, row in by_what(data).items()}
    assert verdicts["without loss:INT4 > 0.05 FP16"] == "changes nothing: could go"
    assert verdicts["without loss:INT4 > 0.1 FP16"] == "changes nothing alone"
    assert data["knockouts"]["together"] == ["without loss:INT4 > 0.05 FP16"]


def test_a_part_that_another_train_model_needs_stays(tmp_path):
    other = ModelProfile("other", (layer("z", 0.0, (0.6, 0.001)),))
    (tmp_path / "other.json").write_text(profile_to_json(other))
    train = [str(tmp_path / "three.json"), str(tmp_path / "other.json")]
    data = why_data(run_of(tmp_path, THREE, RULE, models={"train": train}))
    assert by_what(data)["without loss:INT4 > 0.5 FP32"]["verdict"] == "nothing here, but on 1 of 1 other train models"
    assert data["knockouts"]["simplest"] == RULE.text
    assert "the first of 2 train models" in markdown(why_tables(data))


def test_a_part_that_only_the_valid_model_needs_is_said(tmp_path):
    other = ModelProfile("other", (layer("z", 0.0, (0.6, 0.001)),))
    (tmp_path / "other.json").write_text(profile_to_json(other))
    data = why_data(run_of(tmp_path, THREE, RULE, models={"valid": [str(tmp_path / "other.json")]}))
    row = by_what(data)["without loss:INT4 > 0.5 FP32"]
    assert row["verdict"] == "nothing here, but on valid"
    assert row["others"]["valid"]["change"] == pytest.approx(cliff(0.999, 16) - cliff(1.0, 32))


def test_subtrees_and_signals_of_a_formula(tmp_path):
    tree = Tree(("add", "add", "loss", "mul", 0.002, "bits", "mul", 0.0, "position"))
    data = why_data(run_of(tmp_path, THREE, tree))
    # a: 0.223 + 0.008, 0.001 + 0.032, 0.064; b: 0.018, 0.0325, 0.064; n: 0.012, 0.032, 0.064
    kept, bits = 0.999 * 0.99 * 0.996, (16 + 4 + 4) / 3
    assert data["champion"]["fitness"] == pytest.approx(cliff(kept, bits))
    rows = by_what(data)
    without_loss, without_bits = cliff(0.8 * 0.99 * 0.996, 4), cliff(1.0, (32 + 32 + 16) / 3)
    assert rows["without loss"]["fitness"] == rows["loss at its mean"]["fitness"] == pytest.approx(without_loss)
    assert rows["without 0.002·bits"]["fitness"] == pytest.approx(without_bits)
    # Without the constant a bit costs 1, which no loss here is worth; bits at their mean cost the same everywhere.
    assert rows["without 0.002"]["fitness"] == pytest.approx(without_loss)
    assert rows["bits at its mean"]["fitness"] == pytest.approx(without_bits)
    assert not any("position" in what for what in rows)  # times 0: the simplified formula has it not


def test_choices_and_flags_of_a_formula(tmp_path):
    tree = Tree(("where", "is_LayerNorm", "bits", "add", "loss", "mul", 0.002, "bits"))
    rows = by_what(why_data(run_of(tmp_path, THREE, tree)))
    own = rows["without bits"]  # the choice is then the formula for the others
    assert own["verdict"] == "changes nothing: could go"
    assert rows["is_LayerNorm nowhere"]["layers"] == 0
    assert rows["without loss + 0.002·bits"]["layers"] == 1  # `a` at INT4 like all that costs its bits alone


def test_groups_of_an_allocation_go_back_to_the_widest(tmp_path):
    layers = (
        layer("block0.q", 0.0, (0.001, 0.0), kind="Attention"),
        layer("block0.k", 0.3, (0.002, 0.0), kind="Attention"),
        layer("block1.q", 0.6, (0.003, 0.0), kind="Attention"),
        layer("head", 1.0, (0.004, 0.0), kind="Classifier"),
    )
    widths = (("block0.q", INT4), ("block0.k", INT4), ("block1.q", INT4), ("head", FP32))
    data = why_data(run_of(tmp_path, ModelProfile("four", layers), Direct("four", widths), genome={"kind": "direct"}))
    rows = by_what(data)
    assert set(rows) == {"all Attention at the widest", "block0 at the widest", "block1 at the widest"}
    row = rows["block0 at the widest"]
    assert row["layers"] == 2
    assert row["fitness"] == pytest.approx(cliff(0.997, (32 + 32 + 4 + 32) / 4))
    assert data["knockouts"]["nothing"] == []


def two(tmp_path, losses, widths):
    """Two layers of one size and type, with losses at INT4."""
    profile = ModelProfile(
        "two", tuple(layer(n, p, (s, 0.0)) for n, p, s in zip("ab", (0.0, 1.0), losses, strict=True))
    )
    genome = Direct("two", tuple(zip("ab", widths, strict=True)))
    return run_of(tmp_path, profile, genome, genome={"kind": "direct"})


@pytest.mark.parametrize(
    ("losses", "widths", "share"),
    [
        ((0.02, 0.001), (FP32, INT4), 0.0),  # the other way round is worse
        ((0.02, 0.001), (INT4, FP32), 1.0),  # better
        ((0.02, 0.02), (INT4, FP32), 1.0),  # the same
    ],
)
def test_two_layers_have_one_other_order(tmp_path, losses, widths, share):
    data = why_data(two(tmp_path, losses, widths))
    swapped = losses[1 - widths.index(INT4)]
    for row in data["swaps"]:
        assert row["as_good"] == share
        assert row["fitness"] == pytest.approx([cliff(1 - swapped, 18)] * 5)
        assert row["compression"] == pytest.approx(32 / 18)
    drawn = [row["drawn"] for row in data["swaps"]]
    assert drawn == [200, 200, 200, 1]
    moved = [row["moved"] for row in data["swaps"]]
    assert moved[3] == 1
    assert all(60 < count < 140 for count in moved[:3])  # half of the shuffles leave two things where they are


def test_equal_widths_have_no_other_places(tmp_path):
    data = why_data(two(tmp_path, (0.01, 0.02), (INT4, INT4)))
    assert [row["moved"] for row in data["swaps"]] == [0, 0, 0, 0]
    assert markdown(why_tables(data)).count("nothing to move") == 4


def test_widths_that_a_layer_may_not_take_are_repaired(tmp_path):
    layers = (layer("a", 0.0, (0.02, 0.0), allowed=(FP16, FP32)), layer("b", 1.0, (0.001, 0.0)))
    genome = Direct("two", (("a", FP32), ("b", INT4)))
    data = why_data(run_of(tmp_path, ModelProfile("two", layers), genome, genome={"kind": "direct"}))
    pair = data["swaps"][3]  # INT4 at `a` becomes FP16
    assert pair["fitness"][0] == pytest.approx(cliff(1.0, (16 + 32) / 2))
    assert data["cliff"]["narrower"]["of"] == 1
    assert data["cliff"]["narrower"]["stays"]["rows"][0]["to"] == FP16


def test_the_layers_at_the_cliff(tmp_path):
    profile = ModelProfile(
        "cliff",
        (
            layer("free", 0.0, (0.01, 0.0), size=128),
            layer("dear", 0.5, (0.3, 0.01)),
            layer("light", 1.0, (0.03, 0.002)),
        ),
    )
    widths = (("free", FP32), ("dear", FP16), ("light", INT4))
    data = why_data(run_of(tmp_path, profile, Direct("cliff", widths), genome={"kind": "direct"}))
    kept = 0.99 * 0.97
    margin = data["cliff"]["margin"]
    assert margin["nats"] == pytest.approx(math.log(kept / 0.95))
    assert margin["least"] == {"layer": "dear", "nats": pytest.approx(math.log(0.99 / 0.7))}
    assert margin["times"] == pytest.approx(math.log(kept / 0.95) / math.log(0.99 / 0.7))
    assert margin["free"] == 1  # FP32 to FP16 costs nothing
    narrower = data["cliff"]["narrower"]
    assert (narrower["of"], narrower["gain"]) == (2, 1)
    (stays,), (falls,) = narrower["stays"]["rows"], narrower["falls"]["rows"]
    base = cliff(kept, (2 * 32 + 16 + 4) / 4)
    assert (stays["layer"], stays["to"]) == ("free", FP16)
    assert stays["change"] == pytest.approx(cliff(kept, (2 * 16 + 16 + 4) / 4) - base)
    assert (falls["layer"], falls["to"]) == ("dear", INT4)
    assert falls["retention"] == pytest.approx(0.7 * 0.97)
    first, second = data["cliff"]["wider"]["rows"]
    assert (first["layer"], first["to"]) == ("light", FP16)
    assert first["nats"] == pytest.approx(math.log(0.97 / 0.998))
    assert (second["layer"], second["to"]) == ("dear", FP32)
    holders = data["cliff"]["holders"]
    total = -math.log(kept)
    assert [row["layer"] for row in holders["rows"]] == ["light", "dear"]
    assert holders["rows"][0]["share"] == pytest.approx(-math.log(0.97) / total)
    assert holders["rows"][0]["weights"] == pytest.approx(0.25)
    assert holders["half"] == 1


def test_without_a_floor_nothing_falls(tmp_path):
    data = why_data(run_of(tmp_path, THREE, RULE, objective={"kind": "budget", "effective_bits": 20}))
    assert "floor" not in data["cliff"]["margin"]
    assert data["cliff"]["narrower"]["falls"]["count"] == 0
    assert "no floor" in markdown(why_tables(data))


def test_tied_layers_count_as_layers(tmp_path):
    layers = (
        *(layer(n, p, (0.001, 0.0), tie_group="t") for n, p in (("q", 0.0), ("k", 0.1))),
        layer("z", 1.0, (0.2, 0.0)),
    )
    rule = Rule(INT4, (Rung("loss:INT4", 0.1, FP16),), protected=frozenset({"Linear"}), protected_width=FP32)
    data = why_data(run_of(tmp_path, ModelProfile("tied", layers), rule))
    assert by_what(data)["without Linear FP32"]["layers"] == 3


def test_the_same_run_gives_the_same_data(tmp_path):
    first, second = (why_data(run_of(tmp_path, THREE, RULE)) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert json.loads(json.dumps(first)) == first


def test_names_of_layers_stay_text(tmp_path):
    name = "a|b`<script>alert(1)</script>[x](y)*&amp;"
    profile = ModelProfile("m", (layer(name, 0.0, (0.02, 0.0), kind="Li*near|"), layer("b", 1.0, (0.001, 0.0))))
    genome = Direct("m", ((name, FP16), ("b", INT4)))
    data = why_data(run_of(tmp_path, profile, genome, genome={"kind": "direct"}))
    text = markdown(why_tables(data))
    assert r"| a\|b\`\<script>alert(1)\</script>\[x\](y)\*\&amp; |" in text
    for mark in ("<", "[x", "&amp;"):  # in notes, too
        assert mark not in text.replace("\\" + mark, "")


def network(tmp_path, allocations, retentions, champion=0, **more):
    """An unfinished run on a "network" of two layers whose journal has measured some allocations."""
    losses = ((0.2, 0.01), (0.04, 0.002))
    layers = tuple(layer(n, p, s) for n, p, s in zip("ab", (0.0, 1.0), losses, strict=True))
    (tmp_path / "profile.json").write_text(profile_to_json(ModelProfile("net", layers)))
    config = config_from_dict(
        {"name": "run", "menu": MENU, "task": {"kind": "digits"}, "genome": {"kind": "direct"}}, "config"
    )
    digests = [allocation_digest([MENU[g] for g in genes]) for genes in allocations]
    records = {
        digest: {"status": "ok", "retention": retention, "standard_error": 0.001, "samples": 100, "blocks": [0]} | more
        for digest, retention in zip(digests, retentions, strict=True)
    }
    widths = [(n, MENU[g]) for n, g in zip("ab", allocations[champion], strict=True)]
    line = {
        "generation": 0,
        "champion": {"genome": Direct("net", tuple(widths)).to_dict()},
        "population": {"first_id": 5, "genes": [list(genes) for genes in allocations]},
        "measured": {"allocations": digests, "measurements": records},
    }
    return RunData(tmp_path, config, "hash", [line], None)


ALLOCATIONS = [(1, 1), (0, 0), (1, 0), (2, 2)]
ESTIMATES = [0.99 * 0.998, 0.8 * 0.96, 0.99 * 0.96, 1.0]


def test_estimate_beside_what_was_measured(tmp_path):
    measured = [0.97, 0.96, 0.94, 1.0]  # the second better than thought, the third worse: each on the wrong side
    data = why_data(network(tmp_path, ALLOCATIONS, measured))
    assert data["notes"] == []
    agreement = data["measured"]
    gaps = np.array(ESTIMATES) - measured
    assert agreement["allocations"] == 4
    assert agreement["mean"] == pytest.approx(gaps.mean())
    assert agreement["mean_absolute"] == pytest.approx(np.abs(gaps).mean())
    # ranks 3, 1, 2, 4 against 3, 2, 1, 4
    assert agreement["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert agreement["clear_pairs"] == 6
    assert agreement["clear_misordered"] == pytest.approx(1 / 6)
    assert agreement["worst"]["id"] == 6
    assert agreement["worst"]["widths"] == {INT4: 2}
    assert agreement["champion"] == {
        "estimate": pytest.approx(ESTIMATES[0]),
        "retention": 0.97,
        "standard_error": 0.001,
        "full": True,
    }
    near = agreement["near"]
    assert [row["id"] for row in near["promised"]["rows"]] == [7]
    assert [row["id"] for row in near["denied"]["rows"]] == [6]


def test_a_network_s_champion_stands_at_what_was_measured(tmp_path):
    data = why_data(network(tmp_path, ALLOCATIONS, [0.97, 0.5, 0.93, 1.0]))
    champion = data["champion"]
    assert champion["anchored"]
    assert champion["retention"] == pytest.approx(champion["measured"]) == pytest.approx(0.97)
    (row,) = [r for side in ("stays", "falls") for r in data["cliff"]["narrower"][side]["rows"] if r["layer"] == "b"]
    assert row["retention"] == pytest.approx(0.97 * 0.96 / 0.998)
    assert row["measured"] == 0.93
    assert "No forward pass was run" in markdown(why_tables(data))


def test_measurements_that_were_cut_short_anchor_nothing(tmp_path):
    data = why_data(network(tmp_path, ALLOCATIONS, [0.97, 0.5, 0.93, 1.0], status="censored"))
    assert not data["champion"]["anchored"]
    assert "measured" not in data["champion"]
    assert data["champion"]["retention"] == pytest.approx(ESTIMATES[0])
    assert data["measured"]["cut_short"] == 4


def test_a_changed_journal_leaves_that_table_out(tmp_path):
    run = network(tmp_path, ALLOCATIONS, [0.97, 0.96, 0.94, 1.0])
    run.journal[0]["population"]["genes"][1] = [0, 1]
    data = why_data(run)
    assert "measured" not in data
    assert "genes that do not give the allocations" in " ".join(data["notes"])
    assert "genes that do not give the allocations" in markdown(why_tables(data))
    for broken in ({}, {"allocations": ["x"], "measurements": {}}, {"allocations": 3, "measurements": []}):
        run.journal[0]["measured"] = broken
        data = why_data(run)
        assert "not as it was written" in data["notes"][0]
        assert "cliff" in data


def test_genes_beyond_their_limits_are_refused(tmp_path):
    run = network(tmp_path, ALLOCATIONS, [0.97, 0.96, 0.94, 1.0])
    for genes in ([0, 99], [0], ["x", 0], [[0], 1]):
        run.journal[0]["population"]["genes"][1] = genes
        assert "genes that do not give the allocations" in why_data(run)["notes"][0]


def test_what_cannot_be_explained_is_said(tmp_path):
    run = network(tmp_path, ALLOCATIONS, [0.97, 0.96, 0.94, 1.0])
    (tmp_path / "profile.json").unlink()
    (table,) = why_tables(why_data(run))
    assert "profile.json" in table.to_markdown()
    empty = RunData(tmp_path, config_from_dict({"name": "run"}, "config"), "hash", [], None)
    assert "no candidate has been scored" in why_data(empty)["notes"][0]


def test_a_profile_that_was_changed_since_is_not_explained(tmp_path):
    run = run_of(tmp_path, THREE, RULE)
    name = run.config.models.train[0]
    changed = RunData(run.path, run.config, "hash", [], Champion(RULE, {}, {"inputs": {name: "0" * 64}}))
    assert "another profile than the run has read" in why_data(changed)["notes"][0]


def test_the_command(tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(
        "models: {train: [seed/test], valid: [], test: []}\nsearch: {kind: genetic, population: 8, elites: 1}\n"
        "stop: {generations: 2}\nexecutor: {kind: local}\n"
    )
    run = tmp_path / "run"
    runner = CliRunner()
    assert runner.invoke(app, ["run", str(config), "--out", str(run)]).exit_code == 0
    text = runner.invoke(app, ["report", str(run), "--why", "--markdown"]).stdout
    assert text == markdown(why_tables(why_data(load_run(run))))
    assert text.startswith("### What each part is worth")
    assert "separable estimate is all there is" in text
    drawn = runner.invoke(app, ["report", str(run), "--why"])
    assert drawn.exit_code == 0
    assert max(map(len, drawn.stdout.splitlines())) <= 150
    refused = runner.invoke(app, ["report", str(run), "--why", "--json"])
    assert isinstance(refused.exception, InputError)


def test_what_a_formula_does_not_need_goes_at_once(tmp_path):
    choice = ("where", "is_Conv", "square", "loss", "loss")  # there is no Conv
    tree = Tree(("add", *choice, "add", "mul", 0.002, "bits", "mul", 1e-9, "share"))
    data = why_data(run_of(tmp_path, THREE, tree))["knockouts"]
    assert data["simplest"] == "0.002·bits + loss"
    assert data["together"][0] in data["nothing"]


def test_an_estimate_of_nothing_left_is_shifted_to_what_was_measured(tmp_path):
    layers = tuple(layer(f"l{i}", i / 59, (1.0, 0.001)) for i in range(60))
    run = network(tmp_path, ALLOCATIONS, [0.97, 0.5, 0.93, 1.0])
    (tmp_path / "profile.json").write_text(profile_to_json(ModelProfile("net", layers)))
    digest = allocation_digest([INT4] * 60)
    line = run.journal[0]
    line["champion"]["genome"] = Direct("net", tuple((f"l{i}", INT4) for i in range(60))).to_dict()
    line["population"] = {"first_id": 0, "genes": [[0] * 60]}
    record = {"status": "ok", "retention": 0.5, "standard_error": 0.01, "samples": 9, "blocks": [0]}
    line["measured"] = {"allocations": [digest], "measurements": {digest: record}}
    data = why_data(run)
    assert data["champion"]["retention"] == pytest.approx(0.5)
    wider = data["cliff"]["wider"]["rows"][0]
    assert wider["retention"] == pytest.approx(
        0.5 * 0.999 * 2**30, rel=1e-6
    )  # as the profile has it; clipped for fitness
    assert data["measured"]["spearman"] is None
    assert why_tables(data)


@pytest.mark.parametrize("kind", ["divergence", "expected_loss", "fisher"])
def test_nats_stand_in_for_losses_that_nobody_measured(tmp_path, kind):
    nats = {INT4: 0.03, FP16: 0.001, FP32: 0.0}
    other = {} if kind != "expected_loss" else {"fisher": dict.fromkeys(MENU, 9.0)}
    layers = tuple(LayerProfile(n, "Linear", (64,), p, **{kind: nats}, **other) for n, p in (("a", 0.0), ("b", 1.0)))
    genome = Direct("nats", (("a", INT4), ("b", FP16)))
    data = why_data(run_of(tmp_path, ModelProfile("nats", layers), genome, genome={"kind": "direct"}))
    assert data["champion"]["estimate"] == kind
    assert data["champion"]["retention"] == pytest.approx(math.exp(-0.031))
    assert why_tables(data)


def test_a_profile_without_any_table_is_said(tmp_path):
    layers = (LayerProfile("a", "Linear", (64,), 0.0),)
    genome = Direct("bare", (("a", INT4),))
    data = why_data(run_of(tmp_path, ModelProfile("bare", layers), genome, genome={"kind": "direct"}))
    assert "no loss, divergence or fisher" in data["notes"][0]


class Picky:
    """An objective of one's own that scores nothing below 90%."""

    floor = 0.95

    def score(self, retention, compression, effective_bits):
        return np.where(retention < 0.9, np.nan, compression)


def test_an_objective_of_one_s_own_may_refuse(tmp_path):
    data = why_data(run_of(tmp_path, THREE, RULE, objective={"kind": f"{__name__}:Picky"}))
    refused = data["knockouts"]["rows"][0]
    assert refused["what"] == "without loss:INT4 > 0.1 FP16"
    assert (refused["fitness"], refused["change"]) == (None, None)
    assert data["swaps"][0]["fitness"][0] == pytest.approx(32 * 3 / (4 + 16 + 32))  # orders with `a` at INT4 have none
    assert json.dumps(data, allow_nan=False)
    assert why_tables(data)


def test_a_formula_of_many_parts_says_that_not_all_were_taken_away(tmp_path):
    def of(terms):
        tree = Tree(("add",) * terms + ("loss",) + ("mul", 0.002, "bits") * terms)
        return why_data(run_of(tmp_path, THREE, tree))

    cut = of(30)
    found = cut["knockouts"]["subtrees"]
    assert found["tried"] == 64 < found["of"]
    (said,) = [note for table in why_tables(cut) for note in table.notes if "nearest to its root" in note]
    assert f"has {found['of']} parts; the 64 nearest" in said and f"the {found['of'] - 64} below them" in said
    few = of(3)
    assert "subtrees" not in few["knockouts"]
    assert not any("nearest to its root" in note for table in why_tables(few) for note in table.notes)


def test_agreement_with_the_fp32_outputs_is_never_estimated_above_all(tmp_path):
    run = network(tmp_path, [(0, 0), (1, 1)], [0.999, 0.9995])
    above = [row["retention"] for row in why_data(run)["cliff"]["wider"]["rows"]]
    assert max(above) > 1.2, "of an accuracy it may be more"
    task = {"kind": "onnx", "model": "m.onnx", "data": "d.npz", "metric": "agreement"}
    config = config_from_dict({**run.config.to_dict(), "task": task}, "config")
    data = why_data(dataclasses.replace(run, config=config))
    rows = [*data["cliff"]["wider"]["rows"], *data["knockouts"]["rows"]]
    assert rows and max(row["retention"] for row in rows) == 1.0
    assert data["champion"]["retention"] == pytest.approx(0.999)
