"""Deployed models run by the real ONNX Runtime and OpenVINO in fresh processes, and what is wrong with wrong ones."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper

from evoquant.errors import InputError, MissingExtraError
from evoquant.export import verify_layers
from evoquant.export.as_onnx import onnx_model
from evoquant.export.consumers.table import CONSUMERS, consumer_of
from evoquant.export.recipe import build_recipe
from evoquant.export.verify import verify_recipe
from evoquant.models.deployable import deployable
from evoquant.models.onnx_task import load_onnx_task
from evoquant.profiles.targets import TARGETS
from evoquant.quantization.precision import Menu
from evoquant.report.verify import export_table, verification_table

from ..optional_onnx.models import build, cnn, tensor, transformer

MENU = Menu.parse(["INT4-channel", "INT8-channel", "FP16", "FP32"])
SCORES = {"test": {"retention": 0.97, "interval": [0.95, 0.99], "samples": 500}}


def made(task, widths):
    """A recipe of these widths in turn, or by layer's name with FP32 for all others; the network; its metric."""
    profile = task.profile(MENU, lambda requests: [], ())
    if isinstance(widths, dict):
        chosen = [widths.get(layer.name, "FP32") for layer in profile.layers]
    else:
        chosen = [widths[index % len(widths)] for index in range(len(profile.layers))]
    ready = deployable(task)
    return build_recipe(profile, chosen, ready.weight, task.model_digest, SCORES, {}), ready, task.metric


def onnx_task(make):
    model, data = make()
    return load_onnx_task(model.SerializeToString(), data, batch=8)


def write(recipe, ready, path):
    path.write_bytes(onnx_model(ready.graph(), recipe).SerializeToString())
    return [path]


def spoiled(layer, change):
    """A writer that changes the scales of one layer."""

    def writer(recipe, ready, path):
        model = onnx_model(ready.graph(), recipe)
        for one in model.graph.initializer:
            if one.name == f"evoquant.{layer}.scales":
                one.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(one)), one.name))
        path.write_bytes(model.SerializeToString())
        return [path]

    return writer


def verified(made_of, writer=write, target="onnx", **options):
    recipe, ready, metric = made_of
    return verify_recipe(recipe, ready, target, writer, metric, **{"repeats": 3, **options})


@pytest.fixture(scope="module")
def network():
    return made(onnx_task(cnn), ["INT4-channel", "INT8-channel"])


def test_a_sound_model_is_as_promised(network):
    found = verified(network)
    assert found.faults == ()
    assert found.loaded
    assert found.version
    assert found.bytes.stored == pytest.approx(network[0].promise.bytes, rel=0.01)
    assert found.actual_bits == pytest.approx(network[0].promise.effective_bits, rel=0.01)
    assert found.bytes.on_disk > found.bytes.stored
    assert found.outputs.within_goal
    assert found.outputs.fp32_difference < 1e-5
    assert found.retention.actual == found.retention.simulated
    assert found.retention.actual_interval[0] < found.retention.actual < found.retention.actual_interval[1]
    assert (found.retention.promised, found.retention.promised_samples) == (0.97, 500)
    assert found.rounding == ()
    assert found.latency.repeats == 3
    assert 0 < found.latency.deployed[0] <= found.latency.deployed[1] <= found.latency.deployed[2]
    data = found.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False))["passed"] is True
    table = verification_table(data)
    assert "as promised" in table.title
    assert "NOT" not in table.to_markdown()


def test_samples_are_run_in_whole_batches():
    found = verified(
        made(onnx_task(transformer), {"tokens": "INT4-channel"}), split="calibration", samples=11, repeats=0
    )
    assert found.faults == ()
    assert found.latency is None
    assert (found.batch, found.retention.samples) == (4, 8)  # the graph fixes batches of 4


def test_a_pytorch_network_is_run_without_pytorch():
    torch = pytest.importorskip("torch")
    from evoquant.models.torch_task import classification

    from ..optional_torch.networks import normal, seeded, splits

    net = seeded(torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)))
    task = classification(net, **splits(lambda n: (normal(n, 12), np.arange(n) % 3), test=40))
    found = verified(made(task, ["INT4-g4", "INT8-channel"]))
    assert found.faults == ()
    assert found.outputs.difference < 1e-5
    assert found.retention.samples == 40


@pytest.mark.parametrize("at_once", [64, 1])
def test_the_layer_with_wrong_scales_is_named(network, monkeypatch, at_once):
    monkeypatch.setattr(verify_layers, "ONE_BY_ONE", at_once)  # 1: found by halving
    found = verified(network, spoiled("depth", lambda scales: scales * np.float16(1.5)))
    assert found.loaded
    assert not found.passed
    assert found.outputs.layer == "depth"
    assert any("layer 'depth'" in fault for fault in found.faults)
    assert found.outputs.fp32_difference < 1e-5
    assert "DOES NOT HOLD" in verification_table(found.to_dict()).to_markdown()


def test_outputs_that_are_no_numbers_are_a_fault(network):
    found = verified(network, spoiled("up", lambda scales: scales * np.float16("nan")))
    assert found.outputs.layer == "up"
    assert found.retention.actual is None
    assert found.to_dict()["outputs"]["difference"] is None
    assert any("not finite" in fault for fault in found.faults)
    assert "not comparable" in verification_table(found.to_dict()).to_markdown()


