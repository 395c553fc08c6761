"""Targets that evoquant writes and does not run: every layer at its width, nothing else, and no name becomes code.

200 allocations of each: `EVOQUANT_LARGE=1 python -m pytest tests/export/test_text_targets.py`.
"""

import ast
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from torch import nn

from evoquant.errors import InputError
from evoquant.export import as_onnx, as_tensorrt
from evoquant.export.as_coreml import coreml_files, weight_name
from evoquant.export.as_executorch import executorch_files
from evoquant.export.as_tensorrt import tensorrt_files
from evoquant.export.lint import lint
from evoquant.export.recipe import build_recipe
from evoquant.models.deployable import deployable
from evoquant.models.torch_task import classification
from evoquant.profiles.targets import TARGETS
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 6
WRITERS = {
    "tensorrt": (tensorrt_files, ".onnx"),
    "executorch": (executorch_files, ".py"),
    "coreml": (coreml_files, ".yaml"),
}
MENU = Menu.parse(
    [
        *(
            f"INT{bits}-{part}{rest}"
            for bits in (2, 4, 8)
            for part in ("tensor", "channel", "g16", "g36", "g64")
            for rest in ("", "-asym", "-a8")
        ),
        *("FP8-tensor", "FP8-channel", "NF4-g64", "INT4-channel-mse", "FP16", "BF16", "FP32"),
    ]
)
NOT_RUN = "NOT RUN BY EVOQUANT: compare the outputs yourself before you rely on it."


