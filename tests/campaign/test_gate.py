"""The gate, and scoring of allocations from elsewhere, on the tiny network."""

import dataclasses
import json

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.build_measured import opened_network
from evoquant.campaign.config_measured import source_of
from evoquant.campaign.finals_measured import Judge, choose, disagreements, measured_figures
from evoquant.campaign.gate import recommended, run_gate
from evoquant.campaign.gate_rivals import Contender, blind_rivals, narrowed, rivals_of
from evoquant.campaign.measurer import reference_outcomes
from evoquant.campaign.score import allocation_of, read_allocation
from evoquant.errors import CampaignError, InputError, RunDirError
from evoquant.genomes.direct import Direct
from evoquant.models.base import SCORE
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from evoquant.scoring.divergence import divergence_problem
from evoquant.scoring.objective import BitBudget, Cliff
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import cost_sums
from evoquant.scoring.statistics import Metric

MENU = Menu.parse(["INT2-channel", "INT4-channel", "INT8-channel", "FP32"])
FP32 = np.array([3, 3, 3], dtype=np.int8)


@pytest.fixture
def judge(tiny, tmp_path):
    with opened_network(source_of(task="tiny"), MENU, ("fisher",), tmp_path) as opened:
        yield Judge(opened.measurer, opened.problem, Cliff(0.9), 0)


def test_a_width_that_no_layer_may_take_is_no_rival(judge):
    """Repaired it would be another uniform width under this one's name."""
    allowed = judge.problem.allowed.copy()
    allowed[:, 1] = False
    problem = dataclasses.replace(judge.problem, allowed=allowed)
    rivals, left_out = rivals_of(problem, judge.objective, FP32, 0)
    assert [rival.name for rival in rivals if rival.kind == "uniform"] == [
        *("uniform INT2-channel", "uniform INT8-channel", "uniform FP32"),
    ]
    assert "uniform INT4-channel" in left_out


def test_every_rival_is_there_and_costs_are_kept(judge):
    champion = np.array([2, 1, 2], dtype=np.int8)
    gate = run_gate(judge, champion, "direct")
    kinds = [row["kind"] for row in gate["rivals"]]
    assert [kinds.count(kind) for kind in ("uniform", "greedy", "optimum", "random", "shuffled")] == [4, 1, 1, 16, 16]
    assert list(gate["left_out"]) == ["published rule"], "it reads measured losses"
    for row in gate["rivals"]:
        if row["kind"] in ("random", "shuffled"):
            assert row["compression"] >= gate["champion"]["compression"]
        low, high = row["interval"]
        assert low <= high
        assert row["verdict"] == ("ahead" if low > 0 else "behind" if high < 0 else "tie")
        assert row["difference"] == pytest.approx(gate["champion"]["fitness"] - row["fitness"])
    assert json.loads(json.dumps(gate, allow_nan=False)) == gate


def test_the_same_gate_twice(judge):
    champion = np.array([2, 1, 2], dtype=np.int8)
    assert run_gate(judge, champion, "rule") == run_gate(judge, champion, "rule")


def test_a_champion_that_learned_nothing_is_called_out_and_not_recommended(judge):
    gate = run_gate(judge, FP32, "direct")
    assert "LEARNED NOTHING" in gate["warnings"][0]
    assert "uniform INT8-channel" in gate["warnings"][1]
    assert gate["recommended"]["name"] != "champion"
    assert gate["recommended"]["kind"] not in ("random", "shuffled")
    assert set(gate["recommended"]["allocation"]) == {"first", "second", "third"}


def test_of_equals_the_simpler_is_recommended():
    contenders = [Contender(kind, kind, FP32) for kind in ("direct", "uniform", "greedy", "random")]

    def chosen(fitness, places):
        """Whose places differ by less than 1 are tied."""
        return recommended(
            contenders, np.array(fitness), lambda a, b, level: (places[a] - places[b] - 1, places[a] - places[b] + 1)
        )

    assert chosen([3.0, 1.0, 2.0, 9.0], [0, 0, 0, 0]) == 1
    assert chosen([3.0, 1.0, 2.0, 9.0], [0, -2, 0, 0]) == 2
    assert chosen([3.0, 1.0, 2.0, 9.0], [0, -2, -2, 5]) == 0, "blind draws take no part"
    assert chosen([1.0, 1.6, 3.0, 9.0], [0, 1.5, 3, 0]) == 2, "uniform beats it, greedy beats both"
    assert chosen([1.0, 1.6, 2.0, 9.0], [0, 1.5, 2, 0]) == 1, "both beat it and are tied"


