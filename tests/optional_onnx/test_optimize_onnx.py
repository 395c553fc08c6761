"""`evoquant.optimize` on an ONNX file, with samples in memory."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper

import evoquant
from evoquant.errors import InputError

BUDGET = {"budget": 12, "floor": 0.9}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file: x (N, 8) → y (N, 3), two products with a ReLU in between."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(8, 16)), "w2": rng.normal(size=(16, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", d]) for n, d in (("x", 8), ("y", 3))]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], tensors)
    path = tmp_path_factory.mktemp("onnx") / "small net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(160, 8)).astype(np.float32)


def outputs(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def journal(result):
    return (result.path / "journal.jsonl").read_bytes()


def test_classes_then_a_quantized_file(model, x, tmp_path):
    labels = outputs(model, x).argmax(axis=1)
    found = evoquant.optimize(model, (x, labels), run_dir=tmp_path / "run", **BUDGET)
    assert found.scores["test"]["metric"]["name"] == "accuracy"
    assert found.path.name == "run" and len(found.allocation) == 2
    batches = [{"x": x[i : i + 40], "labels": labels[i : i + 40]} for i in range(0, 160, 40)]
    again = evoquant.optimize(str(model), batches, **BUDGET)
    assert journal(again) == journal(found)
    file = tmp_path / "quantized.onnx"
    found.export("onnx", file)
    kept = (outputs(file, x).argmax(axis=1) == labels).mean()
    assert 0.8 < kept <= 1.0
    with pytest.raises(InputError, match="apply: the model is an ONNX file"):
        found.apply()
    read = evoquant.optimize(model, (x, labels), run_dir=found.path, **BUDGET)
    assert dict(read.allocation) == dict(found.allocation)


def test_inputs_alone_are_scored_by_agreement(model, x):
    found = evoquant.optimize(model, x, **BUDGET)
    assert found.scores["test"]["metric"]["name"] == "agreement"
    assert found.scores["test"]["metric"]["fp32"] == 1.0


def test_a_metric_of_ones_own(model, x):
    def right(outputs, targets):
        return (outputs.argmax(axis=1) == targets).astype(float)

    found = evoquant.optimize(model, (x, outputs(model, x).argmax(axis=1)), metric=right, **BUDGET)
    assert found.scores["test"]["metric"]["name"].endswith("right")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda x: {"z": x}, "calibration: the graph has no input 'z'"),
        (lambda x: ((x, x), None), "calibration: gives 2 inputs, the graph takes 1: x."),
        (lambda x: x[:, :3], "axis 1 of the input 'x' has 3 entries, not 8"),
        (lambda x: (x, np.full(len(x), 7)), "there are 3"),
    ],
)
def test_wrong_data_is_one_message(model, x, data, said):
    with pytest.raises(InputError) as raised:
        evoquant.optimize(model, data(x), **BUDGET)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_none(tmp_path, x):
    with pytest.raises(InputError, match="does not exist"):
        evoquant.optimize(tmp_path / "none.onnx", x, **BUDGET)
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(InputError, match=r"bad\.onnx"):
        evoquant.optimize(tmp_path / "bad.onnx", x, **BUDGET)


def test_an_object_of_the_onnx_package_is_as_good_as_a_file(model, x):
    loaded = onnx.load(model)
    options = {"signals": ["loss"], "name": "net"}
    found = evoquant.profile(loaded, x, **options)
    assert found == evoquant.profile(model, x, **options) == evoquant.profile(loaded.SerializeToString(), x, **options)
    assert found.passes == {"loss": 9.0, "divergence": 0.0}
    assert journal(evoquant.optimize(loaded, x, **BUDGET, name="n")) == journal(
        evoquant.optimize(model, x, **BUDGET, name="n")
    )
    with pytest.raises(InputError, match=r"calibration: .*small net\.onnx is profiled on data"):
        evoquant.profile(model)


def scored(outputs, targets):
    return outputs[:, 0] * 0 + 0.5


def test_what_workers_import_by_name(model, x):
    from evoquant.models.onnx_memory import FirstOutput
    from evoquant.models.shipped import rebuilt, shipped

    assert rebuilt(shipped(FirstOutput(scored), "metric"), "metric").function is scored
    with pytest.raises(InputError, match=r"metric: cannot be sent to Ray's workers: the function '.*<lambda>' has no"):
        evoquant.optimize(model, x, metric=lambda o, t: scored(o, t), executor="ray", **BUDGET)
