"""`optimize` under several limits: measured, raced, gated and exported like any other run."""

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from evoquant import api
from evoquant.errors import InputError

sys.path.insert(0, str(Path(__file__).parent.parent / "campaign"))
import own_parts


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 24), torch.nn.Linear(24, 3))
    x = torch.randn(240, 6)
    return made, (x, made(x).argmax(1))


def optimized(network, **given):
    costs = {"latency": own_parts.Nanoseconds(3), "bytes": "bytes"}
    return api.optimize(*network, costs=costs, floor=0.8, budget=12, block=32, **given)


def test_limits_are_kept_said_and_gated_and_the_same_call_goes_on(network, tmp_path):
    given = {"at_most": {"bytes": "3kB", "effective_bits": 20}, "minimise": "latency", "run_dir": tmp_path / "run"}
    result = optimized(network, **given)
    scores = result.scores["test"]
    assert scores["minimise"] == "latency"
    assert [row["name"] for row in scores["limits"]] == ["retention", "bytes", "effective_bits"]
    assert all(row["margin"] >= 0 for row in scores["limits"])
    assert scores["costs"]["bytes"]["unit"] == "bytes" and scores["costs"]["bytes"]["most"] <= 3000
    assert scores["cost"]["name"] == "nanoseconds" == scores["costs"]["latency"]["unit"]
    lines = (tmp_path / "run/journal.jsonl").read_text().splitlines()
    population = json.loads(lines[-1])["population"]
    assert set(population["costs"]) == {"bits", "bytes", "latency", "effective_bits"}
    gate = json.loads((tmp_path / "run/gate.json").read_text())
    assert any(rival["name"] == "separable optimum" for rival in gate["rivals"])
    again = optimized(network, **given)
    assert again.champion == result.champion
    assert (tmp_path / "run/journal.jsonl").read_text().splitlines() == lines
    with pytest.raises(InputError, match="at_most"):
        optimized(network, **{**given, "at_most": {"bytes": "2kB", "effective_bits": 20}})


def test_limits_that_nothing_keeps_end_with_whoever_is_nearest_and_the_gate_says_what_contradicts(network, tmp_path):
    result = optimized(network, at_most="300B", run_dir=tmp_path / "run")
    rows = {row["name"]: row for row in result.scores["test"]["limits"]}
    assert rows["bytes"]["margin"] < 0
    gate = json.loads((tmp_path / "run/gate.json").read_text())
    assert "bytes at most 300 B" in gate["left_out"]["separable optimum"]


def test_faults_of_the_call_are_told_by_name(network):
    for given, said in (
        ({"at_most": {"bytes": "20XB"}}, "20XB"),
        ({"at_most": 20_000_000}, "write a text"),
        ({"at_most": {"energy": 3}}, "nothing is counted under the name 'energy'"),
        ({"at_most": {"bytes": "3ms"}}, "bytes: 3ms is a time"),
        ({"at_most": {"bytes": 3}, "objective": "cliff"}, "leave it out, or them"),
        ({"minimise": "joules"}, "nothing is counted under the name 'joules'"),
    ):
        with pytest.raises(InputError, match=said):
            optimized(network, **given)
