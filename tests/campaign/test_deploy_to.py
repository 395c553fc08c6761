"""`deploy_to`: a search never sees what its targets cannot take, and configs without it stay what they were."""

import json
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.build import build_campaign, searched_profile
from evoquant.campaign.config import CampaignConfig, config_from_dict, load_config
from evoquant.campaign.gate_rivals import rivals_of
from evoquant.errors import ConfigError, InputError, Interrupted
from evoquant.profiles.model import LayerProfile, ModelProfile, load_profile, profile_to_json
from evoquant.profiles.narrowing import constrained
from evoquant.quantization.precision import Menu, Precision
from evoquant.scoring.objective import FeasibleFirst
from evoquant.scoring.problem import compile_problem
from evoquant.testing.interrupt import StopAfter

CONFIGS = Path(__file__).parents[2] / "configs"
MENU = ["INT3-channel", "INT4-channel", "NF4-channel", "INT8-channel", "FP32"]
TAKEN = {"INT4-channel", "INT8-channel", "FP32"}
TINY = """
name: tiny
task: {kind: tiny, block: 100}
menu: [INT3-channel, INT4-channel, NF4-channel, INT8-channel, FP32]
deploy_to: [onnx]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2}
stop: {generations: 4}
executor: {kind: local}
"""


def config(**more):
    return config_from_dict({"name": "x", "menu": MENU, **more}, "x.yaml")


def test_configs_that_deploy_nowhere_are_what_they_were():
    profiles, measured = CampaignConfig(name="x"), CampaignConfig(name="x", task={"kind": "digits"})
    assert profiles.hash() == "567ff3be2cb1ca4d1139afe56f765f0346b5dc34fa34a1107844470369eeca09"
    assert measured.hash() == "ee2462e900125a501f7cb2502dab180b4d8638a28806a6be259ea680af94dc58"
    assert "deploy_to" not in profiles.to_dict()
    assert config(deploy_to=[]).hash() == config().hash()


def test_targets_are_part_of_the_hash_and_survive_resolving():
    one, two = config(deploy_to=["onnx"]), config(deploy_to=["onnx", "torchao"])
    assert len({config().hash(), one.hash(), two.hash()}) == 3
    assert config_from_dict(two.to_dict(), "resolved.json") == two


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"deploy_to": ["onyx"]}, ["x.yaml: deploy_to", "'onyx'", "'onnx'"]),
        ({"deploy_to": ["onnx", "onnx"]}, ["deploy_to", "'onnx' more than once"]),
        ({"deploy_to": "onnx"}, ["deploy_to", "list"]),
        ({"deploy_too": ["onnx"]}, ["deploy_too", "'deploy_to'"]),
        ({"deploy_to": ["onnx"], "menu": ["INT4", "FP32"]}, ["INT4 on the menu", "INT4-channel"]),
        ({"deploy_to": ["onnx"], "menu": None}, ["INT2, INT4, INT8 on the menu are nominal"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(more, parts):
    with pytest.raises(ConfigError) as caught:
        config(**more)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_replay_chooses_nothing():
    loaded, _ = load_config(CONFIGS / "journey.yaml")
    with pytest.raises(ConfigError, match="a replay chooses nothing"):
        config_from_dict({**loaded.to_dict(), "deploy_to": ["onnx"], "menu": ["INT4-channel", "FP32"]}, "x")


@pytest.fixture
def run(tmp_path, tiny):
    (tmp_path / "tiny.yaml").write_text(TINY)

    def go(name, *overrides, observer=None):
        changes = [f"cache={tmp_path / 'cache'}", *overrides]
        return api.run(tmp_path / "tiny.yaml", out=tmp_path / name, overrides=changes, observer=observer).path

    return go


def widths_searched(tiny):
    """Widths of all that was measured; the tiny network knows its signals without."""
    return {width for task in tiny for request in task.calls for width in request.widths}


def test_nothing_that_the_target_cannot_take_is_measured_recommended_or_written(run, tiny):
    path = run("run")
    assert widths_searched(tiny) <= TAKEN
    profile = load_profile(path / "profile.json")
    assert all(set(layer.allowed) == TAKEN for layer in profile.layers)
    assert set(profile.layers[0].fisher) == set(MENU)  # signals are those of the whole menu
    problem = compile_problem(profile, Menu.parse(MENU))
    allocation = api.load(path).genome.allocate(problem)
    assert set(problem.unfold(allocation)) <= TAKEN
    rivals, _ = rivals_of(problem, FeasibleFirst(0.9), allocation, 0)
    assert len(rivals) > 30
    assert all(set(problem.unfold(rival.allocation)) <= TAKEN for rival in rivals)


def test_without_targets_the_same_search_measures_more(run, tiny):
    run("run", "deploy_to=[]")
    assert "INT3-channel" in widths_searched(tiny)


def test_a_resumed_run_is_byte_identical_and_its_config_reads_back(run):
    whole = run("whole")
    with pytest.raises(Interrupted):
        run("cut", observer=StopAfter(2))
    cut = api.resume(whole.parent / "cut").path
    for name in ("journal.jsonl", "profile.json", "champion.json", "gate.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert json.loads((cut / "resolved.json").read_text())["config"]["deploy_to"] == ["onnx"]


def test_a_network_that_cannot_be_deployed_is_refused_naming_it(run):
    with pytest.raises(InputError, match=r"tiny: deploy_to: layer 'first'.*llama\.cpp"):
        run("run", "deploy_to=[gguf]")


def test_models_of_all_splits_obey_and_fused_layers_share_a_width(tmp_path):
    names = ("q_proj", "k_proj", "v_proj", "conv")
    for split in ("train", "valid", "test"):
        layers = tuple(
            LayerProfile(
                name=f"{split}.{name}",
                type="Conv" if name == "conv" else "Linear",
                shape=(8, 20),
                position=i / 3,
                loss={width: 0.1 / Precision.parse(width).code_bits for width in MENU},
            )
            for i, name in enumerate(names)
        )
        (tmp_path / f"{split}.json").write_text(profile_to_json(ModelProfile(split, layers)))
    models = {split: [str(tmp_path / f"{split}.json")] for split in ("train", "valid", "test")}
    more = {"models": models, "executor": {"kind": "local"}, "stop": {"generations": 3}, "search": {"population": 20}}
    made = config(**more, deploy_to=["onnx", "compressed-tensors"])
    campaign = build_campaign(made, tmp_path)
    try:
        assert set(campaign.problems) == {"train", "valid", "test"}
        for split, (problem,) in campaign.problems.items():
            assert problem.unit_of_layer.tolist() == [0, 0, 0, 1]
            drawn = np.full((len(MENU), 2), np.arange(len(MENU))[:, None], np.int8)
            widths = [problem.unfold(row) for row in problem.repair(drawn)]
            assert {row[0] for row in widths} == TAKEN
            assert {row[3] for row in widths} == {"FP32"}
            assert campaign.inputs[models[split][0]] == searched_profile(made, models[split][0]).digest
    finally:
        campaign.close()


def test_the_shipped_config_takes_off_the_menu_what_it_says():
    loaded, _ = load_config(CONFIGS / "deploy.yaml")
    layers = [LayerProfile(name=f"l{size}", type="Conv", shape=(8, size, 3, 3), position=0) for size in (1, 32)]
    narrow = constrained(ModelProfile("m", tuple(layers)), loaded.resolved_menu, loaded.deploy_to)
    known = {"INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"}
    assert [set(layer.allowed) for layer in narrow.layers] == [known, known | {"INT4-g32"}]