def test_a_wrong_fp32_model_is_not_blamed_on_a_layer(network):
    def writer(recipe, ready, path):
        model = onnx_model(ready.graph(), recipe)
        bias = next(one for one in model.graph.initializer if one.name == "head.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
        path.write_bytes(model.SerializeToString())
        return [path]

    found = verified(made(onnx_task(cnn), {"conv": "INT4-channel"}), writer)
    assert found.outputs.layer is None
    assert found.faults[0].startswith("the FP32 model's outputs differ")


def test_a_model_that_does_not_load_is_a_fault(network):
    def junk(recipe, ready, path):
        path.write_bytes(b"no model")
        return [path]

    def junk_without_widths(recipe, ready, path):
        return (junk if all(layer.precision == "FP32" for layer in recipe.layers) else write)(recipe, ready, path)

    for writer, name in ((junk, "deployed"), (junk_without_widths, "FP32")):
        found = verified(network, writer)
        assert not found.loaded
        assert f"the {name} model" in found.faults[0]
        assert "Traceback" not in found.faults[0]
        assert found.bytes.promised > 0
        data = found.to_dict()
        assert "loads and runs" in verification_table(data).to_markdown()
        assert "| NO |" in export_table([data]).to_markdown()


def test_a_consumer_that_cannot_start_is_a_fault(network, monkeypatch):
    monkeypatch.setitem(CONSUMERS, "onnx", dataclasses.replace(CONSUMERS["onnx"], module="evoquant.export.nothing"))
    (fault,) = verified(network).faults
    assert "exit code 1" in fault
    assert "evoquant.export.nothing" in fault


@pytest.mark.parametrize("always", [False, True])
def test_more_bytes_than_promised_are_a_fault_but_for_what_the_graph_holds_at_any_width(network, always):
    def writer(recipe, ready, path):
        model = onnx_model(ready.graph(), recipe)
        if always or any(layer.precision != "FP32" for layer in recipe.layers):
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(1000, np.float32), "more"))
        path.write_bytes(model.SerializeToString())
        return [path]

    found = verified(network, writer)
    if always:
        assert not found.faults and any("4000 bytes are constants that the graph holds" in note for note in found.notes)
    else:
        assert len(found.faults) == 1 and "bytes of tensors are stored" in found.faults[0]


def matmul():
    rng = np.random.default_rng(0)
    model = build(
        [helper.make_node("MatMul", ["x", "a"], ["y"], name="/a/MatMul")],
        [tensor(rng, "a", 64, 32)],
        [("x", TensorProto.FLOAT, ["N", 64])],
        [("y", TensorProto.FLOAT, ["N", 32])],
    )
    return model, {"x": rng.standard_normal((64, 64)).astype(np.float32)}


def test_a_graph_that_the_optimizer_makes_round_activations_is_seen():
    """DequantizeLinear with FP32 scales right before MatMul is fused into MatMulNBits with accuracy level 4."""

    def writer(recipe, ready, path):
        (layer,) = recipe.layers
        if layer.precision == "FP32":
            return write(recipe, ready, path)
        model = onnx_model(ready.graph(), recipe)
        del model.graph.initializer[:]
        del model.graph.node[:-1]
        quantized = recipe.quantized(layer)
        parts = (("codes", quantized.codes), ("scales", quantized.scales.astype(np.float32).reshape(-1)))
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in parts)
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["codes", "scales"], ["a"], axis=1))
        path.write_bytes(model.SerializeToString())
        return [path]

    found = verified(made(onnx_task(matmul), ["INT8-channel"]), writer)
    assert len(found.rounding) == 1
    assert found.rounding[0].startswith("MatMulNBits")
    assert "accuracy_level 4" in found.rounding[0]
    assert any("rounds activations" in fault for fault in found.faults)
    assert found.outputs.difference > 1e-4
    assert found.outputs.layer == "a"


def test_openvino_is_compared_in_float32():
    pytest.importorskip("openvino")
    from evoquant.export.as_openvino import openvino_files

    found = verified(made(onnx_task(matmul), ["INT8-channel"]), openvino_files, "openvino")
    assert found.faults == ()
    assert found.loaded
    assert found.rounding == ()
    assert found.outputs.difference < 1e-4
    assert not found.defaults or any(found.defaults in note for note in found.notes)


def test_openvino_names_what_its_settings_round():
    consumer = CONSUMERS["openvino"]
    plain = {"precision": "f32", "dynamic_quantization_group": 0}
    rounding = {"precision": "bf16", "dynamic_quantization_group": 32}
    assert consumer.rounding({"settings": plain}, {"settings": plain}) == ()
    assert consumer.rounding({"settings": rounding}, {"settings": rounding}) == ("BF16 / INT8 in groups of 32",)
    assert consumer.defaults({"defaults": rounding}) == "BF16 / INT8 in groups of 32"


def test_targets_that_are_not_run_here_are_refused():
    with pytest.raises(InputError, match="verify can run onnx"):
        consumer_of("coreml")
    with pytest.raises(InputError, match="Did you mean 'onnx'"):
        consumer_of("onx")


def test_packages_that_are_missing_or_other_are_named(network, monkeypatch):
    missing = dataclasses.replace(TARGETS["onnx"], verified={"no_such_package": "1.0"})
    monkeypatch.setitem(TARGETS, "onnx", missing)
    with pytest.raises(MissingExtraError, match=r"evoquant\[onnx\]"):
        verified(network)
    monkeypatch.setitem(TARGETS, "onnx", dataclasses.replace(missing, verified={"onnxruntime": "0.0.1"}))
    found = verified(network)
    assert found.passed
    assert any("checked with onnxruntime 0.0.1" in note for note in found.notes)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_scripts_load_nothing_but_numpy_and_the_consumer(target):
    consumer = CONSUMERS[target]
    if importlib.util.find_spec(consumer.package) is None:
        pytest.skip(f"{consumer.package} is not installed")
    heavy = ("torch", "onnx", "ray", "numba", "scipy", "pydantic", "typer", "onnxruntime", "openvino")
    code = f"import sys, {consumer.module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
