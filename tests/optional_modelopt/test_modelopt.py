"""NVIDIA ModelOpt: the checkpoint has the recipe's codes and scales, the simulation gives the measured outputs.

200 allocations: `EVOQUANT_LARGE=1 python -m pytest tests/optional_modelopt`. What reads the checkpoint needs a GPU.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("modelopt")
pytest.importorskip("requests")

from evoquant.models.hf import require_transformers

require_transformers("these tests")

import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from evoquant.campaign.imported import foreign_json
from evoquant.campaign.imported_layers import sites
from evoquant.errors import InputError, MissingExtraError
from evoquant.export import as_modelopt
from evoquant.export.as_modelopt import due_bytes, modelopt_files, stored_bytes
from evoquant.export.consumers import ANSWER, write_arrays
from evoquant.export.consumers.modelopt_run import activation_quantizers, load_modelopt
from evoquant.export.consumers.torch_network import runner
from evoquant.export.recipe import build_recipe
from evoquant.models.deployable import deployable
from evoquant.models.recreate import recreate
from evoquant.models.torch_task import classification, language_model, regression
from evoquant.profiles.targets import TARGETS, fused_groups
from evoquant.quantization.precision import Menu, Precision
from evoquant.rng import generator_for
from tests.optional_torch.networks import normal, seeded, splits

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 3
MENU = Menu.parse(
    [f"INT4-{part}{mse}" for part in ("g8", "g32", "g64") for mse in ("", "-mse")]
    + ["INT8-channel", "INT8-channel-mse", "FP8-tensor", "FP32"]
)
PACKED = [precision.name for precision in MENU]
COMMON = {"vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "use_cache": False}
LENGTH = 12


def tokens(samples, length=LENGTH):
    return np.random.default_rng(samples).integers(0, 40, (samples, length))


def language(kind, config):
    network = seeded(kind(config)).eval()
    return language_model(network, calibration=tokens(4), selection=tokens(5), test=tokens(6))


def llama(layers=2, tied=False):
    config = transformers.LlamaConfig(
        **{**COMMON, "num_hidden_layers": layers},
        intermediate_size=96,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    return language(transformers.LlamaForCausalLM, config)


def phi():
    """Query, key, value and the first layer of the MLP read one input."""
    return language(transformers.PhiForCausalLM, transformers.PhiConfig(**COMMON, intermediate_size=96))


def neox():
    """ModelOpt writes its classifier by the name that the hub has."""
    return language(transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(**COMMON, intermediate_size=96))


def scores():
    """One value for a text: a matrix of a single row."""
    config = transformers.BertConfig(**{**COMMON, "num_hidden_layers": 1}, intermediate_size=96, num_labels=1)
    network = seeded(transformers.BertForSequenceClassification(config)).eval()
    return regression(network, **splits(lambda k: (tokens(k), normal(k, 1)), 6))


def images():
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    network = seeded(transformers.ViTForImageClassification(config)).eval()
    return classification(network, **splits(lambda k: (normal(k, 3, 8, 8), np.arange(k) % 2), 6))


class Plain(nn.Module):
    """(n, 16) → logits (n, 3); no network of transformers, and a name that is a pattern."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"a[0]": nn.Linear(16, 32), "a0": nn.Linear(32, 32)})
        self.norm = nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.parts["a0"](torch.relu(self.parts["a[0]"](x))))))


def plain():
    return classification(seeded(Plain()).eval(), **splits(lambda k: (normal(k, 16), np.arange(k) % 3), 24))


def recipe_of(task, widths):
    """Widths in the order of the layers, or a name → width for some of them."""
    profile = task.profile(Menu.parse(["FP32"]), None, ())
    if isinstance(widths, dict):
        widths = [widths.get(layer.name, "FP32") for layer in profile.layers]
    ready = deployable(task)
    return build_recipe(profile, widths, ready.weight, task.model_digest, {}, {}), ready


def everywhere(task, precision):
    """A width for each layer: `precision` where the target takes it, else FP32."""
    layers = task.profile(Menu.parse(["FP32"]), None, ()).layers
    width = Precision.parse(precision)
    return [precision if TARGETS["modelopt"].fault(layer, width) is None else "FP32" for layer in layers]