def test_narrowing_keeps_to_allowed_widths_and_stops_at_once(judge):
    problem = judge.problem
    limit = int(cost_sums(problem, np.array([[1, 1, 1]], dtype=np.int8))[0])
    for seed in range(20):
        result = narrowed(problem, FP32, limit, generator_for(seed, 0, "narrow"))
        assert cost_sums(problem, result[None])[0] <= limit
    same = narrowed(problem, np.array([1, 1, 1], dtype=np.int8), limit, generator_for(0, 0, "narrow"))
    assert same.tolist() == [1, 1, 1]
    assert narrowed(problem, FP32, 0, generator_for(0, 0, "narrow")).tolist() == [0, 0, 0], "no further than there is"


def test_shuffles_are_permutations_before_they_are_narrowed(judge):
    champion = np.array([0, 1, 2], dtype=np.int8)
    for rival in blind_rivals(judge.problem, champion, 0):
        if rival.kind == "shuffled":
            assert (np.sort(rival.allocation) <= np.sort(champion)).all()


def test_divergences_stand_in_for_losses(judge):
    problem = divergence_problem(judge.problem)
    assert judge.problem.loss is None
    expected = judge.problem.widths["fisher"]["INT4-channel"] * LOSS_UNITS
    np.testing.assert_allclose(problem.loss[:, 1], expected, atol=1)
    assert problem.cost is judge.problem.cost


def test_the_objective_decides(judge):
    tight = Judge(judge.measurer, judge.problem, BitBudget(5.5), 0)
    gate = run_gate(tight, FP32, "direct")
    assert gate["champion"]["fitness"] < 0, "32 bits are over the budget"
    assert gate["recommended"]["name"] != "champion"
    figures = measured_figures(tight, FP32, "gate")
    assert "probability" not in figures, "there is no floor to hold"


def test_figures_say_how_likely_the_floor_holds_also_in_the_worst_slices(judge):
    figures = measured_figures(judge, np.array([1, 0, 2], dtype=np.int8), "test")
    low, high = figures["interval"]
    assert low < figures["retention"] < high
    assert figures["floor"] == 0.9
    assert figures["slices"]["count"] == 4
    worst = [row["retention"] for row in figures["slices"]["worst"]]
    assert worst == sorted(worst)
    assert worst[0] < figures["retention"]
    certain = measured_figures(judge, FP32, "test")
    assert certain["probability"] == 1.0
    assert certain["divergence"] == 0.0


def figures(retention, error=0.004, **more):
    return {"retention": retention, "standard_error": error, **more}


def test_what_has_no_retention_is_named_and_is_no_tie(judge):
    champion = np.array([2, 1, 2], dtype=np.int8)
    task = judge.measurer.task
    base = reference_outcomes(judge.measurer, "gate")[:, SCORE].mean(dtype=np.float64)
    own = Metric("own", own=lambda quantized, fp32: quantized / fp32 if quantized > 0.8 * base else float("nan"))
    object.__setattr__(task, "metric", own)
    gate = run_gate(judge, champion, "direct")
    assert "uniform INT2-channel" in gate["failed"] and gate["recommended"]["name"] != "uniform INT2-channel"
    assert json.loads(json.dumps(gate, allow_nan=False)) == gate
    object.__setattr__(task, "metric", Metric("own", own=lambda quantized, fp32: float("nan")))
    for call in (lambda: run_gate(judge, champion, "direct"), lambda: measured_figures(judge, champion, "test")):
        with pytest.raises(CampaignError, match="no retention on"):
            call()


def test_a_fall_on_the_gates_data_is_called_out():
    even = {"calibration": figures(0.97), "selection": figures(0.965), "gate": figures(0.963)}
    assert disagreements(even) == []
    fallen = {**even, "calibration": figures(0.99)}
    assert ["calibration" in text for text in disagreements(fallen)] == [True]
    risky = {**even, "gate": figures(0.963, probability=0.3, floor=0.97)}
    assert "30%" in disagreements(risky)[0]


def test_the_champion_is_chosen_by_both_splits_together(judge):
    """The luckiest on calibration alone is not chosen, nor is a finalist that fails."""
    rng = generator_for(1, 0, "finalists")
    allocations = np.unique(rng.integers(0, 4, (12, 3)).astype(np.int8), axis=0)
    records = [{"parts": 0, "digest": str(row.tolist())} for row in allocations]
    fitness = []
    for row in allocations:
        halves = [measured_figures(judge, row, split) for split in ("calibration", "selection")]
        mean = np.mean([half["metric"]["quantized"] for half in halves])
        full = np.mean([half["metric"]["fp32"] for half in halves])
        fitness.append(judge.objective.score(min(mean / full, 1.0), halves[0]["compression"], 0.0))
    assert choose(judge, allocations, records) == int(np.argmax(fitness))


CSV = "layer,width\nfirst,INT8-channel\nsecond,INT4-channel\nthird,FP32\n"


