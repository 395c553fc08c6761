"""`evoquant cost` on profiles, and what is said of tables of latency."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from evoquant.cli.commands import app
from evoquant.errors import InputError
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_json
from evoquant.report.costs_study import rank_correlation

LAYERS = (
    LayerProfile("first", "Linear", (8, 4), 0.0, macs=32),
    LayerProfile("second", "Linear", (4, 8), 1.0, macs=32),
)
PROFILE = ModelProfile("two", LAYERS, constant_bits=64)
MENU = "INT4-channel,FP32"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "two.json"
    path.write_text(profile_to_json(PROFILE))
    return str(path)


def run(*words):
    done = CliRunner().invoke(app, ["cost", *words], env={"COLUMNS": "120"})
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_bytes_of_a_profile(model):
    text = run(model, "--menu", MENU)
    assert "first" in text and "128 B" in text
    data = json.loads(run(model, "--menu", MENU, "--to", "openvino", "--json"))
    assert (data["cost"], data["constant"]) == ("bytes", 8)
    assert data["units"][0] == {"unit": "first", "values": [16 + 16, 128], "allowed": [True, True]}
    assert data["uniform"]["FP32"] == data["reference"] == 8 + 256


def test_bit_operations_and_a_table(model, tmp_path):
    data = json.loads(run(model, "--menu", MENU, "--kind", "bit_operations", "--json"))
    assert data["reference"] == 64 * 1024
    lines = [f"{layer.name},{width},{value}" for layer in LAYERS for width, value in (("INT4-channel", 3), ("FP32", 9))]
    table = tmp_path / "phone.csv"
    table.write_text("\n".join(["layer,width,value", *lines]) + "\n")
    assert "the table does not say" in run(model, "--menu", MENU, "--kind", str(table))
    layers = [{"name": layer.name, "values": {"INT4-channel": 3, "FP32": 9}} for layer in LAYERS]
    noisy = tmp_path / "noisy.json"
    plain = {"schema": "evoquant.cost_table", "version": 1, "noise": 50, "layers": layers}
    noisy.write_text(json.dumps(plain))
    assert "no latency signal here" in run(
        model, "--menu", MENU, "--kind", str(noisy)
    )  # said, where a campaign refuses


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a profile"),
        (("MODEL", "--latency", "digits", "--to", "onnx"), "are two models"),
        (("--latency", "digits"), "--latency needs --to TARGET"),
        (("--latency", "digits", "--to", "openvino", "--clock", "sun"), "there are cpu and wall"),
        (("MODEL", "--kind", "nothing"), "name bits, bytes, bit_operations"),
        (("MODEL", "--kind", "bits", "--to", "onnx"), "Leave it out"),
        (("MODEL", "-o", "x.json"), "-o is for --latency"),
        (("--latency", "model.onnx", "--to", "onnx"), "needs samples"),
        (("--latency", "digits", "--to", "onx"), "Did you mean 'onnx'"),
    ],
)
def test_what_does_not_go_together_is_told(model, words, message):
    with pytest.raises(InputError, match=message):
        run(*(model if word == "MODEL" else word for word in words))


def test_ranks_of_equal_values_are_the_mean_of_theirs():
    a, b = np.array([1.0, 2.0, 2.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0])
    assert rank_correlation(a, b) == pytest.approx(0.9486832980505138)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
