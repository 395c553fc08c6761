"""OpenVINO IR: the saved network has the measured weights bit for bit, at the promised size, and gives its outputs.

200 allocations of each network: `EVOQUANT_LARGE=1 python -m pytest tests/optional_openvino`.
"""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

from onnx import TensorProto, helper

from evoquant.errors import InputError
from evoquant.export.as_openvino import EXACT, constant_bytes, openvino_files
from evoquant.export.recipe import build_recipe
from evoquant.models.deployable import deployable
from evoquant.models.onnx_task import load_onnx_task
from evoquant.models.torch_task import classification
from evoquant.profiles.targets import TARGETS
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from tests.optional_onnx.models import MODELS, build, tensor
from tests.optional_torch.networks import TASKS, Images, normal, seeded, splits

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 10
SLICES = ("tensor", "channel", "g2", "g16")
MENU = Menu.parse(
    [
        *(f"INT{bits}-{part}{asym}" for bits in (2, 3, 4, 6, 8) for part in SLICES for asym in ("", "-asym")),
        *(f"{kind}-{part}" for kind in ("FP8", "NF4") for part in SLICES),
        *("INT4-channel-mse", "INT8-channel-a8", "FP16", "BF16", "FP32"),
    ]
)
TYPES = {"INT2": "u2", "INT3": "u3", "INT4": "i4", "INT6": "u6", "INT8": "i8", "FP8": "f8e4m3", "NF4": "nf4"}
UNSIGNED = {**TYPES, "INT4": "u4", "INT8": "u8"}
FLOATS = {"FP16": "f16", "BF16": "bf16"}
UNREAD = {"language": 4 * (16 * 16 + 16)}  # bytes of a module that forward never calls
READERS_OWN = 40  # bytes of factors of one that OpenVINO's reader puts into each Gemm, and of its first states of LSTM


def onnx_task(name):
    model, data = MODELS[name]()
    kind = {"branches": "regression"}.get(name)
    return load_onnx_task(model.SerializeToString(), data, kind=kind, name=name, block=8, batch=4)


def image_task():
    """Grouped and transposed convolutions, one of them used twice; what PyTorch cannot export is changed."""
    network = Images()
    network.first.padding_mode = "zeros"
    network.rms = torch.nn.LayerNorm(4)
    data = splits(lambda k: (normal(k, 2, 8, 8), np.arange(k) % 3), 24)
    return classification(seeded(network), **data)


NETWORKS = {
    **{name: lambda name=name: onnx_task(name) for name in MODELS},
    **{name: TASKS[name] for name in ("language", "volumes", "time")},
    "images": image_task,
}


@cache
def matrices(k=96, n=80):
    """Three matrices: two as MatMul has them, one as a Gemm with transB."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="/first/MatMul"),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "second"], ["c"], name="/second/Gemm", transB=1),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "third"], ["y"], name="/third/MatMul"),
    ]
    weights = [
        tensor(rng, "first", k, n, scale=0.1),
        tensor(rng, "second", k, n, scale=0.1),
        tensor(rng, "third", k, n, scale=0.1),
    ]
    model = build(nodes, weights, [("x", TensorProto.FLOAT, ["N", k])], [("y", TensorProto.FLOAT, ["N", n])])
    data = {"x": rng.standard_normal((48, k)).astype(np.float32)}
    return load_onnx_task(model.SerializeToString(), data, kind="embedding", name="matrices", block=8, batch=4)


def exported(task, widths, path):
    ready = deployable(task)
    profile = task.profile(Menu.parse(["FP32"]), None, ())
    recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})
    return recipe, ready, openvino_files(recipe, ready, path)


def run(model, ready, settings=EXACT):
    """The scored output of the first samples, and how far it is from the measured one by that one's range."""
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    ranks = {name: len(port.get_partial_shape()) for port in compiled.inputs for name in port.get_names()}
    feeds = ready.feeds("test", 0, ready.batch)
    found = compiled({name: a.reshape(()) if ranks[name] == 0 else a for name, a in feeds.items()})
    return found[ready.names[ready.scored]]


def gap(model, ready, widths, settings=EXACT):
    expected = ready.outputs("test", 0, ready.batch, tuple(widths))[ready.scored]
    return np.abs(run(model, ready, settings) - expected).max() / np.ptp(expected)


def drawn(profile, rng):
    """A random width for each layer, of those that the target says it can express."""
    target = TARGETS["openvino"]
    for layer in profile.layers:
        fitting = [p for p in MENU if target.fault(layer, p) is None]
        yield fitting[rng.integers(len(fitting))].name


def check_weights(model, recipe):
    """The weights that the saved network stands for are those of the recipe, in the types of their widths."""
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    layers = [layer for layer in recipe.layers if layer.precision != "FP32"]
    made = []
    for layer in layers:
        name, width = f"evoquant.{layer.name}", layer.width
        stored = nodes[f"{name}.codes" if width.has_scales else f"{name}.values"]
        types = {**(UNSIGNED if width.asymmetric else TYPES), **FLOATS}
        assert stored.get_element_type().get_type_name() == types[width.format], layer
        parts = ("reshaped", "dequantized", "fp32")
        made.append(next(nodes[f"{name}.{part}"] for part in parts if f"{name}.{part}" in nodes).output(0))
    if made:
        found = openvino.Core().compile_model(openvino.Model(made, [], "weights"), "CPU", EXACT)([])
    for index, layer in enumerate(layers):
        values = recipe.values(layer)
        if layer.width.has_scales and layer.channel_axis is not None:
            values = np.moveaxis(values, layer.channel_axis, 0)
        assert found[index].shape == values.shape
        np.testing.assert_array_equal(found[index].view(np.uint32), np.ascontiguousarray(values).view(np.uint32))


