"""From a campaign on an ONNX network to the file that onnxruntime runs, on the command line."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from evoquant import api
from evoquant.campaign.config import config_from_dict
from evoquant.errors import InputError
from evoquant.export.recipe import read_recipe, write_recipe
from tests.command import command as cli
from tests.optional_onnx.models import cnn

CONFIG = """
task: {kind: onnx, model: net.onnx, data: net.npz, metric: agreement, block: 75}
objective: {kind: cliff, threshold: 0.8}
menu: [INT3-channel, INT4-channel, INT8-channel, FP16, FP32]
genome: {kind: direct}
search: {kind: genetic, population: 20, elites: 1}
stop: {passes: 12, generations: 50}
executor: {kind: local}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("deployment")
    model, _ = cnn()
    onnx.save(model, place / "net.onnx")
    np.savez(place / "net.npz", x=np.random.default_rng(1).standard_normal((1200, 2, 6, 6)).astype(np.float32))
    for name, extra in (("net", "deploy_to: [onnx]\n"), ("free", "")):
        (place / f"{name}.yaml").write_text(CONFIG + extra)
        api.run(place / f"{name}.yaml", out=place / name, overrides=[f"cache={place / 'cache'}"])
    return place


@pytest.fixture(scope="module")
def recipe(folder):
    cli(folder, "export", "net", "--to", "recipe", "-o", "recipe.json")
    return folder / "recipe.json"


def test_a_run_becomes_a_recipe_that_says_what_it_promises(folder, recipe):
    found = read_recipe(recipe)
    run = json.loads((folder / "net" / "report.json").read_text())
    assert [layer.name for layer in found.layers] == ["conv", "norm", "depth", "up", "head"]
    assert "INT3-channel" not in {layer.precision for layer in found.layers}, "deploy_to: [onnx]"
    assert found.provenance["gate"]["recommended"] == run["gate"]["recommended"]["name"]
    chosen = next(
        row
        for row in (run["gate"]["champion"], *run["gate"]["rivals"])
        if row["name"] == run["gate"]["recommended"]["name"]
    )
    assert found.promise.scores["gate"].retention == chosen["retention"]
    assert found.promise.scores["test"].interval[0] <= found.promise.scores["test"].retention, "for verify"
    assert found.promise.compression == pytest.approx(chosen["compression"])


def test_what_is_exported_keeps_its_promise_from_the_run_and_from_the_recipe(folder, recipe):
    source = ["--onnx", "net.onnx", "--data", "net.npz", "--agreement"]
    assert "takes it as it is" in cli(folder, "lint", recipe, "--for", "onnx").stdout
    cli(folder, "export", "net", "--to", "onnx", "-o", "a.onnx")
    cli(folder, "export", recipe, "--to", "onnx", "-o", "b.onnx", *source)
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
    for words in (["net"], [recipe, *source]):
        found = json.loads(cli(folder, "verify", *words, "--to", "onnx", "--json").stdout)
        assert found["passed"] and not found["faults"]
    assert "ONNX" in cli(folder, "verify", "net", "--to", "onnx").stdout.replace("onnx", "ONNX")


