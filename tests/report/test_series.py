"""The numbers of figures against the journal's lines and the profile, worked out here by hand."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.errors import InputError, ProfileError, RunDirError
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from evoquant.report import series_points
from evoquant.report.data import load_run
from evoquant.report.series import (
    bands,
    fitness_curve,
    front_points,
    gate_rows,
    layer_strip,
    marks,
    population_points,
    run_series,
)

CONFIGS = Path(__file__).parents[2] / "configs"
MENU = ("INT4-channel", "INT8-channel", "FP16", "FP32")
SHAPES = ((8, 16), (32, 16), (4, 32))
LOSS = {"INT4-channel": 0.03, "INT8-channel": 0.004, "FP16": 0.0005, "FP32": 0.0}
CODES = {"INT4-channel": 4, "INT8-channel": 8, "FP16": 16, "FP32": 32}


def layer(number, **more):
    figures = {
        "gradient_sensitivity": 1.0 / (number + 1),
        "loss": {width: loss * (number + 1) for width, loss in LOSS.items()},
    }
    return LayerProfile(
        name=f"layer{number}", type="Linear", shape=SHAPES[number], position=number / 2, **(figures | more)
    )


def bits_of(width, shape):
    """Codes, and an FP16 scale for each channel."""
    return math.prod(shape) * CODES[width] + (16 * shape[0] if "channel" in width else 0)


def lines(path):
    return [json.loads(line) for line in (path / "journal.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A small run of evolve.yaml."""
    out = tmp_path_factory.mktemp("runs") / "evolve"
    changes = ["search.population=24", "stop.generations=6", "executor.kind=local"]
    api.run(CONFIGS / "evolve.yaml", out=out, overrides=changes)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run on a model of three layers, all of whose 64 allocations can be tried."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.json").write_text(profile_to_json(ModelProfile("small", tuple(map(layer, range(3))), 320)))
    config = {
        "name": "small",
        "menu": list(MENU),
        "models": {"train": ["small.json"], "valid": [], "test": []},
        "search": {"kind": "genetic", "population": 8, "elites": 1},
        "stop": {"generations": 3},
    }
    (folder / "small.yaml").write_text(json.dumps(config))
    api.run(folder / "small.yaml", out=folder / "run", overrides=["executor.kind=local"])
    return folder / "run"


def test_the_curve_is_the_journal_s(evolved):
    curve, journal = fitness_curve(load_run(evolved)), lines(evolved)
    assert curve.generation.tolist() == [0, 1, 2, 3, 4, 5]
    assert curve.champion.tolist() == [line["champion"]["fitness"] for line in journal]
    assert curve.best.tolist() == [line["best"]["fitness"] for line in journal]
    assert curve.asked.tolist() == [line["evaluations"]["asked"] for line in journal]
    assert curve.passes is None
    for place, line in enumerate(journal):
        ranked = sorted(line["population"]["fitness"])
        for share, column in ((0.25, curve.lower), (0.5, curve.median), (0.75, curve.upper)):
            at = share * (len(ranked) - 1)
            below, part = int(at), at - int(at)
            above = ranked[min(below + 1, len(ranked) - 1)]
            assert column[place] == pytest.approx(ranked[below] + part * (above - ranked[below]))
    with pytest.raises(ValueError, match="read-only"):
        curve.champion[0] = 1.0


def test_many_generations_are_groups_of_neighbours(evolved):
    curve = fitness_curve(load_run(evolved))
    each = bands(curve)
    assert (each.each, each.generation.tolist()) == (1, [0, 1, 2, 3, 4, 5])
    assert each.median.tolist() == curve.median.tolist()
    pairs = bands(curve, 3)
    assert (pairs.each, pairs.generation.tolist()) == (2, [0.5, 2.5, 4.5])
    assert pairs.upper.tolist() == pytest.approx(curve.upper.reshape(3, 2).mean(axis=1).tolist())
    unknown = dataclasses.replace(curve, lower=np.array([np.nan, 1.0, np.nan, np.nan, 2.0, 4.0]))
    assert bands(unknown, 3).lower.tolist() == pytest.approx([1.0, np.nan, 3.0], nan_ok=True)


