"""What users, or strangers, may hand over: each fault ends in one message that names it."""

import io
import zipfile

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper

from evoquant.errors import InputError
from evoquant.models.base import SPLITS
from evoquant.models.onnx_data import InputSpec, read_npz, split_samples
from evoquant.models.onnx_task import load_onnx_task
from tests.optional_onnx.models import build, cnn, tensor, transformer

SPEC = InputSpec("x", "float32", (None, 2))


def refused(match, model, data, **options):
    with pytest.raises(InputError, match=match):
        load_onnx_task(model if isinstance(model, bytes) else model.SerializeToString(), data, **options)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda data: data[: len(data) // 2], "truncated|refuses|cannot be read"),
        (lambda data: data[:-3], "truncated|refuses|cannot be read"),
        (lambda data: b"", "no ONNX model"),
        (lambda data: b"\x89PNG not a protobuf" * 50, "no ONNX model"),
        (lambda data: data.replace(b"Conv", b"Cnov"), "refuses the model"),
    ],
)
def test_a_damaged_model(damage, match, tmp_path):
    model, data = cnn()
    path = tmp_path / "damaged.onnx"
    path.write_bytes(damage(model.SerializeToString()))
    with pytest.raises(InputError, match=match) as fault:
        load_onnx_task(path, data)
    assert "damaged.onnx" in str(fault.value)