def test_what_a_target_cannot_take_is_said_and_not_written(folder):
    cli(folder, "export", "free", "--ungated", "--to", "recipe", "-o", "free.json")
    recipe = json.loads((folder / "free.json").read_text())
    assert recipe["provenance"]["ungated"] is True
    linted = json.loads(cli(folder, "lint", "free.json", "--for", "compressed-tensors", "--json", code=1).stdout)
    layers = {finding["layer"] for finding in linted["findings"] if finding["severity"] == "error"}
    narrowed = {layer["name"] for layer in recipe["layers"] if layer["type"] == "Conv" and layer["precision"] != "FP32"}
    assert narrowed and narrowed <= layers, "it leaves convolutions in floating point"
    said = cli(folder, "export", "free", "--ungated", "--to", "gguf", "-o", "m.gguf", code=2).stderr
    assert "llama.cpp has no architecture with such a layer" in said
    assert not (folder / "m.gguf").exists()
    assert "its models are not run" in cli(folder, "verify", "free", "--to", "coreml", code=2).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "recipe.json", "--to", "onnx", "-o", "c.onnx"], "a recipe does not hold its network; name it"),
        (["export", "net", "--to", "onnx"], "name it with -o model.onnx"),
        (["export", "net", "--to", "onxn", "-o", "c"], "unknown export target 'onxn'. Did you mean 'onnx'?"),
        (["export", "net", "--to", "pyton"], "Did you mean 'python'?"),
        (["export", "net", "--to", "compressed-tensors"], "is written to a folder: name it with -o model."),
        (["export", "net", "--to", "recipe", "-o", "c.txt"], "a recipe is a .json file"),
        (["export", "net", "--to", "onnx", "-o", "recipe.json"], "an ONNX model is an .onnx file; name it recipe.onnx"),
        (["export", "net", "--to", "onnx", "-o", "c.onnx", "--data", "net.npz"], "belong to --onnx MODEL"),
        (["export", "net", "--to", "onnx", "-o", "c.onnx", "--task", "digits"], "names its own network"),
        (["export", "net", "--to", "csv", "--task", "digits"], "csv needs no network"),
        (["lint", "recipe.json", "--for", "gguff"], "Did you mean 'gguf'?"),
        (["lint", "net.yaml", "--for", "onnx"], "net.yaml: "),
        (["verify", "recipe.json", "--to", "onnx", "--task", "nothing"], "no task is called 'nothing'"),
    ],
)
def test_bad_input_ends_with_2(folder, recipe, words, said):
    assert said in cli(folder, *words, code=2).stderr
    assert not (folder / "c.onnx").exists()


def test_a_recipe_of_another_network_is_refused(folder, recipe):
    model, _ = cnn()
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, folder / "other.onnx")
    words = [
        "export",
        recipe,
        "--to",
        "onnx",
        "-o",
        "c.onnx",
        "--onnx",
        "other.onnx",
        "--data",
        "net.npz",
        "--agreement",
    ]
    assert "is about another network" in cli(folder, *words, code=2).stderr


def layers_changed(path, to, change):
    data = json.loads(path.read_text())
    change(data)
    to.write_text(json.dumps(data))
    to.with_suffix(".safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())


SOURCE = ["--onnx", "net.onnx", "--data", "net.npz", "--agreement"]


@pytest.mark.parametrize("command", [["export", "-o", "c.onnx"], ["verify"]])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["promise"]["scores"]["test"].update(retention="high"), "promise.scores.test.retention"),
        (lambda data: data["promise"]["scores"]["test"].update(interval=5), "promise.scores.test.interval"),
        (lambda data: data["promise"].update(effective_bits=1.0), "promises 1 effective bits, but its layers come to"),
        (lambda data: data["layers"][0].update(effective_bits=1.0), "layer 'conv': effective_bits is 1;"),
        (lambda data: data["layers"][0].update(shape=[]), "layers.0.shape"),
        (lambda data: data["layers"].append(data["layers"][0]), "the layer 'conv' stands twice"),
    ],
)
def test_a_recipe_that_says_otherwise_than_its_layers_is_refused(folder, recipe, command, change, said):
    layers_changed(recipe, folder / "changed.json", change)
    assert said in cli(folder, command[0], "changed.json", "--to", "onnx", *command[1:], *SOURCE, code=2).stderr