@pytest.mark.parametrize("name", NETWORKS)
def test_random_allocations(name, tmp_path):
    task = NETWORKS[name]()
    ready = deployable(task)
    profile = task.profile(Menu.parse(["FP32"]), None, ())
    rng = generator_for(0, 0, "allocations")
    for _ in range(ALLOCATIONS):
        widths = list(drawn(profile, rng))
        recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})
        files = openvino_files(recipe, ready, tmp_path / "m.xml")
        model = openvino.Core().read_model(files[0])
        check_weights(model, recipe)
        assert gap(model, ready, widths) < 1e-5, widths
        promised = recipe.promise.bytes - UNREAD.get(name, 0)
        # constants are whole bytes, those of 3 and 6 bits three each, and symmetric ones of these have a zero point
        assert abs(constant_bytes(model) - promised) <= 0.01 * promised + READERS_OWN + 5 * len(widths), widths


@pytest.mark.parametrize("precision", [p.name for p in MENU if p.activation_bits is None and p.group_size != 2])
def test_every_precision_on_matrices(precision, tmp_path):
    task = matrices()
    widths = [precision] * 3
    recipe, ready, files = exported(task, widths, tmp_path / "m.xml")
    model = openvino.Core().read_model(files[0])
    check_weights(model, recipe)
    assert gap(model, ready, widths) < 1e-5
    assert constant_bytes(files[0]) == pytest.approx(recipe.promise.bytes, rel=0.01)


@pytest.mark.parametrize("precision", ["INT2-channel", "INT2-g16-asym", "INT4-g16", "INT4-g16-asym", "INT8-channel"])
def test_matrices_stay_packed_and_inputs_are_not_rounded(precision, tmp_path):
    task = matrices()
    widths = [precision] * 3
    _, ready, files = exported(task, widths, tmp_path / "m.xml")
    compiled = openvino.Core().compile_model(files[0], "CPU", EXACT)
    products = [
        node
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].value == "FullyConnected"
    ]
    kept = {node.input_value(1).get_element_type().get_type_name() for node in products}
    types = UNSIGNED if "asym" in precision else TYPES
    assert len(products) == 3
    assert kept == {types[precision[:4]]}
    assert gap(files[0], ready, widths, {"INFERENCE_PRECISION_HINT": "f32"}) < 1e-5  # the file asks for the rest


SCRIPT = """
import sys, numpy as np, openvino
path, inputs, outputs = sys.argv[1:]
model = openvino.Core().read_model(path)
assert not any(name in sys.modules for name in ("torch", "onnx", "evoquant"))
constants = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
print(*{node.get_element_type().get_type_name() for node in constants})
settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
np.save(outputs, openvino.Core().compile_model(model, "CPU", settings)(np.load(inputs))[0])
"""


def test_a_fresh_process_has_the_same_types_and_outputs(tmp_path):
    task = onnx_task("cnn")
    widths = ["INT2-channel", "FP16", "INT4-channel-asym", "FP8-channel", "INT8-tensor"]
    _, ready, files = exported(task, widths, tmp_path / "m.xml")
    np.save(tmp_path / "x.npy", ready.feeds("test", 0, 4)["x"])
    command = [sys.executable, "-c", SCRIPT, files[0], tmp_path / "x.npy", tmp_path / "y.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"u2", "u4", "i8", "f8e4m3", "f16", "f32", "i64"}
    expected = ready.outputs("test", 0, 4, tuple(widths))[0]
    assert np.abs(np.load(tmp_path / "y.npy") - expected).max() < 1e-5 * np.ptp(expected)


@pytest.mark.parametrize("name", ["cnn", "branches"])
def test_the_same_bytes_again(name, tmp_path):
    task = onnx_task(name)
    widths = ["INT4-tensor"] * len(task.layers)
    first, second = (exported(task, widths, tmp_path / part / "m.xml")[2] for part in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["m.bin", "m.xml"]


@pytest.mark.parametrize(
    ("precision", "path", "message"),
    [
        ("FP16", "m.onnx", r"m\.onnx: OpenVINO IR is an \.xml file; its numbers go into m\.bin"),
        ("INT5-channel", "m.xml", "layer 'conv': no OpenVINO type holds INT5-channel; choose INT2"),
        ("INT8-channel-a8", "m.xml", "INT8-channel-a8 was measured with inputs in INT8.*; choose INT8-channel"),
        ("FP16", "file/m.xml", "m.xml: cannot be written: "),
    ],
)
def test_what_cannot_be_written_is_said(precision, path, message, tmp_path):
    (tmp_path / "file").touch()
    task = onnx_task("cnn")
    with pytest.raises(InputError, match=message):
        exported(task, [precision] * len(task.layers), tmp_path / path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_networks_that_openvino_cannot_read_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="/first/MatMul"),
        helper.make_node("Det", ["a"], ["y"]),
    ]
    inputs, outputs = [("x", TensorProto.FLOAT, ["N", 3, 3])], [("y", TensorProto.FLOAT, ["N"])]
    model = build(nodes, [tensor(rng, "w", 3, 3)], inputs, outputs)
    data = {"x": rng.standard_normal((48, 3, 3)).astype(np.float32)}
    task = load_onnx_task(model.SerializeToString(), data, kind="regression", name="det", block=8, batch=4)
    with pytest.raises(InputError, match=r"det: OpenVINO cannot read the network: .*Det"):
        exported(task, ["FP16"], tmp_path / "m.xml")


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "m.xml").write_text("<net")
    with pytest.raises(InputError, match=r"m\.xml: no OpenVINO IR"):
        constant_bytes(tmp_path / "m.xml")
