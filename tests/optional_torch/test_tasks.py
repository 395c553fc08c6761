"""The example tasks: their data is what it says, their networks repeat to the byte, ONNX sees the same layers."""

import gzip
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from evoquant.errors import InputError
from evoquant.models.base import SPLITS, Request
from evoquant.models.measurer import start_measurer
from evoquant.models.networks import build_network
from evoquant.models.tasks import TASKS, char_lm, digits, fashion, load_task, tabular, training
from evoquant.models.tasks.splits import stratified_splits
from evoquant.models.tasks.training import Training, train
from evoquant.models.torch_data import call_network
from evoquant.models.torch_task import TorchTask

FEW = 48
SHORT = Training(epochs=12, batch=16, learning_rate=0.004, weight_decay=0.0, one_cycle=True)
KINDS = {
    "fashion_cnn": ("classification", fashion.CNN, 14),
    "fashion_vit": ("classification", fashion.VIT, 36),
    "char_lm": ("language", char_lm.ARCHITECTURE, 27),
    "tabular": ("regression", tabular.ARCHITECTURE, 11),
}
HAS_FASHION = fashion.data_folder().is_dir()


def few_samples(name):
    """`(48, …)` inputs and targets of the task's shape."""
    rng = np.random.Generator(np.random.Philox(key=3))
    if name == "char_lm":
        windows = char_lm.read_text()[: FEW * 65].reshape(FEW, 65)
        return windows[:, :-1].copy(), windows[:, 1:].copy()
    if name == "tabular":
        features, targets = tabular.make_rows()
        return features[:FEW], targets[:FEW]
    classes = np.arange(FEW) % 10
    images = rng.standard_normal((10, 1, 28, 28))[classes] + 0.5 * rng.standard_normal((FEW, 1, 28, 28))
    return images.astype(np.float32), classes.astype(np.int64)


def short_task(name):
    kind, architecture, _ = KINDS[name]
    inputs, targets = few_samples(name)
    weights = train(architecture, kind, SHORT, inputs, targets, seed=0)
    network = build_network(architecture, weights).requires_grad_(False)
    data = {split: {"inputs": inputs, "targets": targets} for split in SPLITS}
    return TorchTask(name, network, kind, data, block=FEW, batch=FEW, architecture=architecture)