def test_a_recipe_whose_layers_are_not_the_networks_is_refused(folder, recipe):
    """With the right digest: names and shapes are compared, or the wrong weights would be written without a word."""
    found = read_recipe(recipe)
    head = found.layers[-1]
    flipped = head.model_copy(update={"shape": head.shape[::-1], "channel_axis": 1})
    tensors = {name: array.T if array.shape == head.shape else array for name, array in found.tensors.items()}
    ghost = head.model_copy(update={"name": "ghost"})
    renamed = {name.replace("head:", "ghost:"): array for name, array in found.tensors.items()}
    for layers, numbers, said in (
        ((*found.layers[:-1], flipped), tensors, "layer 'head': is of shape"),
        ((*found.layers[:-1], ghost), renamed, "layer 'ghost': net has no such layer"),
    ):
        write_recipe(dataclasses.replace(found, layers=layers, tensors=numbers), folder / "other.json")
        words = ["export", "other.json", "--to", "onnx", "-o", "d.onnx", *SOURCE]
        assert said in cli(folder, *words, code=2).stderr
    assert not (folder / "d.onnx").exists()


def test_numbers_that_are_not_there_are_said(folder, recipe):
    (folder / "alone.json").write_bytes(recipe.read_bytes())
    linted = json.loads(cli(folder, "lint", "alone.json", "--for", "onnx", "--json").stdout)
    assert ["alone.safetensors" in finding["message"] for finding in linted["findings"]] == [True]


def test_code_that_a_run_names_is_allowed_by_the_caller_alone(folder, tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')\n")
    shutil.copytree(folder / "net", tmp_path / "net")
    resolved = json.loads((tmp_path / "net" / "resolved.json").read_text())
    resolved["config"]["task"]["metric"] = "mine:metric"
    resolved["hash"] = config_from_dict(resolved["config"], "resolved").hash()
    (tmp_path / "net" / "resolved.json").write_text(json.dumps(resolved))
    for call in (
        api.recipe,
        lambda path: api.deploy(path, "onnx", tmp_path / "m.onnx"),
        lambda path: api.verify(path, "onnx"),
    ):
        with pytest.raises(InputError, match="mine:metric"):
            call(tmp_path / "net")


def test_the_file_of_a_champion_that_was_picked_is_exported_with_its_network(folder, tmp_path):
    chosen = folder / "picked.json"
    shutil.copy(folder / "net" / "champion.json", chosen)
    cli(folder, "export", "net", "--to", "onnx", "-o", "whole.onnx", "--ungated")
    assert "does not hold its network" in cli(folder, "export", chosen, "--to", "onnx", "-o", "e.onnx", code=2).stderr
    assert "make a recipe of it" in cli(folder, "lint", chosen, "--for", "onnx", code=2).stderr
    cli(folder, "export", chosen, "--to", "onnx", "-o", "picked.onnx", *SOURCE)
    assert (folder / "picked.onnx").read_bytes() == (folder / "whole.onnx").read_bytes()
    cli(folder, "export", chosen, "--to", "recipe", "-o", "p.json", *SOURCE)
    assert read_recipe(folder / "p.json", tensors=False).provenance["ungated"] is True
    data = json.loads(chosen.read_text())
    for change, said in (
        ({"rounding": "me:mine"}, "somebody's own rounding"),
        ({"task net": "0" * 64}, "another network"),
    ):
        changed = {**data, "provenance": {**data["provenance"], "inputs": {**data["provenance"]["inputs"], **change}}}
        (folder / "c.json").write_text(json.dumps(changed))
        assert said in cli(folder, "export", "c.json", "--to", "onnx", "-o", "f.onnx", *SOURCE, code=2).stderr


@pytest.mark.parametrize("out", ["own.onnx", "own.npz"])
def test_an_export_does_not_write_over_what_it_reads(folder, out):
    cli(folder, "export", "net", "--to", "recipe", "-o", "kept.json")
    for name in ("own.onnx", "own.npz"):
        (folder / name).write_bytes((folder / f"net{name.removeprefix('own')}").read_bytes())
    before = (folder / out).read_bytes()
    network = ("--onnx", "own.onnx", "--data", "own.npz", "--agreement")
    said = cli(folder, "export", "kept.json", *network, "--to", "onnx", "-o", out, code=2).stderr
    assert f"{out}: is read for this export" in said
    assert (folder / out).read_bytes() == before
