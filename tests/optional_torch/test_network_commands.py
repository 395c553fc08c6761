"""`profile`, `score` and `export` of real networks on the command line."""

import functools
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from evoquant.profiles.model import load_profile
from tests.command import command

FACTORY = """
import numpy as np
import torch
from evoquant.models.torch_task import classification

def network(seed=0):
    draw = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, generator=draw)
    def split(n):
        x = torch.randn(n, 6, generator=draw)
        return x.numpy(), net(x).argmax(1).numpy()
    return classification(net, calibration=split(200), selection=split(200), test=split(200))
"""


@pytest.fixture
def evoquant(tmp_path, mine):
    mine(FACTORY)
    return functools.partial(command, tmp_path, EVOQUANT_CACHE=str(tmp_path / "cache"))


def test_a_network_of_ones_own_from_profile_to_gated_export(evoquant, tmp_path):
    done = evoquant("profile", "--torch", "mine:network", "--additivity", 8, "-o", "profile.json")
    profile = load_profile(tmp_path / "profile.json")
    assert [layer.name for layer in profile.layers] == ["0", "2"]
    for text in ("fisher", "weight_error", "Rank correlation", "How additive", "passes over the calibration split"):
        assert text in done.stderr
    assert done.stdout == ""
    (tmp_path / "mine.yaml").write_text(
        "task: {kind: torch, factory: 'mine:network'}\ngenome: {kind: direct}\n"
        "search: {kind: random, population: 4}\nstop: {passes: 9}\nexecutor: {kind: local}\n"
    )
    evoquant("run", "mine.yaml", "--out", "run")
    assert "mine:network" in evoquant("report", "run", code=2).stderr, "code is not run unasked"
    report = evoquant("report", "run", "--allow-code", "mine:network").stdout
    assert "The gate" in report
    assert "recommended" in report
    evoquant("export", "run", "--to", "csv", "-o", "a.csv", "--allow-code", "mine:network")
    gate = json.loads((tmp_path / "run" / "gate.json").read_text())
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [list(i) for i in gate["recommended"]["allocation"].items()]
    scored = json.loads(evoquant("score", "a.csv", "--task", "mine:network", "--json").stdout)
    assert scored["gate"]["champion"]["compression"] >= 1
    (tmp_path / "run" / "gate.json").unlink()
    refused = evoquant("export", "run", "--to", "csv", "--allow-code", "mine:network", code=2)
    assert "--ungated" in refused.stderr
    evoquant("export", "run", "--to", "csv", "--ungated", "--allow-code", "mine:network")


def test_score_is_strict_where_asked_to(evoquant, tmp_path):
    (tmp_path / "a.json").write_text('{"0": "FP32", "2": "FP32"}')
    done = evoquant("score", "a.json", "--task", "mine:network")
    assert "warning: the champion is beaten" in done.stderr
    evoquant("score", "a.json", "--task", "mine:network", "--strict", code=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("profile",), "name one network"),
        (("profile", "seed/train", "--task", "digits"), "name one"),
        (("profile", "--task", "digitz"), "'digits'"),
        (("profile", "--task", "digits", "--signals", "fischer"), "'fisher'"),
        (("profile", "--task", "digits", "--additivity", "3"), "at least 8"),
        (("score", "nowhere.csv", "--task", "mine:network"), "nowhere.csv"),
        (("score", "a.json", "--task", "mine:network"), "'3'"),
    ],
)
def test_faults_are_named(evoquant, tmp_path, words, message):
    (tmp_path / "a.json").write_text('{"0": "FP32", "3": "FP32"}')
    assert message in evoquant(*words, code=2).stderr