def test_breakthroughs_are_where_the_champion_changes(evolved):
    curve, journal = fitness_curve(load_run(evolved)), lines(evolved)
    ids = [line["champion"]["id"] for line in journal]
    changed = [place for place in range(len(ids)) if place == 0 or ids[place] != ids[place - 1]]
    assert [step.index for step in curve.steps] == changed
    assert [step.operator for step in curve.steps] == [journal[place]["champion"]["operator"] for place in changed]
    assert [list(step.parents) for step in curve.steps] == [journal[place]["champion"]["parents"] for place in changed]
    fitness = [journal[place]["champion"]["fitness"] for place in changed]
    assert [step.after for step in curve.steps] == fitness
    assert [step.before for step in curve.steps] == [None, *fitness[:-1]]
    crossing = [step.index for step in curve.steps if step.crosses]
    assert crossing == [place for place in changed if journal[place]["champion"]["retention"][0] >= 0.95][:1]
    assert len(crossing) == 1, "this run crosses the cliff"
    gains = [step for step in curve.steps if step.before is None or step.after > step.before]
    assert list(curve.breakthroughs) == gains


def test_points_are_the_candidates(evolved):
    points, journal = population_points(load_run(evolved)), lines(evolved)
    assert len(points) == sum(line["population"]["size"] for line in journal) == points.asked
    assert points.note == ""
    assert points.whole.all()
    assert points.fitness.tolist() == [value for line in journal for value in line["population"]["fitness"]]
    for line in journal:
        best = line["best"]
        place = best["id"]
        assert points.generation[place] == line["generation"]
        assert points.retention[place] == pytest.approx(best["retention"][0], abs=1e-12)
        assert points.compression[place] == pytest.approx(best["compression"][0], abs=1e-12)
        assert points.effective_bits[place] == pytest.approx(best["effective_bits"][0], abs=1e-12)
    assert points.feasible.tolist() == (points.retention >= 0.95).tolist()
    assert 0 < points.feasible.sum() < len(points)


def test_many_points_are_thinned_evenly_and_say_so(evolved, monkeypatch):
    monkeypatch.setattr(series_points, "MOST_GENERATIONS", 3)
    monkeypatch.setattr(series_points, "MOST_POINTS", 15)
    points, again = (population_points(load_run(evolved)) for _ in range(2))
    journal = lines(evolved)
    assert sorted(set(points.generation.tolist())) == [0, 2, 5]
    assert len(points) == 15
    asked = journal[-1]["evaluations"]["asked"]
    assert points.note == f"15 of {asked} candidates; 3 of 6 generations, evenly spaced"
    assert points.share == 15 / asked
    assert points.retention.tolist() == again.retention.tolist()
    last = journal[-1]["population"]["fitness"]
    assert points.fitness[-5:].tolist() == [last[round(i * (len(last) - 1) / 4)] for i in range(5)]


def test_the_front_is_what_no_allocation_beats(small):
    front = front_points(load_run(small))
    total = sum(map(math.prod, SHAPES))
    everything = {}
    for widths in itertools.product(MENU, repeat=3):
        bits = sum(bits_of(width, shape) for width, shape in zip(widths, SHAPES, strict=True)) + 320
        retention = math.prod(1 - LOSS[width] * (number + 1) for number, width in enumerate(widths))
        everything[bits] = max(retention, everything.get(bits, 0.0))
    kept, best = [], -1.0
    for bits in sorted(everything):
        if everything[bits] > best + 1e-12:
            best = everything[bits]
            kept.append((bits, best))
    assert front.exact
    assert front.label == "exact front"
    assert (front.size_bytes * 8).tolist() == pytest.approx([bits for bits, _ in kept])
    assert front.retention.tolist() == pytest.approx([retention for _, retention in kept])
    assert front.compression.tolist() == pytest.approx([(32 * total + 320) / bits for bits, _ in kept])
    assert front.effective_bits.tolist() == pytest.approx([(bits - 320) / total for bits, _ in kept])
    assert front.of == len(kept) == len(front)