class Mixed(nn.Module):
    """Tokens (n, 8) → logits (n, 20): a table, matrices, a norm, convolutions both ways."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 64)
        self.blocks = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(2))
        self.norm = nn.LayerNorm(64)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 4, 2)
        self.head = nn.Linear(64, 20)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + torch.tanh(block(self.norm(x)))
        maps = self.up(torch.relu(self.conv(x.reshape(-1, 8, 8, 8))))
        return self.head(x.mean(dim=1)) + maps.mean(dim=(1, 2, 3))[:, None]


def small_task(network, types=None):
    for name, parameter in network.named_parameters():
        rng = generator_for(0, 0, f"weights {name}")
        parameter.data = torch.from_numpy(0.2 * rng.standard_normal(tuple(parameter.shape)).astype(np.float32))
    tokens = generator_for(0, 0, "tokens").integers(0, 20, (24, 8))
    data = {split: (tokens, np.arange(24) % 3) for split in ("calibration", "selection", "test")}
    return classification(network, **data, types=types)


@cache
def mixed():
    task = small_task(Mixed())
    return task, deployable(task), task.profile(Menu.parse(["FP32"]), None, ())


def recipe_of(task, ready, profile, widths):
    return build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})


def allocations(target, count=ALLOCATIONS):
    """Recipes of random widths that the linter takes."""
    task, ready, profile = mixed()
    rng = generator_for(0, 0, f"allocations {target}")
    for _ in range(count):
        fitting = [[p for p in MENU if TARGETS[target].fault(layer, p) is None] for layer in profile.layers]
        recipe = recipe_of(task, ready, profile, [some[rng.integers(len(some))].name for some in fitting])
        assert [finding for finding in lint(recipe, target, profile) if finding.severity == "error"] == []
        yield recipe


def at(precision, layer, other="FP32"):
    """A recipe with one layer at a precision."""
    task, ready, profile = mixed()
    return recipe_of(task, ready, profile, [precision if one.name == layer else other for one in profile.layers])


def test_tensorrt_has_every_layer_at_its_width_and_the_measured_outputs(tmp_path):
    _, ready, _ = mixed()
    kinds = {"INT4": "INT4", "INT8": "INT8", "FP8": "FLOAT8E4M3FN", "FP16": "FLOAT16", "BF16": "BFLOAT16"}
    for recipe in allocations("tensorrt"):
        files = tensorrt_files(recipe, ready, tmp_path / "m.onnx")
        assert [file.name for file in files] == ["m.onnx", "m.trtexec.txt"]
        model = onnx.load(files[0])
        stored = {one.name: onnx.TensorProto.DataType.Name(one.data_type) for one in model.graph.initializer}
        changed = [layer for layer in recipe.layers if layer.precision != "FP32"]
        for layer in changed:
            part = "codes" if layer.width.has_scales else "values"
            assert stored[f"evoquant.{layer.name}.{part}"] == kinds[layer.width.format]
        held = [name for name in stored if name.startswith("evoquant.") and name.endswith((".codes", ".values"))]
        assert len(held) == len(changed)
        text = files[1].read_text("utf-8")
        rows = [line.split() for line in text.partition("Layers:")[2].splitlines() if line]
        assert rows == [[layer.precision, layer.name] for layer in recipe.layers]
        widths = tuple(layer.precision for layer in recipe.layers)
        codes = {f"evoquant.{layer.name}.codes": layer.width for layer in recipe.layers}
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear":
                by_blocks = any(attribute.name == "block_size" for attribute in node.attribute)
                assert by_blocks == (codes[node.input[0]].granularity == "group")
        options = onnxruntime.SessionOptions()  # unoptimized: its optimizer would round activations
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
        found = session.run(None, ready.feeds("test", 0, 4))[0]
        expected = ready.outputs("test", 0, 4, widths)[0]
        assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


def test_tensorrt_is_built_without_flags_for_precisions(tmp_path):
    _, ready, _ = mixed()
    text = tensorrt_files(at("INT8-channel", "head"), ready, tmp_path / "my model.onnx")[1].read_text("utf-8")
    (name,) = ready.feeds("test", 0, 1)
    shapes = " ".join(f"--{which}Shapes={name}:24x8" for which in ("min", "opt", "max"))
    assert f"trtexec '--onnx=my model.onnx' '--saveEngine=my model.plan' {shapes}\n" in text
    assert NOT_RUN in text
    assert not any(flag in text for flag in ("--fp16", "--int8", "--fp8", "--best", "--stronglyTyped", "recisions="))


def refuse_to_write(path, content):
    raise InputError(f"{path}: cannot be written: disk full.")


@pytest.mark.parametrize("old", [False, True])
def test_tensorrt_leaves_no_model_without_its_text(old, monkeypatch, tmp_path):
    _, ready, _ = mixed()
    if old:
        tensorrt_files(at("INT8-channel", "head"), ready, tmp_path / "m.onnx")
    monkeypatch.setattr(as_tensorrt, "write_atomic", refuse_to_write)
    with pytest.raises(InputError, match=r"m\.trtexec\.txt: cannot be written"):
        tensorrt_files(at("FP8-tensor", "head"), ready, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_leaves_no_text_beside_another_model(monkeypatch, tmp_path):
    """Where the model cannot be written the old one stays; the text goes all the same."""
    _, ready, _ = mixed()
    before = tensorrt_files(at("INT8-channel", "head"), ready, tmp_path / "m.onnx")[0].read_bytes()
    monkeypatch.setattr(as_onnx, "write_atomic", refuse_to_write)
    with pytest.raises(InputError, match=r"m\.onnx: cannot be written"):
        tensorrt_files(at("FP8-tensor", "head"), ready, tmp_path / "m.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == before


def test_tensorrt_writes_nothing_where_the_old_text_stays(tmp_path):
    _, ready, _ = mixed()
    (tmp_path / "m.trtexec.txt").mkdir()
    with pytest.raises(InputError, match=r"m\.trtexec\.txt: cannot be replaced"):
        tensorrt_files(at("INT8-channel", "head"), ready, tmp_path / "m.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["m.trtexec.txt"]


DRIVER = """
import importlib.util, json, sys
import torch
sys.path.insert(0, sys.argv[1])
import network
answers = []
for path in sys.argv[2:]:
    spec = importlib.util.spec_from_file_location("made", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    model = network.make()
    assert made.quantize(model) is model
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None:
            kind = type(weight.data).__name__
            found[name] = [str(weight.target_dtype), list(weight.block_size), str(weight.activation_quantization)] \\
                if kind == "IntxUnpackedToInt8Tensor" else kind
    model(torch.zeros(2, 8, dtype=torch.int64))
    answers.append(found)
assert not any(name.split(".")[0] in ("executorch", "evoquant") for name in sys.modules)
print(json.dumps(answers))
"""


def quantized_by(files, source, folder):
    """What each script makes of the network's weights, in a process that has only torch and torchao."""
    (folder / "network.py").write_text(source, "utf-8")
    command = [sys.executable, "-c", DRIVER, folder, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


MIXED = """
import torch
from torch import nn
class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 64)
        self.blocks = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(2))
        self.norm = nn.LayerNorm(64)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 4, 2)
        self.head = nn.Linear(64, 20)
    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(self.norm(x))
        return self.head(x)
make = Mixed
"""

needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")


def as_torchao_has(layer):
    if layer.precision == "FP32":
        return "Tensor"
    width = layer.width
    activations = "int8_asym_per_token" if width.activation_bits else "None"
    return [f"torch.int{width.code_bits}", [1, width.group_size or layer.shape[1]], activations]


@needs_torchao
def test_executorch_scripts_quantize_every_layer_as_the_recipe_says(tmp_path):
    _, ready, _ = mixed()
    recipes = list(allocations("executorch"))
    files = [executorch_files(recipe, ready, tmp_path / f"m{index}.py")[0] for index, recipe in enumerate(recipes)]
    for recipe, found in zip(recipes, quantized_by(files, MIXED, tmp_path), strict=True):
        assert found == {layer.name: as_torchao_has(layer) for layer in recipe.layers}
    widths = {layer.precision for recipe in recipes for layer in recipe.layers}
    assert len(widths) > 6, widths


def table_of(file):
    """The script's two tables, read as literals."""
    tree = ast.parse(file.read_text("utf-8"))
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(values["LAYERS"]), ast.literal_eval(values["UNTOUCHED"])


def test_executorch_tables_are_literals(tmp_path):
    _, ready, _ = mixed()
    file = executorch_files(at("INT4-g64-a8", "blocks.1"), ready, tmp_path / "m.py")[0]
    assert NOT_RUN.split(": ")[1][:40] in " ".join(ast.get_docstring(ast.parse(file.read_text("utf-8"))).split())
    layers, untouched = table_of(file)
    assert layers == (("blocks.1", "linear", 4, 64, (64, 64)),)
    assert set(untouched) == {"embed", "blocks.0", "norm", "conv", "up", "head"}


@pytest.mark.parametrize(
    ("layer", "precision", "message"),
    [
        ("conv", "INT8-channel-a8", "layer 'conv' at INT8-channel-a8: XNNPACK leaves Conv layers .*; choose FP32"),
        ("head", "INT8-g64-a8", "groups are for INT4 and hold a multiple of 32 weights; choose INT8-channel-a8"),
        ("head", "INT4-g16-a8", "groups are for INT4 and hold a multiple of 32 weights; choose INT4-channel-a8"),
        ("head", "INT4-channel", "weight-only layers have no kernel; choose INT4-channel-a8"),
        ("head", "INT2-channel-a8", "INT2 is for embeddings; choose INT4-channel-a8"),
        ("head", "INT4-channel-mse-a8", "makes scales of the whole range by itself; choose INT4-channel-a8"),
        ("head", "INT8-tensor-a8", "its config has no INT8 by tensor; choose INT8-channel-a8"),
        ("embed", "INT4-g16-asym", "zero points are not taken; choose INT4-g16"),
        ("embed", "INT3-channel", "XNNPACK has no INT3; choose INT4-channel"),
        ("embed", "INT8-channel-a8", "embeddings read no activations; choose INT8-channel"),
        ("head", "FP16", "layer 'head' at FP16: XNNPACK has no FP16; choose FP32"),
        ("norm", "INT8-tensor", "XNNPACK leaves LayerNorm layers .*; choose FP32"),
    ],
)
def test_executorch_refuses_what_xnnpack_has_no_kernel_for(layer, precision, message, tmp_path):
    _, ready, _ = mixed()
    with pytest.raises(InputError, match=message):
        executorch_files(at(precision, layer), ready, tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []


class Attending(nn.Module):
    """Tokens (n, 8) → logits (n, 20): PyTorch's own attention, once with inputs of one size, once of two."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.attn = nn.MultiheadAttention(32, 4, batch_first=True)
        self.cross = nn.MultiheadAttention(32, 4, vdim=16, batch_first=True)
        self.start = nn.Parameter(torch.zeros(8, 32))
        self.head = nn.Linear(32, 20)

    def forward(self, tokens):
        x = self.embed(tokens) + self.start
        x = self.attn(x, x, x, need_weights=False)[0]
        return self.head(self.cross(x, x, x[..., :16], need_weights=False)[0].mean(dim=1))


def attending(widths, types=None):
    """A recipe of it; a name → width for some layers."""
    task = small_task(Attending(), types)
    ready, profile = deployable(task), task.profile(Menu.parse(["FP32"]), None, ())
    return recipe_of(task, ready, profile, [widths.get(layer.name, "FP32") for layer in profile.layers]), ready


@pytest.mark.parametrize("layer", ["attn.in_proj", "attn.out_proj", "cross.q_proj"])
def test_executorch_refuses_the_attention_that_reads_past_its_modules(layer, tmp_path):
    recipe, ready = attending({layer: "INT8-channel-a8"})
    with pytest.raises(InputError, match=rf"layer '{layer}'.*nn\.MultiheadAttention.*choose FP32"):
        executorch_files(recipe, ready, tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "kind", "precision", "is_a"),
    [("embed", "Linear", "INT4-channel-a8", "Embedding"), ("head", "Embedding", "INT2-channel", "Linear")],
)
def test_executorch_refuses_types_that_modules_do_not_have(layer, kind, precision, is_a, tmp_path):
    """Its rules go by the type, which people may declare, and torchao by the module."""
    recipe, ready = attending({layer: precision}, {layer: kind})
    with pytest.raises(InputError, match=f"takes it for a layer of type {kind}, and it is a {is_a}; choose FP32"):
        executorch_files(recipe, ready, tmp_path / "m.py")


def test_executorch_refuses_onnx_files_where_there_is_no_pytorch(monkeypatch, tmp_path):
    class File:
        """As of an ONNX file."""

        def network(self, target):
            raise InputError(f"{target} takes PyTorch networks")

    recipe = at("INT8-channel-a8", "head")
    for name in ("torch", "evoquant.export.hf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="executorch takes PyTorch networks"):
        executorch_files(recipe, File(), tmp_path / "m.py")


BLOCKS = {  # layer → by channel: block of each axis, 0 for all of it
    "embed": [1, 0],
    "blocks.0": [1, 0],
    "blocks.1": [1, 0],
    "conv": [1, 0, 0, 0],
    "up": [0, 1, 0, 0],
    "head": [1, 0],
}


def as_coreml_has(layer):
    width = layer.width
    if not width.has_scales:
        return None
    slices = {"granularity": "per_tensor"}
    if width.granularity == "channel":
        slices = {"granularity": "per_block", "block_size": BLOCKS[layer.name]}
    if width.granularity == "group":
        block = [1, 4, 0, 0] if layer.name == "conv" else [1, width.group_size]  # 36 are four channels of 3 × 3
        slices = {"granularity": "per_block", "block_size": block}
    return {
        "mode": "linear" if width.asymmetric else "linear_symmetric",
        "dtype": f"{'u' if width.asymmetric else ''}int{width.code_bits}",
        **slices,
        "weight_threshold": 0,
    }


def test_coreml_has_every_layer_at_its_width(tmp_path):
    _, ready, _ = mixed()
    for recipe in allocations("coreml", 5 * ALLOCATIONS):
        (file,) = coreml_files(recipe, ready, tmp_path / "m.yaml")
        text = file.read_text("utf-8")
        config = yaml.safe_load(text)
        assert NOT_RUN in text
        assert "&" not in text.partition("config_type")[2]  # no aliases, which coremltools would change all at once
        assert list(config) == ["config_type", "op_name_configs"]
        assert config["config_type"] == "OpLinearQuantizerConfig"
        expected = {f"{layer.name.replace('.', '_')}_weight": as_coreml_has(layer) for layer in recipe.layers}
        assert config["op_name_configs"] == expected
        halves = [line[4:] for line in text.partition("FP16 in the recipe")[2].splitlines()[1:] if line[:4] == "#   "]
        assert halves == [layer.name for layer in recipe.layers if layer.precision == "FP16"]


def test_coreml_takes_groups_of_a_convolution_as_blocks_of_channels(tmp_path):
    _, ready, _ = mixed()
    (file,) = coreml_files(at("INT4-g36", "conv"), ready, tmp_path / "m.yaml")
    assert yaml.safe_load(file.read_text("utf-8"))["op_name_configs"]["conv_weight"]["block_size"] == [1, 4, 0, 0]


@pytest.mark.parametrize(
    ("layer", "precision", "message"),
    [
        ("conv", "INT4-g12", "layer 'conv' at INT4-g12: blocks hold whole input channels, .*; choose INT4-channel"),
        ("up", "INT4-g16", "blocks hold whole input channels, .*; choose INT4-channel"),
        ("head", "INT8-channel-a8", "activations stay in floating point in this export; choose INT8-channel"),
        ("head", "INT2-channel", "Core ML has no INT2; choose INT4-channel"),
        ("head", "INT4-channel-mse", "makes scales of the whole range by itself; choose INT4-channel"),
        ("head", "BF16", "Core ML has no BF16; choose FP32"),
        ("norm", "INT8-tensor", "vectors are left as they are without a word; choose FP32"),
    ],
)
def test_coreml_refuses_what_coremltools_cannot_say(layer, precision, message, tmp_path):
    _, ready, _ = mixed()
    with pytest.raises(InputError, match=message):
        coreml_files(at(precision, layer), ready, tmp_path / "m.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parameter", "name"),
    [
        ("blocks.0.weight", "blocks_0_weight"),
        ("7.weight", "op_7_weight"),
        ("größe.weight", "gr__e_weight"),
        ("a b.weight", "a_b_weight"),
        ("_.weight", "__weight"),
    ],
)
def test_names_as_coremltools_9_made_them_of_a_traced_network(parameter, name):
    assert weight_name(parameter) == name


def test_coreml_names_parameters_as_the_network_has_them(tmp_path):
    recipe, ready = attending({"attn.in_proj": "INT8-channel", "cross.v_proj": "INT4-channel"})
    (file,) = coreml_files(recipe, ready, tmp_path / "m.yaml")
    configs = yaml.safe_load(file.read_text("utf-8"))["op_name_configs"]
    assert set(configs) == {
        "embed_weight",
        "start",
        "attn_in_proj_weight",
        "attn_out_proj_weight",
        "cross_q_proj_weight",
        "cross_k_proj_weight",
        "cross_v_proj_weight",
        "cross_out_proj_weight",
        "head_weight",
    }
    quantized = {name: config["dtype"] for name, config in configs.items() if config}
    assert quantized == {"attn_in_proj_weight": "int8", "cross_v_proj_weight": "int4"}


@pytest.mark.parametrize("change", [{"name": "neck"}, {"shape": (20, 33)}])
def test_coreml_refuses_layers_that_the_network_lacks(change, tmp_path):
    _, ready, _ = mixed()
    recipe = at("INT8-channel", "head")
    layers = [one.model_copy(update=change) if one.name == "head" else one for one in recipe.layers]
    with pytest.raises(InputError, match="the network has no weight of this name and the shape"):
        coreml_files(dataclasses.replace(recipe, layers=tuple(layers)), ready, tmp_path / "m.yaml")


def test_coreml_refuses_two_weights_of_one_name(tmp_path):
    network = nn.Sequential(nn.Embedding(20, 4), nn.Flatten())
    network.add_module("a b", nn.Linear(32, 4))
    network.add_module("a_b", nn.Linear(4, 20))
    task = small_task(network)
    ready, profile = deployable(task), task.profile(Menu.parse(["FP32"]), None, ())
    with pytest.raises(InputError, match="layers 'a b' and 'a_b': coremltools would call both weights a_b_weight"):
        coreml_files(recipe_of(task, ready, profile, ["FP32"] * 3), ready, tmp_path / "m.yaml")


@pytest.mark.parametrize("target", WRITERS)
def test_other_endings_are_refused(target, tmp_path):
    _, ready, _ = mixed()
    write, suffix = WRITERS[target]
    with pytest.raises(InputError, match=rf"name it m\{suffix}"):
        write(at("FP32", "head"), ready, tmp_path / "m.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "layer", "precision"),
    [
        ("tensorrt", "head", "INT2-channel"),
        ("tensorrt", "head", "INT4-g64-asym"),
        ("tensorrt", "head", "INT8-channel-a8"),
        ("executorch", "head", "INT4-channel"),
        ("executorch", "head", "FP16"),
        ("executorch", "embed", "INT4-channel-a8"),
        ("coreml", "head", "FP8-tensor"),
        ("coreml", "conv", "INT4-g12"),
        ("coreml", "head", "INT4-channel-mse"),
    ],
)
def test_lint_refuses_what_the_rules_refuse(target, layer, precision):
    errors = [finding for finding in lint(at(precision, layer), target) if finding.severity == "error"]
    assert [error.layer for error in errors] == [layer]


@pytest.mark.parametrize("target", WRITERS)
def test_every_text_says_that_nothing_was_run(target):
    warnings = [finding.message for finding in lint(at("FP32", "head"), target)]
    assert any("nothing could be run" in text for text in warnings)


def hostile_network(hostile):
    """Modules of hostile names in a row; dots part names in PyTorch."""
    network = nn.Sequential(nn.Embedding(20, 32), nn.Flatten(), nn.Linear(256, 32))
    for index, name in enumerate(hostile):
        network.add_module(f"{index}{name.replace('.', '·')}", nn.Linear(32, 32))
    return network


def hostile_recipe(hostile, width, model):
    task = small_task(hostile_network(hostile))
    ready, profile = deployable(task), task.profile(Menu.parse(["FP32"]), None, ())
    recipe = recipe_of(task, ready, profile, ["FP32", *[width] * (len(profile.layers) - 1)])
    return dataclasses.replace(recipe, model=model), ready


@needs_torchao
def test_executorch_scripts_are_not_broken_by_names(hostile, tmp_path):
    recipe, ready = hostile_recipe(hostile, "INT4-g32-a8", " ".join(hostile))
    file = executorch_files(recipe, ready, tmp_path / "m.py")[0]
    layers, untouched = table_of(file)
    assert [row[0] for row in layers] == [layer.name for layer in recipe.layers[1:]]
    assert untouched == ("0",)
    names = [layer.name for layer in recipe.layers[2:]]
    source = (
        "from torch import nn\n"
        "def make():\n"
        "    network = nn.Sequential(nn.Embedding(20, 32), nn.Flatten(), nn.Linear(256, 32))\n"
        f"    for name in {names!r}:\n"
        "        network.add_module(name, nn.Linear(32, 32))\n"
        "    return network\n"
    )
    (found,) = quantized_by([file], source, tmp_path)
    assert found == {layer.name: as_torchao_has(layer) for layer in recipe.layers}


@pytest.mark.parametrize("name", ["re:x", "_default"])
def test_executorch_refuses_names_that_torchao_takes_for_patterns(name, tmp_path):
    network = nn.Sequential(nn.Embedding(20, 4), nn.Flatten())
    network.add_module(name, nn.Linear(32, 20))
    task = small_task(network)
    ready, profile = deployable(task), task.profile(Menu.parse(["FP32"]), None, ())
    recipe = recipe_of(task, ready, profile, ["FP32", "INT8-channel-a8"])
    with pytest.raises(InputError, match="torchao takes such a name for a pattern"):
        executorch_files(recipe, ready, tmp_path / "m.py")


def test_coreml_and_tensorrt_texts_are_not_broken_by_names(hostile, tmp_path):
    recipe, ready = hostile_recipe(hostile, "INT8-channel", " ".join(hostile))
    plain, plain_ready = hostile_recipe(["x"] * len(hostile), "INT8-channel", "plain")
    config = coreml_files(recipe, ready, tmp_path / "m.yaml")[0].read_text("utf-8")
    found = yaml.safe_load(config)
    assert list(found) == ["config_type", "op_name_configs"]
    assert len(found["op_name_configs"]) == len(recipe.layers)
    assert found["op_name_configs"]["op_0_weight"] is None
    text = tensorrt_files(recipe, ready, tmp_path / "m.onnx")[1].read_text("utf-8")
    expected = tensorrt_files(plain, plain_ready, tmp_path / "p.onnx")[1].read_text("utf-8")
    for made in (config, text):
        assert made.replace("\n", "").isprintable()
    assert len(text.split("\n")) == len(expected.split("\n"))


def test_inputs_that_trtexec_cannot_be_told_are_said(tmp_path):
    _, ready, _ = mixed()

    (own,) = ready.feeds("test", 0, 1)

    class Renamed:
        """The network with a colon in the name of its input."""

        batch = ready.batch

        def graph(self):
            graph = ready.graph()
            proto = graph.opened.proto.graph
            for value in proto.input:
                value.name = "to:kens" if value.name == own else value.name
            for node in proto.node:
                node.input[:] = ["to:kens" if name == own else name for name in node.input]
            return graph

        def feeds(self, split, start, stop):
            return {"to:kens": ready.feeds(split, start, stop)[own]}

    text = tensorrt_files(at("INT8-channel", "head"), Renamed(), tmp_path / "m.onnx")[1].read_text("utf-8")
    assert "names that trtexec cannot be told" in text
    assert "Shapes=" not in text