def drawn(task, rng):
    """A random width for each layer, of those that the target takes; fused layers have one."""
    layers = task.profile(Menu.parse(["FP32"]), None, ()).layers
    first = {name: group[0] for group in fused_groups(layers) for name in group}
    chosen = {}
    for layer in layers:
        fitting = [p.name for p in MENU if TARGETS["modelopt"].fault(layer, p) is None]
        chosen.setdefault(first.get(layer.name, layer.name), fitting[rng.integers(len(fitting))])
    return [chosen[first.get(layer.name, layer.name)] for layer in layers]


def gap(network, ready, recipe):
    """How far outputs are from the measured ones, by the range of those."""
    widths = tuple(layer.precision for layer in recipe.layers)
    expected = ready.outputs("test", 0, ready.batch, widths)[0]
    found = runner(network)(ready.feeds("test", 0, ready.batch))[0]
    return np.abs(found - expected).max() / np.ptp(expected)


def unpacked(stored, layer):
    """Codes of a checkpoint's weight, one by one, by ModelOpt's own words: rows 2i and 2i + 1 in low and high bits."""
    if layer.width.format == "FP8":
        assert stored.dtype is torch.float8_e4m3fn
        return stored.view(torch.uint8).numpy()
    if layer.width.code_bits == 8:
        assert stored.dtype is torch.int8
        return stored.numpy()
    assert stored.dtype is torch.uint8
    rows = []
    for row in stored.numpy().astype(np.int64):
        rows += [row % 16, row // 16]
    codes = np.stack(rows)
    return np.where(codes > 7, codes - 16, codes)


def check_checkpoint(folder, recipe):
    stored = load_file(folder / "model.safetensors")
    for layer in recipe.layers:
        weight = stored[f"{layer.name}.weight"]
        if not layer.width.has_scales:
            np.testing.assert_array_equal(weight.numpy(), recipe.values(layer))
            continue
        quantized = recipe.quantized(layer)
        np.testing.assert_array_equal(unpacked(weight, layer), quantized.codes)
        scales = stored[f"{layer.name}.weight_scale"]
        np.testing.assert_array_equal(scales.numpy().reshape(-1), quantized.scales.astype(np.float32))
    said = json.loads((folder / "hf_quant_config.json").read_text())["quantization"]
    assert said["quant_algo"] in ("MIXED_PRECISION", "W4A16_AWQ", "W8A16", "FP8")
    if said["quant_algo"] == "MIXED_PRECISION":
        assert set(said["quantized_layers"]) == {layer.name for layer in recipe.layers if layer.width.has_scales}


def check_simulated(network, recipe):
    """The weights that the quantizers make are the recipe's, up to the last digit."""
    for layer in recipe.layers:
        if layer.width.has_scales:
            module = network.get_submodule(layer.name)
            made = module.weight_quantizer(module.weight).detach().numpy()
            np.testing.assert_allclose(made, recipe.values(layer), rtol=4e-7, atol=0)


def test_random_allocations(tmp_path):
    task = llama()
    rng = generator_for(0, 0, "allocations")
    for index in range(ALLOCATIONS):
        recipe, ready = recipe_of(task, drawn(task, rng))
        files = modelopt_files(recipe, ready, tmp_path / str(index))
        check_checkpoint(tmp_path / str(index) / "checkpoint", recipe)
        network = load_modelopt(recreate(ready.recreation()), files[0].parent)
        check_simulated(network, recipe)
        assert gap(network, ready, recipe) < 1e-5
        assert stored_bytes(files[0]) == pytest.approx(due_bytes(recipe, checkpoint=True), rel=0.01)
        assert activation_quantizers(network) == []


@pytest.mark.parametrize("precision", PACKED)
def test_every_precision(precision, tmp_path):
    task = llama(layers=1)
    widths = everywhere(task, precision)
    assert widths.count(precision) >= 7
    recipe, ready = recipe_of(task, widths)
    files = modelopt_files(recipe, ready, tmp_path / "m")
    if precision != "FP32":
        check_checkpoint(tmp_path / "m/checkpoint", recipe)
    network = load_modelopt(recreate(ready.recreation()), files[0].parent)
    check_simulated(network, recipe)
    assert gap(network, ready, recipe) < 1e-5


@pytest.mark.parametrize(("precision", "largest"), [("INT8-channel", 127), ("INT4-g32", 7), ("INT4-g32-mse", 7)])
@pytest.mark.parametrize("make", [lambda: llama(layers=1), plain])
def test_the_state_has_the_scales_of_slices_whose_weights_do_not_reach_the_largest_code(
    make, precision, largest, tmp_path
):
    """A range found anew, of the largest weight, would be another: these slices hold zeros, or codes up to 3."""
    task = make()
    name = "parts.a0" if make is plain else "model.layers.0.mlp.down_proj"
    with torch.no_grad():
        task.network.get_submodule(name).weight[1] = 0
    recipe, ready = recipe_of(task, {name: precision})
    codes = recipe.tensors[f"{name}:codes"].copy()
    codes[2] = np.clip(codes[2], -3, 3)
    recipe = dataclasses.replace(recipe, tensors={**recipe.tensors, f"{name}:codes": codes})
    modelopt_files(recipe, ready, tmp_path / "m")
    found = load_file(tmp_path / "m/state.safetensors")[f"{name}.weight_quantizer._amax"].numpy().reshape(-1)
    scales = recipe.tensors[f"{name}:scales"].astype(np.float32)
    np.testing.assert_array_equal(found, scales * np.float32(largest))
    rows = np.arange(len(found)) * len(codes) // len(found)
    assert found[rows == 1].min() > 0
    assert found[rows == 2].min() > 2 * 3 * scales[rows == 2].min()


def test_a_network_that_holds_no_numbers_yet_is_loaded(tmp_path):
    task = llama()
    recipe, ready = recipe_of(task, everywhere(task, "INT4-g8"))
    files = modelopt_files(recipe, ready, tmp_path / "m")
    network = recreate(ready.recreation())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    assert gap(load_modelopt(network, files[0].parent), ready, recipe) < 1e-5


@pytest.mark.parametrize("make", [lambda: llama(tied=True), phi, neox])
def test_other_networks(make, tmp_path):
    task = make()
    recipe, ready = recipe_of(task, everywhere(task, "INT4-g8"))
    files = modelopt_files(recipe, ready, tmp_path / "m")
    network = load_modelopt(recreate(ready.recreation()), files[0].parent)
    check_simulated(network, recipe)
    assert gap(network, ready, recipe) < 1e-5
    assert stored_bytes(files[0]) == pytest.approx(due_bytes(recipe, checkpoint=True), rel=0.01)


def test_networks_of_ones_own_are_simulated_and_not_packed(tmp_path):
    task = plain()
    recipe, ready = recipe_of(task, {"parts.a[0]": "INT4-g8", "parts.a0": "INT8-channel", "head": "FP8-tensor"})
    files = modelopt_files(recipe, ready, tmp_path / "m")
    assert [file.name for file in files] == ["quant_cfg.json", "README.txt", "state.safetensors"]
    assert "There is no packed checkpoint" in files[1].read_text()
    network = load_modelopt(Plain(), tmp_path / "m")
    check_simulated(network, recipe)
    assert gap(network, ready, recipe) < 1e-5
    state = sum(t.numel() * t.element_size() for t in load_file(files[2]).values() if t.is_floating_point())
    assert stored_bytes(files[0]) == state


def test_the_config_is_in_order_and_off_first(tmp_path):
    task = plain()
    recipe, ready = recipe_of(task, {"parts.a[0]": "INT4-g8", "parts.a0": "INT8-channel", "head": "FP8-tensor"})
    files = modelopt_files(recipe, ready, tmp_path / "m")
    assert json.loads(files[0].read_text()) == {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {
                "quantizer_name": "parts.a[[]0].weight_quantizer",
                "cfg": {"num_bits": 4, "block_sizes": {"-1": 8}},
                "enable": True,
            },
            {"quantizer_name": "parts.a0.weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}, "enable": True},
            {"quantizer_name": "head.weight_quantizer", "cfg": {"num_bits": [4, 3], "axis": None}, "enable": True},
        ],
        "algorithm": "max",
    }


def test_modelopt_alone_loads_it_as_the_readme_says(tmp_path):
    task = llama(layers=1)
    recipe, ready = recipe_of(task, everywhere(task, "INT4-g32"))
    files = modelopt_files(recipe, ready, tmp_path / "m")
    import modelopt.torch.quantization as mtq

    network = recreate(ready.recreation())
    config = json.loads(files[0].read_text())
    for entry in config["quant_cfg"]:
        blocks = entry.get("cfg", {}).get("block_sizes")
        if blocks:
            entry["cfg"]["block_sizes"] = {int(axis): size for axis, size in blocks.items()}
    mtq.quantize(network, config, forward_loop=None)
    network.load_state_dict(load_file(tmp_path / "m/state.safetensors"))
    assert gap(network, ready, recipe) < 1e-5


def test_a_fresh_process_gives_the_measured_outputs(tmp_path):
    task = llama(layers=1)
    recipe, ready = recipe_of(task, drawn(task, generator_for(1, 0, "allocations")))
    files = modelopt_files(recipe, ready, tmp_path / "m")
    feeds = ready.feeds("test", 0, 4)
    write_arrays(tmp_path / "inputs.npz", [list(feeds.values())])
    job = {
        "models": [["deployed", str(files[0])]],
        "inputs": str(tmp_path / "inputs.npz"),
        "names": list(feeds),
        "batches": 1,
        "outputs": list(ready.names),
        "folder": str(tmp_path),
        "repeats": 0,
        "network": ready.recreation(),
        "generate": None,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "evoquant.export.consumers.modelopt_run", tmp_path / "job.json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    answer = json.loads((tmp_path / ANSWER).read_text())
    assert answer["facts"]["deployed"]["rounding"] == []
    with np.load(tmp_path / "deployed.npz") as outputs:
        found = outputs["0.0"]
    expected = ready.outputs("test", 0, 4, tuple(layer.precision for layer in recipe.layers))[0]
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


def test_the_same_bytes_again_without_a_word_and_the_network_as_it_was(tmp_path, capfd):
    task = llama(layers=1)
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    recipe, ready = recipe_of(task, everywhere(task, "INT8-channel"))
    first, second = (modelopt_files(recipe, ready, tmp_path / name) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]
    assert capfd.readouterr() == ("", "")
    after = task.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert transformers.utils.logging.is_progress_bar_enabled()


@pytest.mark.parametrize(
    ("make", "widths", "message"),
    [
        (
            plain,
            {"head": "INT2-channel"},
            "layer 'head': INT2-channel: the checkpoint has no INT2; choose INT4-channel",
        ),
        (plain, {"parts.a0": "INT8-g8"}, "INT8-g8: the checkpoint has no INT8 by group; choose INT8-channel"),
        (scores, {"classifier": "INT8-channel"}, "'classifier': .* a single row cannot be packed; choose FP8-tensor"),
        (images, {"classifier": "FP8-tensor"}, "ModelOpt, which runs the network on two tokens, cannot export it: "),
        (
            llama,
            {"model.layers.0.self_attn.q_proj": "INT4-g8", "model.layers.0.self_attn.k_proj": "INT8-channel"},
            "layers that read one input must have one format: query, key, value; .* Give them one width",
        ),
    ],
)
def test_what_cannot_be_written_is_said(make, widths, message, tmp_path):
    recipe, ready = recipe_of(make(), widths)
    with pytest.raises(InputError, match=message):
        modelopt_files(recipe, ready, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_there_are_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already; name a new folder"):
        modelopt_files(*recipe_of(plain(), {"head": "FP8-tensor"}), tmp_path / "m")
    assert [file.name for file in (tmp_path / "m").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("package", ["modelopt", "requests"])
def test_missing_packages_are_named(package, monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(MissingExtraError, match=rf"needs \S*{package}, .*evoquant\[modelopt\]"):
        modelopt_files(*recipe_of(plain(), {}), tmp_path / "m")


@pytest.mark.parametrize("part", ["weight", "weight_scale"])
def test_other_codes_or_scales_in_the_checkpoint_are_refused(part, monkeypatch, tmp_path):
    """As if ModelOpt had made its own."""
    task = llama(layers=1)
    recipe, ready = recipe_of(task, everywhere(task, "INT8-channel"))
    modelopt_files(recipe, ready, tmp_path / "good")
    import modelopt.torch.export as exports

    real = exports.export_hf_checkpoint

    def other(network, dtype, export_dir):
        real(network, dtype=dtype, export_dir=export_dir)
        tensors = load_file(export_dir / "model.safetensors")
        tensors[f"lm_head.{part}"][:3] += 1
        save_file(tensors, export_dir / "model.safetensors")

    monkeypatch.setattr(exports, "export_hf_checkpoint", other)
    found = "192 other codes and 0 other scales" if part == "weight" else "0 other codes and 3 other scales"
    with pytest.raises(InputError, match=f"layer 'lm_head': ModelOpt's checkpoint has {found} than the recipe"):
        modelopt_files(recipe, ready, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def edited(folder, key, value):
    config = json.loads((folder / "quant_cfg.json").read_text())
    config["quant_cfg"][1]["cfg"][key] = value
    (folder / "quant_cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edited(f, "calibrator", ["os.system", ["true"]]), "quant_cfg.json: .*calibrator"),
        (lambda f: edited(f, "num_bits", 3), "quant_cfg.json: .*num_bits"),
        (lambda f: edited(f, "axis", None), "does not fit the network: .*_amax"),
        (lambda f: (f / "quant_cfg.json").write_text("{"), "quant_cfg.json"),
        (lambda f: (f / "state.safetensors").write_bytes(b"no"), "state.safetensors: cannot be read"),
        (lambda f: (f / "state.safetensors").unlink(), "state.safetensors: cannot be read"),
    ],
)
def test_damaged_folders_are_refused(damage, message, tmp_path):
    modelopt_files(*recipe_of(plain(), {"head": "INT8-channel"}), tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(InputError, match=message):
        load_modelopt(Plain(), tmp_path / "m")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(16, 3)), "lacks 0.bias, unlike the network"),
        (lambda: nn.ModuleDict({"head": nn.Linear(32, 3)}), "has norm.bias, unlike the network"),
    ],
)
def test_another_network_is_refused(network, message, tmp_path):
    modelopt_files(*recipe_of(plain(), {}), tmp_path / "m")
    with pytest.raises(InputError, match=message):
        load_modelopt(network(), tmp_path / "m")


def test_activation_quantizers_are_seen(tmp_path):
    modelopt_files(*recipe_of(plain(), {"head": "INT8-channel"}), tmp_path / "m")
    network = load_modelopt(Plain(), tmp_path / "m")
    network.head.input_quantizer.enable()
    assert activation_quantizers(network) == ["head.input_quantizer"]


def test_bytes_of_a_damaged_folder_are_not_counted(tmp_path):
    with pytest.raises(InputError, match=r"state\.safetensors: cannot be read"):
        stored_bytes(tmp_path / "quant_cfg.json")


def test_a_layer_that_modelopt_leaves_alone_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(as_modelopt, "quantize", lambda network, config: None)
    with pytest.raises(InputError, match="layer 'head': ModelOpt does not quantize a Linear; choose FP32"):
        modelopt_files(*recipe_of(plain(), {"head": "INT8-channel"}), tmp_path / "m")


@pytest.mark.parametrize("make", [lambda: llama(layers=1), plain])
def test_the_config_reads_back_as_the_same_allocation(make, tmp_path):
    task = make()
    widths = drawn(task, generator_for(2, 0, "allocations"))
    recipe, ready = recipe_of(task, widths)
    files = modelopt_files(recipe, ready, tmp_path / "m")
    layers = sites(task, task.profile(Menu.parse(["FP32"]), None, ()))
    found = foreign_json(json.loads(files[0].read_text()), str(files[0])).resolve(layers).widths
    assert [found[layer.name] for layer in recipe.layers] == [width.removesuffix("-mse") for width in widths]