def test_layers_under_the_champion(small):
    run = load_run(small)
    series = run_series(run)
    strip, champion = series.strip, run.champion.genome
    assert strip.name == ("layer0", "layer1", "layer2")
    scores = run.champion.scores["train"]
    bits = [bits_of(width, shape) for width, shape in zip(strip.width, SHAPES, strict=True)]
    assert scores["effective_bits"] == pytest.approx(sum(bits) / sum(map(math.prod, SHAPES)))
    assert strip.code_bits.tolist() == [CODES[width] for width in strip.width]
    assert (strip.size_bytes * 8).tolist() == bits
    assert strip.share.tolist() == pytest.approx([part / sum(bits) for part in bits])
    assert strip.effective_bits.tolist() == [part / math.prod(s) for part, s in zip(bits, SHAPES, strict=True)]
    assert strip.parameters.tolist() == [128, 512, 128]
    assert (strip.sensitivity_name, strip.sensitivity.tolist()) == ("gradient_sensitivity", [1.0, 0.5, 1 / 3])
    assert strip.loss_name == "loss"
    assert strip.loss.tolist() == [LOSS[width] * (number + 1) for number, width in enumerate(strip.width)]
    assert (series.size.champion, series.size.fp32, series.size.other) == (sum(bits) / 8, 768 * 4, 40)
    mark = series.marks[0]
    assert (mark.name, mark.source, mark.interval) == ("champion", "profile", None)
    assert mark.retention == pytest.approx(math.prod(1 - loss for loss in strip.loss.tolist()))
    assert mark.size_bytes == sum(bits) / 8 + 40
    assert champion.text


def test_uniform_widths_stand_beside_the_champion(small):
    found = {mark.width: mark for mark in marks(load_run(small)) if mark.width}
    assert tuple(found) == MENU
    for width, mark in found.items():
        bits = sum(bits_of(width, shape) for shape in SHAPES)
        assert mark.effective_bits == pytest.approx(bits / 768)
        assert mark.size_bytes == pytest.approx((bits + 320) / 8)
        assert mark.retention == pytest.approx(math.prod(1 - LOSS[width] * (n + 1) for n in range(3)))


def test_another_model_of_the_run_can_be_asked_for(evolved):
    run = load_run(evolved)
    assert layer_strip(run).model == "seed/train"
    other = layer_strip(run, "seed/test")
    assert (other.model, len(other)) == ("seed/test", 27)
    with pytest.raises(InputError, match="has no model 'seed/tset'; it has seed/train, seed/valid, seed/test"):
        layer_strip(run, "seed/tset")


def test_an_unfinished_run_shows_the_best_so_far(small):
    run = load_run(small)
    begun = dataclasses.replace(run, journal=run.journal[:1], champion=None)
    series = run_series(begun)
    first = run.journal[0]["champion"]
    assert series.marks[0].compression == pytest.approx(first["compression"][0])
    assert len(series.curve) == 1
    with pytest.raises(RunDirError, match="no generation is finished yet"):
        run_series(dataclasses.replace(run, journal=[], champion=None))


def test_large_populations_are_their_best(small):
    run = load_run(small)
    journal = list(run.journal)
    for line in journal:
        line["population"] = {key: line["population"][key] for key in ("first_id", "size")} | {"digest": "0"}
    large = dataclasses.replace(run, journal=journal)
    curve, points = fitness_curve(large), population_points(large)
    assert np.isnan(curve.lower).all()
    assert curve.median.tolist() == [line["summary"]["fitness"]["median"] for line in journal]
    assert points.fitness.tolist() == [line["best"]["fitness"] for line in journal]
    assert points.compression.tolist() == pytest.approx([line["best"]["compression"][0] for line in journal])
    assert "of 3 large populations the journal lists the best alone" in points.note


