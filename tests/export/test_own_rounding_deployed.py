"""Codes by somebody's own rounding: each target's real consumer computes what was measured with them, or refuses."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import evoquant
from evoquant.errors import InputError, RunDirError
from evoquant.export.lint import lint, refuse
from evoquant.export.recipe import build_recipe
from evoquant.export.verify import verify_recipe
from evoquant.export.writers import WRITERS
from evoquant.models.deployable import deployable
from evoquant.models.own_rounding import rounded_by, rounder_named
from evoquant.models.torch_task import classification, language_model
from evoquant.profiles.narrowing import constrained
from evoquant.quantization.numerics import quantize
from evoquant.quantization.precision import Menu
from evoquant.scoring.problem import compile_problem
from tests.optional_torch.networks import normal, seeded

ME = "rounded_and_deployed"
sys.modules[ME] = sys.modules[__name__]
ROUNDING = f"{ME}:toward_zero"
PACKAGES = {
    "onnx": ("onnx", "onnxruntime"),
    "onnx-matmulnbits": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "gguf": ("transformers", "gguf", "xllamacpp"),
    "torchao": ("transformers", "torchao"),
    "compressed-tensors": ("transformers", "compressed_tensors"),
    "modelopt": ("transformers", "modelopt"),
}
LANGUAGE = ("gguf", "torchao", "compressed-tensors", "modelopt")  # the latter three make it anew in a fresh process
SLOW = ("torchao", "compressed-tensors", "modelopt")  # a fresh process imports them for seconds


def toward_zero(rows, scales, zero_points, precision):
    codes = np.trunc(rows / scales[:, None]) + zero_points[:, None]
    low = 0 if precision.asymmetric else -precision.largest_code
    return np.clip(codes, low, precision.largest_code).astype(np.int16)


def perceptron():
    network = seeded(torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 8)))
    parts = {name: (normal(80, 64), np.arange(80) % 8) for name in ("calibration", "selection", "test")}
    return classification(network, **parts)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
    network = seeded(LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=False, use_cache=False)))
    tokens = np.arange(6 * 48).reshape(6, 48) % 320
    return language_model(network, calibration=tokens, selection=tokens, test=tokens)


def made(target):
    """A recipe within a target's rules, as many layers as it takes in integers; its network, and the metric."""
    task = rounded_by(llama() if target in LANGUAGE else perceptron(), rounder_named(ROUNDING))
    menu = Menu.parse(["INT4-g32", "INT8-channel", "FP32"] if target != "gguf" else ["INT4-g32", "INT8-g32", "FP32"])
    known = [target] if target in PACKAGES else []
    profile = constrained(task.profile(menu, lambda requests: [], ()), menu, known)
    problem = compile_problem(profile, menu)
    wanted = np.arange(len(problem.units), dtype=np.int8)[None] % 2
    widths = problem.unfold(problem.repair(wanted)[0])
    ready = deployable(task)
    recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {}, task.rounder)
    return recipe, ready, task.metric


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in PACKAGES]
)
def test_a_fresh_consumer_computes_what_was_measured(target):
    for package in PACKAGES[target]:
        pytest.importorskip(package)
    recipe, ready, metric = made(target)
    integers = [layer for layer in recipe.layers if layer.width.is_integer]
    for layer in integers:
        nearest = quantize(ready.weight(layer.name), layer.width, layer.channel_axis).codes
        assert not np.array_equal(recipe.quantized(layer).codes, nearest)
    assert integers
    refuse(lint(recipe, target), target)
    found = verify_recipe(recipe, ready, target, WRITERS[target], metric, samples=40, repeats=0)
    assert found.faults == ()
    assert found.outputs.within_goal or found.rounds


@pytest.mark.parametrize("target", ["executorch", "coreml"])
def test_who_makes_codes_by_itself_refuses_them(target):
    recipe, _, _ = made(target)
    message = f"{target} makes its codes by itself, to the nearest; these were measured as {ROUNDING} does: choose a"
    with pytest.raises(InputError, match=message):
        refuse(lint(recipe, target), target)


class Codes:
    """An exporter that takes numbers."""

    takes = "recipe"

    def export(self, subject):
        recipe = subject.recipe
        parts = {f"{layer.name}.bin": recipe.quantized(layer).codes.tobytes() for layer in recipe.layers}
        return {"rounding.txt": f"{recipe.rounding} {recipe.quantizer}\n", **parts}


class Widths:
    """An exporter that takes widths alone."""

    takes = "allocation"

    def export(self, subject):
        gate = subject.champion.provenance.get("gate", {"recommended": "ungated"})
        return f"{gate['recommended']}: {', '.join(subject.widths.values())}\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A gated run whose config names its network and its rounding."""
    place = tmp_path_factory.mktemp("own")
    config = f"""
task: {{kind: torch, factory: "{ME}:perceptron", rounding: "{ROUNDING}"}}
menu: [INT3-channel, INT4-channel]
genome: {{kind: direct}}
search: {{kind: genetic, population: 4, elites: 1}}
objective: {{kind: feasible_first, floor: 0.5}}
signals: []
stop: {{passes: 5, generations: 2}}
executor: {{kind: local}}
cache: {place / "cache"}
"""
    (place / "own.yaml").write_text(config)
    return evoquant.run(place / "own.yaml", out=place / "run").path


def test_exporters_of_ones_own_get_what_the_gate_lets_pass(run, cli, tmp_path):
    loaded = evoquant.load(run, allow_code=[f"{ME}:perceptron", ROUNDING])
    files, _ = loaded.export(Codes(), tmp_path / "codes")
    assert [file.name for file in files] == ["rounding.txt", "0.bin", "2.bin"]
    assert files[0].read_text().startswith(f"{ROUNDING} 1+{ROUNDING}@")
    allowed = ["--allow-code", f"{ME}:perceptron", "--allow-code", ROUNDING]
    weight = loaded.apply().get_submodule("0").weight.detach().numpy()
    codes = np.frombuffer(files[1].read_bytes(), dtype=np.int8).reshape(weight.shape)
    assert np.array_equal(np.sign(codes), np.sign(weight))
    _, said, code = cli("export", run, "--to", f"{ME}:Codes", *allowed, "-o", tmp_path / "again")
    assert (code, said.count("wrote")) == (0, 3)
    for file in files:
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    recommended = loaded.gate["recommended"]["name"]
    out, _, code = cli("export", run, "--to", f"{ME}:Widths", *allowed)
    assert (code, out) == (0, f"{recommended}: {', '.join(loaded.allocation.values())}\n")
    out, said, code = cli("export", run, "--to", f"{ME}:Widths")
    assert (code, out) == (2, "") and f"--allow-code {ROUNDING}" in said


def test_without_a_gate_exporters_of_ones_own_get_nothing(run, tmp_path):
    ungated = evoquant.load(run, allow_code=[f"{ME}:perceptron", ROUNDING]).save(tmp_path / "run")
    (ungated / "gate.json").unlink()
    loaded = {"allow_code": [f"{ME}:perceptron", ROUNDING]}
    from evoquant.export.own_exporter import content_of

    for exporter in (Codes, Widths):
        with pytest.raises(RunDirError, match=r"has no gate\.json"):
            content_of(ungated, exporter, **loaded)
        content, _ = content_of(ungated, exporter, ungated=True, **loaded)
        assert content