@pytest.fixture(scope="module")
def short():
    return {name: short_task(name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_training_learns_and_repeats_to_the_byte(name, short):
    kind, architecture, _ = KINDS[name]
    inputs, targets = few_samples(name)
    state = {key: tensor.numpy() for key, tensor in short[name].network.state_dict().items()}
    again = train(architecture, kind, SHORT, inputs, targets, seed=0)
    assert all(np.array_equal(state[key], again[key]) for key in state)
    other = train(architecture, kind, replace(SHORT, epochs=1), inputs, targets, seed=1)
    assert not all(np.array_equal(state[key], other[key]) for key in state)

    def loss(weights):
        with torch.inference_mode():
            outputs = build_network(architecture, weights)(torch.from_numpy(inputs))
        return float(training._loss(kind, outputs, torch.from_numpy(targets)))

    assert loss(state) < 0.8 * loss(other)


@pytest.mark.parametrize("name", KINDS)
def test_layers_that_take_a_width(name, short):
    task, (_, _, expected) = short[name], KINDS[name]
    assert len(task.layers) == expected
    parameters = {layer.parameter for layer in task.found}
    large = {key for key, tensor in task.network.named_parameters() if tensor.ndim >= 2}
    assert large <= parameters


@pytest.mark.parametrize("name", KINDS)
def test_onnx_has_the_same_layers_and_outcomes(name, short, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from evoquant.models.onnx_task import load_onnx_task
    from evoquant.models.tasks.onnx_export import export_onnx

    task = short[name]
    samples = export_onnx(task, tmp_path / f"{name}.onnx")
    onnx = load_onnx_task(tmp_path / f"{name}.onnx", samples, metric=task.metric.name, block=FEW)
    assert onnx.layers == task.layers
    widths = tuple(("INT4-channel", "INT8-channel", "FP32")[i % 3] for i in range(len(task.layers)))
    (torchs,) = start_measurer(task.payload())([Request(widths, "test", 0)])
    (onnxs,) = start_measurer(onnx.payload())([Request(widths, "test", 0)])
    assert np.mean(onnxs, axis=0) == pytest.approx(np.mean(torchs, axis=0), rel=1e-3, abs=1e-5)


def test_a_language_model_does_not_see_what_comes_after(short):
    network, (inputs, _) = short["char_lm"].network, few_samples("char_lm")
    changed = inputs.copy()
    changed[:, 40:] = 0
    with torch.inference_mode():
        before, after = network(torch.from_numpy(inputs)), network(torch.from_numpy(changed))
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 41:], after[:, 41:])


def test_windows_of_text():
    text = char_lm.read_text()
    assert 600_000 < len(text) < 1_000_000
    readable = "".join(char_lm.ALPHABET[code] for code in text)
    assert readable.startswith(":abbrev:") and ":hacker: n.\n" in readable
    splits = char_lm.cut_windows(text, seed=0)
    assert all(splits[split]["targets"].size >= 20_000 for split in SPLITS)
    seen = {row.tobytes() for row in splits["train"]["inputs"]}
    for split in SPLITS:
        data = splits[split]
        assert np.array_equal(data["inputs"][:, 1:], data["targets"][:, :-1])
        rows = {row.tobytes() for row in data["inputs"]}
        assert not rows & seen
        seen |= rows
    other = char_lm.cut_windows(text, seed=1)
    assert not np.array_equal(other["test"]["inputs"], splits["test"]["inputs"])


def test_training_windows_share_no_text_with_the_others():
    """On a text whose characters are their own positions, no position is in two splits."""
    splits = char_lm.cut_windows(np.arange(char_lm.PIECE * 120), seed=0)
    at = {split: set(np.unique(np.stack(list(data.values())))) for split, data in splits.items()}
    for one in at:
        assert all(not at[one] & at[other] for other in at if other != one), one


def test_generated_rows():
    features, targets = tabular.make_rows()
    assert features.shape == (50_000, 24) and targets.shape == (50_000, 1)
    assert features.dtype == targets.dtype == np.float32
    for values in (features.astype(np.float64), targets.astype(np.float64)):
        assert np.allclose(values.mean(axis=0), 0, atol=1e-4) and np.allclose(values.std(axis=0), 1, atol=1e-4)
    again, _ = tabular.make_rows()
    assert np.array_equal(features, again)
    with_one = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    residual = np.linalg.lstsq(with_one, targets, rcond=None)[1][0] / len(targets)
    assert residual > 0.3, "a line must not be enough"


def test_every_run_of_a_stratified_split_has_its_share():
    strata = np.repeat(np.arange(4), 250)
    values = np.arange(1000)
    splits = stratified_splits(values, values, strata, list("abcd"), {"train": 600, "calibration": 200, "test": 200}, 0)
    assert sorted(np.concatenate([data["inputs"] for data in splits.values()])) == list(range(1000))
    for data in splits.values():
        assert np.array_equal(np.array(list("abcd"))[strata[data["inputs"]]], data["slices"])
        for start in range(0, len(data["slices"]), 100):
            counts = np.unique(data["slices"][start : start + 100], return_counts=True)[1]
            assert counts.min() >= 23 and counts.max() <= 27


def write_idx(folder, name, values, *, plain=False, cut=0):
    data = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    data = data[: len(data) - cut]
    if plain:
        (folder / name).write_bytes(data)
    else:
        (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1))


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "PARTS", (("train", 30), ("t10k", 20)))
    for part, count in fashion.PARTS:
        images = np.full((count, 28, 28), 7, np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None]
        write_idx(tmp_path, f"{part}-images-idx3-ubyte", images, plain=part == "train")
        write_idx(tmp_path, f"{part}-labels-idx1-ubyte", np.arange(count).astype(np.uint8) % 10)
    return tmp_path