def test_a_replay_shows_what_was_judged_on_the_champion_s_model(tmp_path):
    api.run(CONFIGS / "journey.yaml", out=tmp_path / "run", overrides=["executor.kind=local"])
    run = load_run(tmp_path / "run")
    series = run_series(run)
    points = series.points
    assert series.strip.model == "seed/test, on which the champion was judged"
    assert "14 were judged on another model" in points.note
    journal = lines(tmp_path / "run")
    first = [(r, c) for r, c in zip(*(journal[0]["population"][k] for k in ("retention", "compression")), strict=True)]
    shown = list(zip(points.retention.tolist(), points.compression.tolist(), strict=True))
    assert shown[0] == pytest.approx(first[0])
    assert not any(pair == pytest.approx(first[2]) for pair in shown), "the third is judged on the additive data"


def test_a_profile_that_was_changed_since_is_refused(small, tmp_path):
    run = load_run(small)
    other = ModelProfile("small", tuple(layer(n, gradient_sensitivity=0.9) for n in range(3)), 320)
    changed = tmp_path / "small.json"
    changed.write_text(profile_to_json(other))
    models = run.config.models.model_copy(update={"train": [str(changed)]})
    inputs = {str(changed): next(iter(run.champion.provenance["inputs"].values()))}
    champion = dataclasses.replace(run.champion, provenance={**run.champion.provenance, "inputs": inputs})
    config = run.config.model_copy(update={"models": models})
    moved = dataclasses.replace(run, config=config, champion=champion)
    with pytest.raises(ProfileError, match=r"was changed since .* was run on it; restore it, or run again"):
        run_series(moved)


def network(run, tmp_path, measurements, allocations, *, gate=None):
    """A run on a "network" whose one generation has measured these; genes are the widths of three layers."""
    from evoquant.campaign.config import config_from_dict

    fisher = {width: loss / 2 for width, loss in LOSS.items()}
    layers = tuple(layer(n, gradient_sensitivity=0.0, loss={}, fisher=fisher) for n in range(3))
    (tmp_path / "profile.json").write_text(profile_to_json(ModelProfile("net", layers)))
    config = config_from_dict(
        {"name": "net", "menu": list(MENU), "task": {"kind": "digits"}, "genome": {"kind": "direct"}}, "config"
    )
    widths = {f"layer{n}": MENU[code] for n, code in enumerate(allocations[0])}
    best = {
        "id": 0,
        "genome": {"kind": "direct", "model": "net", "widths": widths},
        "fitness": 3.0,
        "retention": [measurements["d0"]["retention"]],
        "compression": [2.0],
        "operator": "random",
        "parents": [],
    }
    line = {
        "generation": 0,
        "evaluations": {"asked": len(allocations), "distinct": len(allocations)},
        "summary": {"fitness": {"median": 1.0}},
        "best": best,
        "champion": best,
        "failures": {},
        "passes": 7.5,
        "measured": {"allocations": [f"d{i}" for i in range(len(allocations))], "measurements": measurements},
        "population": {
            "first_id": 0,
            "size": len(allocations),
            "fitness": [1.0, 3.0, None, 2.0][: len(allocations)],
            "genes": [list(map(float, row)) for row in allocations],
        },
    }
    return dataclasses.replace(run, path=tmp_path, config=config, journal=[line], champion=None, gate=gate)


MEASURED = {
    "d0": {"status": "ok", "retention": 0.98},
    "d1": {"status": "ok", "retention": 1.01},
    "d2": {"status": "failed"},
    "d3": {"status": "censored", "retention": 0.7},
}
ALLOCATIONS = ((0, 1, 2), (3, 3, 3), (0, 0, 0), (0, 0, 1))


