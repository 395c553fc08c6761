"""Somebody's own rounding on an ONNX file: searched, exported, verified, scored and profiled with it."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import evoquant
from evoquant import api
from evoquant.campaign.config_measured import source_of
from evoquant.cli import main
from evoquant.errors import InputError
from evoquant.scoring.objective import FeasibleFirst

from .models import cnn

ME = "rounded_onnx"
sys.modules[ME] = sys.modules[__name__]
ROUNDING = f"{ME}:toward_zero"
MENU = ["INT2-channel", "INT4-channel"]


def toward_zero(rows, scales, zero_points, precision):
    codes = np.trunc(rows / scales[:, None]) + zero_points[:, None]
    low = 0 if precision.asymmetric else -precision.largest_code
    return np.clip(codes, low, precision.largest_code).astype(np.int16)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    model, data = cnn()
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "m.npz", x=data["x"])
    (folder / "own.yaml").write_text(f"""
task: {{kind: onnx, model: m.onnx, data: m.npz, metric: agreement, rounding: "{ROUNDING}"}}
menu: [{", ".join(MENU)}]
signals: []
genome: {{kind: direct}}
search: {{kind: genetic, population: 4, elites: 1}}
objective: {{kind: feasible_first, floor: 0.5}}
stop: {{passes: 5, generations: 2}}
executor: {{kind: local}}
cache: {folder / "cache"}
""")
    evoquant.run(folder / "own.yaml", out=folder / "run")
    api.deploy(folder / "run", "recipe", folder / "recipe.json", allow_code=[ROUNDING])
    return folder


def network(place, rounding=None):
    return source_of(
        onnx=str(place / "m.onnx"), data=str(place / "m.npz"), metric="agreement", seed=0, rounding=rounding
    )


def test_what_onnx_runtime_computes_is_what_was_measured(place):
    found = api.verify(place / "run", "onnx", allow_code=[ROUNDING])
    assert found["faults"] == [] and found["outputs"]["within_goal"]
    found = api.verify(place / "recipe.json", "onnx", network(place), allow_code=[ROUNDING])
    assert found["faults"] == []
    for path, source in ((place / "run", None), (place / "recipe.json", network(place))):
        with pytest.raises(InputError, match=rf"to run it, repeat it: --allow-code {ROUNDING}"):
            api.verify(path, "onnx", source)


def scored(place, what, rounding=None):
    return api.score(
        place / what, network(place, rounding), FeasibleFirst(0.5), menu=MENU, cache=place / f"cache-{rounding}"
    )


@pytest.mark.parametrize("what", ["recipe.json", "run"])
def test_a_score_is_by_the_rounding_that_is_named(place, what):
    own, other = scored(place, what, ROUNDING), scored(place, what)
    run = json.loads((place / "run" / "gate.json").read_text())
    said = f"it was measured with {ROUNDING}, here with evoquant's; --rounding {ROUNDING} measures it so"
    assert said in other["warnings"] and said not in own["warnings"]
    if what == "run":
        first = (place / "run" / "champion.json").read_text()
        assert own["scores"]["test"]["retention"] == json.loads(first)["scores"]["test"]["retention"]
    else:
        assert set(own["allocation"].values()) <= set(MENU) and run["recommended"]


def test_a_recipe_of_another_network_or_of_edited_code_says_so(place, tmp_path):
    recipe = json.loads((place / "recipe.json").read_text())
    for key, value, said in (
        (
            "model_digest",
            "0" * 64,
            "the recipe's codes are of another network than 'm' is now: its widths are measured",
        ),
        ("quantizer", f"1+{ROUNDING}@{'0' * 16}", f"the code of {ROUNDING} was edited since"),
    ):
        (tmp_path / "r.json").write_text(json.dumps(recipe | {key: value}))
        warnings = api.score(
            tmp_path / "r.json", network(place, ROUNDING), FeasibleFirst(0.5), menu=MENU, cache=place / "cache-own"
        )["warnings"]
        assert any(text.startswith(said) for text in warnings), warnings


def test_a_profile_is_of_the_codes_that_the_rounding_makes(place, capsys, tmp_path):
    x = np.load(place / "m.npz")["x"]
    asked = {"menu": [*MENU, "FP32"], "signals": ["loss", "divergence"]}
    own, named, plain = (
        evoquant.profile(place / "m.onnx", x, rounding=rounding, **asked) for rounding in (toward_zero, ROUNDING, None)
    )
    losses = [[layer.loss for layer in profile.layers] for profile in (own, named, plain)]
    assert losses[0] == losses[1] != losses[2]
    assert named.provenance["quantizer"].startswith(f"1+{ROUNDING}@")
    assert "+" not in plain.provenance.get("quantizer", "1")
    with pytest.raises(InputError, match=r"rounding: is for a model with data"):
        evoquant.profile("seed/train", rounding=toward_zero)
    options = ["--onnx", place / "m.onnx", "--data", place / "m.npz", "--agreement", "--rounding", ROUNDING]
    sys.argv = ["evoquant", "profile", *map(str, options), "--menu", "INT4-channel,FP32", "--signals", "loss"]
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["provenance"]["quantizer"] == named.provenance["quantizer"]
    sys.argv = ["evoquant", "profile", "seed/train", "--rounding", ROUNDING]
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--rounding is for a network; seed/train is a profile" in capsys.readouterr().err