def test_external_data(tmp_path):
    model, data = cnn()
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert load_onnx_task(path, data).model_digest == load_onnx_task(cnn()[0].SerializeToString(), data).model_digest
    refused("is in another file", path.read_bytes(), data)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(InputError, match=r"external data cannot be read"):
        load_onnx_task(path, data)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights\.bin does not exist"):
        load_onnx_task(path, data)
    outside = onnx.load(path, load_external_data=False)
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    for held in outside.graph.initializer:
        for entry in held.external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
    (tmp_path / "inner" / "model.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(InputError, match=r"external data cannot be read"):
        load_onnx_task(tmp_path / "inner" / "model.onnx", data)
    for held in outside.graph.initializer:
        for entry in held.external_data:
            entry.value = "here" if entry.key == "offset" else entry.value
    path.write_bytes(outside.SerializeToString())
    with pytest.raises(InputError, match=r"is damaged"):
        load_onnx_task(path, data)


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: does not exist"):
        load_onnx_task(tmp_path / "none.onnx", {})
    with pytest.raises(InputError, match=r"is a directory"):
        load_onnx_task(tmp_path, {})
    with pytest.raises(InputError, match=r"none\.npz: does not exist"):
        read_npz(tmp_path / "none.npz")


def test_damaged_data(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not Python objects"):
        read_npz(path)
    path.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        read_npz(path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", b"no array")
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        read_npz(path)


@pytest.mark.parametrize("shape", ["(10000000000000000,)", f"({10**30},)", "(3,"])
def test_data_whose_header_lies(shape, tmp_path):
    header = f"{{'descr':'<f4','fortran_order':False,'shape':{shape}}}\n".encode()
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        read_npz(path)


def test_a_graph_without_weights_or_inputs():
    info = [("x", TensorProto.FLOAT, ["N", 2])]
    relu = build([helper.make_node("Relu", ["x"], ["y"])], [], info, [("y", TensorProto.FLOAT, ["N", 2])])
    refused("no float weight", relu, {"x": np.zeros((8, 2), np.float32)})
    rng = np.random.default_rng(0)
    fixed = build(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [tensor(rng, "a", 2, 2), tensor(rng, "b", 2, 2)],
        [],
        [("y", TensorProto.FLOAT, [2, 2])],
    )
    refused("no input", fixed, {})


def test_data_that_does_not_fit_the_graph():
    model, data = cnn()
    x, labels = data["x"], data["labels"]
    refused("no array for the graph's input 'x'", model, {"labels": labels})
    refused("'image' is no input", model, {"x": x, "image": x})
    refused(r"shape \(48, 2, 6\)", model, {"x": x[..., 0]})
    refused("axis 1 of the input 'x' has 1 entries, not 2", model, {"x": x[:, :1]})
    refused(r"is int64; the graph takes float32: save it with \.astype\(numpy\.float32\)", model, {"x": x.astype(int)})
    broken = np.where(np.arange(len(x)).reshape(-1, 1, 1, 1) == 3, np.nan, x).astype(np.float32)
    refused("'x' holds values that are not finite", model, {"x": broken})
    refused("'labels' has shape", model, {"x": x, "labels": labels[:-1]})
    refused("both labels and targets", model, {"x": x, "labels": labels, "targets": labels})
    refused("3 samples", model, {"x": x[:3]})
    refused("no samples", model, {"x": x[:0]})
    tokens, ids = transformer()
    refused("which int32 cannot hold", tokens, {**ids, "ids": ids["ids"] + 2**31})


def test_targets_and_options_that_do_not_fit():
    model, data = cnn()
    x, labels = data["x"], data["labels"]
    refused("class 9; there are 5", model, {"x": x, "labels": labels * 0 + 9})
    refused("does not fit targets", model, {"x": x, "labels": np.zeros((48, 3), int)})
    refused("whole-numbered", model, {"x": x, "labels": labels + 0.5}, metric="accuracy")
    refused("accuracy needs targets", model, {"x": x}, metric="accuracy")
    refused("unknown metric 'acuracy'. Did you mean 'accuracy'", model, data, metric="acuracy")
    refused("no output 'logit'. Did you mean 'logits'", model, data, output="logit")
    refused("batch is 0", model, data, batch=0)
    refused("no layer 'haed'. Did you mean 'head'", model, data, tie_groups={"g": ["haed", "conv"]})
    refused("which there is not. Did you mean 'head'", model, data, types={"haed": "Linear"})
    refused("keep one", model, data, tie_groups={"g": ["head", "conv"], "h": ["head", "up"]})


def test_one_set_is_cut_into_disjoint_splits_in_a_drawn_order():
    x = np.arange(200, dtype=np.float32).reshape(100, 2)
    splits = split_samples({"x": x, "labels": np.arange(100)}, [SPEC], 0, "data")
    assert [splits[split].count for split in SPLITS] == [50, 15, 15, 20]
    seen = np.concatenate([splits[split].arrays["targets"] for split in SPLITS])
    assert sorted(seen) == list(range(100)) and list(seen) != sorted(seen)
    for samples in splits.values():
        assert (samples.arrays["input0"][:, 0] == 2 * samples.arrays["targets"]).all()
    again = split_samples({"x": x, "labels": np.arange(100)}, [SPEC], 0, "data")
    other = split_samples({"x": x, "labels": np.arange(100)}, [SPEC], 1, "data")
    assert (again["test"].arrays["input0"] == splits["test"].arrays["input0"]).all()
    assert (other["test"].arrays["input0"] != splits["test"].arrays["input0"]).any()


def test_named_splits_stay_what_they_are():
    x = np.arange(60, dtype=np.float32).reshape(30, 2)
    parts = {"calibration": x[:10], "selection": x[10:21], "test": x[21:]}
    splits = split_samples({f"{k}.x": v for k, v in parts.items()}, [SPEC], 0, "data")
    assert [splits[split].count for split in SPLITS] == [10, 6, 5, 9]
    both = np.concatenate([splits["selection"].arrays["input0"], splits["gate"].arrays["input0"]])
    assert sorted(both[:, 0]) == sorted(parts["selection"][:, 0])
    with pytest.raises(InputError, match="no array of the split 'test'"):
        split_samples({"calibration.x": x, "selection.x": x}, [SPEC], 0, "data")
    with pytest.raises(InputError, match="selection has 1 sample"):
        split_samples({"calibration.x": x, "selection.x": x[:1], "test.x": x}, [SPEC], 0, "data")