def test_a_network_s_points_are_what_was_measured(small, tmp_path):
    run = network(load_run(small), tmp_path, MEASURED, ALLOCATIONS)
    series = run_series(run)
    points = series.points
    assert points.retention.tolist() == [0.98, 1.01, 0.7], "the failed one has none"
    assert points.failed == 1
    assert "1 failed and have no retention" in points.note
    assert points.whole.tolist() == [True, True, False]
    bits = [
        sum(bits_of(MENU[code], shape) for code, shape in zip(ALLOCATIONS[row], SHAPES, strict=True))
        for row in (0, 1, 3)
    ]
    assert points.compression.tolist() == pytest.approx([768 * 32 / part for part in bits])
    assert series.curve.passes.tolist() == [7.5]
    assert (series.curve.lower[0], series.curve.upper[0]) == (1.5, 2.5), "of the two that were measured in full"
    assert series.front.estimate
    assert series.front.label == "rough front, by divergence"
    assert series.strip.sensitivity_name == "fisher cost at INT4-channel"
    assert series.strip.loss_name == "fisher"
    champion, *uniform = series.marks
    assert (champion.source, champion.retention) == ("calibration", 0.98)
    assert {mark.source for mark in uniform} == {"estimate"}


def test_the_gate_s_figures_stand_for_what_it_measured(small, tmp_path):
    figures = {"fitness": 2.0, "retention": 0.97, "compression": 3.0, "effective_bits": 8.0}
    tie = {"difference": -0.1, "interval": [-0.2, 0.1], "verdict": "tie"}
    gate = {
        "champion": {"name": "champion", "kind": "direct", **figures},
        "rivals": [
            {"name": "uniform INT8-channel", "kind": "uniform", **figures, "retention": 0.91, **tie},
            {"name": "random 1", "kind": "random", **figures, **tie},
            {"name": "random 2", "kind": "random", **figures, "fitness": 2.5, **tie},
        ],
        "recommended": {"name": "uniform INT8-channel", "kind": "uniform"},
    }
    rows = gate_rows(gate)
    assert [row.name for row in rows] == ["champion", "uniform INT8-channel", "best of 2 random"]
    assert [row.recommended for row in rows] == [False, True, False]
    assert rows[0].interval is None
    assert (rows[1].lead, rows[1].interval, rows[2].fitness) == (-0.1, (-0.2, 0.1), 2.5)
    assert gate_rows(None) == ()
    found = marks(network(load_run(small), tmp_path, MEASURED, ALLOCATIONS, gate=gate))
    assert [(mark.name, mark.source) for mark in found if mark.source == "gate"] == [
        ("champion", "gate"),
        ("uniform INT8-channel", "gate"),
    ]
    assert {mark.width: mark.retention for mark in found}["INT8-channel"] == 0.91


@pytest.mark.parametrize(
    "broken", [{"allocations": ["d9"] * 4}, {"allocations": ["d0"]}, {"measurements": []}, {"measurements": {"d0": 1}}]
)
def test_a_journal_that_was_changed_is_one_message(small, tmp_path, broken):
    run = network(load_run(small), tmp_path, MEASURED, ALLOCATIONS)
    run.journal[0]["measured"].update(broken)
    with pytest.raises(RunDirError, match=r"journal\.jsonl: line 1 does not list its population as it was written"):
        run_series(run)


def test_a_network_without_its_profile_has_a_curve_alone(small, tmp_path):
    run = network(load_run(small), tmp_path, MEASURED, ALLOCATIONS)
    (tmp_path / "profile.json").unlink()
    series = run_series(run)
    assert len(series.curve) == 1
    assert (series.points, series.front, series.marks, series.strip, series.size) == (None, None, (), None, None)