def test_allocations_are_read_from_csv_json_and_champions(judge, tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.json").write_text('{"first": "INT8-channel", "second": "INT4-channel", "third": "FP32"}')
    widths = (("first", "INT8-channel"), ("second", "INT4-channel"), ("third", "FP32"))
    champion = {"schema": "evoquant.champion", "version": 1, "text": "", "scores": {}, "provenance": {}}
    (tmp_path / "c.json").write_text(json.dumps({**champion, "genome": Direct("tiny", widths).to_dict()}))
    for name in ("a.csv", "b.json", "c.json"):
        given = read_allocation(tmp_path / name)
        assert allocation_of(given, judge.problem, name).tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (CSV.replace("third", "thirdd"), ["no layer 'thirdd'", "'third'"]),
        (CSV.replace("FP32", "FP23"), ["'third'", "'FP23'", "'FP32'"]),
        (CSV.replace("third,FP32\n", ""), ["gives no width to third"]),
        (CSV + "third,FP32\n", ["line 5", "'third' stands twice"]),
        (CSV + "third,\n", ["line 5"]),
        (CSV.replace("width", "bits"), ["line 1", "layer, bits"]),
        ("\ufeff" + CSV + "fourth,FP32\n", ["no layer 'fourth'"]),
        (CSV + "x" * 200_000, ["cannot be read as CSV"]),
    ],
)
def test_faults_of_an_allocation_are_named(judge, tmp_path, text, parts):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        allocation_of(read_allocation(tmp_path / "a.csv"), judge.problem, "a.csv")
    for part in parts:
        assert part in str(caught.value)


def test_an_allocation_from_elsewhere_is_scored_and_gated(tiny, tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    scored = api.score(tmp_path / "a.csv", source_of(task="tiny"), Cliff(0.9), cache=tmp_path)
    assert list(scored["scores"]) == ["calibration", "selection", "gate", "test"]
    assert scored["gate"]["champion"]["retention"] == scored["scores"]["gate"]["retention"]
    assert scored["allocation"]["third"] == "FP32"


def test_an_allocation_is_scored_by_limits_over_several_costs(tiny, tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    limits = {
        "kind": "limits",
        "retention": 0.5,
        "minimise": "packed",
        "at_most": {"packed": "1MB", "effective_bits": 1},
    }
    scored = api.score(tmp_path / "a.csv", source_of(task="tiny"), limits, costs={"packed": "bytes"}, cache=tmp_path)
    rows = {row["name"]: row["margin"] for row in scored["scores"]["test"]["limits"]}
    assert rows["packed"] > 0 > rows["effective_bits"] and scored["scores"]["test"]["fitness"] < 0
    with pytest.raises(InputError, match=r"nothing is counted under the name 'pakced'.*Did you mean 'packed'"):
        wrong = {"kind": "limits", "at_most": {"pakced": 3}}
        api.score(tmp_path / "a.csv", source_of(task="tiny"), wrong, costs={"packed": "bytes"}, cache=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name one network"),
        ({"task": "tiny", "onnx": "m.onnx"}, "name one network"),
        ({"onnx": "m.onnx"}, "--data"),
        ({"task": "digits", "metric": "accuracy"}, "belong to --onnx"),
        ({"task": "digitz"}, "Did you mean 'digits'"),
        ({"onnx": "m.onnx", "data": "d.npz", "metric": "acuracy"}, "Did you mean 'accuracy'"),
    ],
)
def test_options_that_name_no_network(options, message):
    with pytest.raises(InputError, match=message):
        source_of(**options)


def test_a_task_may_be_code(tmp_path):
    assert source_of(task="module:factory").factory == "module:factory"


RUN = """
name: tiny
task: {kind: tiny, block: 100}
menu: [INT2-channel, INT4-channel, INT8-channel, FP32]
objective: {kind: cliff, threshold: 0.9}
genome: {kind: direct}
search: {kind: random, population: 6}
stop: {generations: 2}
executor: {kind: local}
"""


def test_exports_of_one_model_take_what_the_gate_recommends(tiny, tmp_path):
    (tmp_path / "tiny.yaml").write_text(RUN)
    run = api.run(tmp_path / "tiny.yaml", out=tmp_path / "run", overrides=[f"cache={tmp_path}"]).path
    gate = json.loads((run / "gate.json").read_text())
    champion, profile, _ = api.gated(run)
    found = champion.genome.to_dict()["widths"]
    assert found == gate["recommended"]["units"]
    assert champion.provenance["gate"]["recommended"] == gate["recommended"]["name"]
    assert profile.name == "tiny"
    raw, _, _ = api.gated(run, ungated=True)
    assert raw.genome == api.load(run).genome
    assert raw.provenance["ungated"] is True
    (run / "gate.json").unlink()
    with pytest.raises(RunDirError, match="--ungated"):
        api.gated(run)