def test_idx_files_plain_and_zipped(small_fashion):
    images, classes = fashion.read_images(small_fashion)
    assert images.shape == (50, 28, 28) and images[1, 3, 4] == 8 and images[30, 0, 0] == 7
    assert classes.tolist() == [i % 10 for i in range(30)] + [i % 10 for i in range(20)]


def test_missing_and_damaged_images_are_named(small_fashion, tmp_path, monkeypatch):
    monkeypatch.setenv("EVOQUANT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"apt install dataset-fashion-mnist.*EVOQUANT_DATA"):
        load_task("fashion_cnn", 0, tmp_path)
    labels = np.zeros(20, np.uint8)
    write_idx(small_fashion, "t10k-labels-idx1-ubyte", labels, cut=3)
    with pytest.raises(InputError, match="not the file of Fashion-MNIST"):
        fashion.read_images(small_fashion)
    write_idx(small_fashion, "t10k-labels-idx1-ubyte", labels + 10)
    with pytest.raises(InputError, match="class 10"):
        fashion.read_images(small_fashion)
    (small_fashion / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read"):
        fashion.read_images(small_fashion)


def test_unknown_tasks_and_sizes_are_refused(tmp_path):
    with pytest.raises(InputError, match="char_lm"):
        load_task("char_ml", 0, tmp_path)
    with pytest.raises(InputError, match="block is 0"):
        load_task("tabular", 0, tmp_path, block=0)


def test_tabular_whole(tmp_path, monkeypatch):
    """One task trained as users get it, on part of its rows."""
    monkeypatch.setitem(tabular.SIZES, "train", 5_000)
    task = load_task("tabular", 0, tmp_path)
    assert {split: len(task.data[split]["targets"]) for split in SPLITS} == {
        "calibration": 2_500,
        "selection": 1_250,
        "gate": 1_250,
        "test": 5_000,
    }
    assert len(task.blocks("calibration")) == 5
    assert figure(task) > 0.6
    monkeypatch.setattr(training, "train", None)
    assert load_task("tabular", 0, tmp_path).model_digest == task.model_digest, "comes from the cache"


LEAST = {"digits": 0.94, "fashion_cnn": 0.88, "fashion_vit": 0.84, "char_lm": -8.5, "llama": -7.5, "tabular": 0.88}


@pytest.mark.parametrize("name", TASKS)
def test_figures_of_what_is_trained_already(name, monkeypatch):
    """The networks that the configs trained; nothing is trained for this test."""
    if name.startswith("fashion") and not HAS_FASHION:
        pytest.skip("needs Fashion-MNIST: apt install dataset-fashion-mnist")
    if name == "llama":
        pytest.importorskip("transformers")
    monkeypatch.setattr(training, "train", lambda *_: pytest.skip(f"{name} is not in the cache of trained networks"))
    cache = Path(os.environ.get("EVOQUANT_CACHE") or Path.home() / ".cache" / "evoquant")
    task = load_task(name, 0, cache)
    assert figure(task) > LEAST[name]
    slices = task.slices("calibration")
    assert task.kind == "language" or len(set(slices)) == (4 if name == "tabular" else 10)


def figure(task):
    """FP32 accuracy or R² on the test split; minus the perplexity of a language model."""
    data = task.data["test"]
    with torch.inference_mode():
        outputs = call_network(task.network, data, slice(None))
    targets = torch.from_numpy(data["targets"])
    if task.kind == "classification":
        return float((outputs.argmax(dim=1) == targets).float().mean())
    if task.kind == "language":
        return -float(torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten()).exp())
    return float(1 - ((outputs - targets) ** 2).mean() / targets.var())


def test_digits_is_what_it_was():
    assert digits.SIZES == {"train": 600, "calibration": 400, "selection": 200, "gate": 200, "test": 397}
