"""The real network: what is measured is what was asked for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from evoquant.models.arrays import unpack_arrays
from evoquant.models.base import Failed, Request
from evoquant.models.networks import build_network
from evoquant.models.tasks import load_task
from evoquant.models.torch import start_measurer
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Menu, Precision

MENU = Menu.parse(["INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"])
SPLITS = ("calibration", "selection", "gate", "test")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return load_task("digits", seed=0, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def measure(task):
    return start_measurer(task.payload())


@pytest.fixture(scope="module")
def profile(task, measure):
    return task.profile(MENU, measure)


def test_two_trainings_give_the_same_bytes_and_another_seed_others(task, tmp_path):
    again = load_task("digits", seed=0, cache=tmp_path)
    assert again.model_digest == task.model_digest
    assert again.payload()["weights"] == task.payload()["weights"]
    assert load_task("digits", seed=1, cache=tmp_path).model_digest != task.model_digest


def test_a_damaged_network_in_the_cache_is_trained_again(task, tmp_path):
    load_task("digits", seed=0, cache=tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-100])
    assert load_task("digits", seed=0, cache=tmp_path).model_digest == task.model_digest


def test_splits_are_disjoint_and_the_network_is_good(task, measure):
    seen = set()
    data = task.payload()["data"]
    for split in SPLITS:
        rows = {row.tobytes() for row in unpack_arrays(data[split], split)["inputs"]}
        assert not rows & seen
        seen |= rows
        (outcome,) = measure([Request(("FP32",) * len(task.layers), split, 0)])
        assert outcome.mean() > 0.95, split


def test_fp32_everywhere_is_the_plain_network(task, measure):
    payload = task.payload()
    data = unpack_arrays(payload["data"]["test"], "test")
    network = build_network(payload["architecture"], unpack_arrays(payload["weights"], "weights"))
    with torch.inference_mode():
        logits = network(torch.from_numpy(data["inputs"]))
    expected = logits.argmax(dim=1).numpy() == data["labels"]
    (outcome,) = measure([Request(("FP32",) * len(task.layers), "test", 0)])
    assert outcome.tolist() == expected.astype(np.uint8).tolist()


@pytest.mark.parametrize("width", ["INT2-channel", "INT4-channel", "FP16"])
def test_the_network_runs_with_exactly_the_quantized_weights(task, measure, width):
    for i in range(len(task.layers)):
        widths = tuple(width if i == j else "FP32" for j in range(len(task.layers)))
        measure([Request(widths, "gate", 0)])
        for j, parameter in enumerate(measure._parameters):
            expected = fake_quantize(measure._originals[j], Precision.parse(widths[j]), measure._axes[j])
            assert np.array_equal(parameter.detach().numpy(), expected), (task.layers[i], task.layers[j])


def test_every_layer_is_measured(task, measure):
    """A layer whose output never moves at the lowest width is not being measured."""
    inputs = torch.from_numpy(unpack_arrays(task.payload()["data"]["gate"], "gate")["inputs"])

    def logits(widths):
        measure._set_widths(widths)
        with torch.inference_mode():
            return measure._network(inputs).numpy().copy()

    reference = logits(("FP32",) * len(task.layers))
    for i, layer in enumerate(task.layers):
        moved = logits(tuple("INT2-channel" if i == j else "FP32" for j in range(len(task.layers))))
        assert np.abs(moved - reference).max() > 1e-3, layer


def test_what_cannot_be_measured_is_data(task, measure):
    few, unknown, fine = measure(
        [
            Request(("FP32",), "test", 0),
            Request(("INT9",) * len(task.layers), "test", 0),
            Request(("FP32",) * len(task.layers), "test", 0),
        ]
    )
    assert isinstance(few, Failed) and few.reason == "raised:InputError"
    assert isinstance(unknown, Failed) and unknown.reason == "raised:PrecisionError"
    assert isinstance(fine, np.ndarray)


def test_a_network_that_overflows_is_not_finite(task):
    payload = dict(task.payload())
    measure = start_measurer(payload)
    measure._originals[0] = np.full_like(measure._originals[0], 3e38)
    (outcome,) = measure([Request(("FP32",) * len(task.layers), "test", 0)])
    assert isinstance(outcome, Failed) and outcome.reason == "not_finite"


def test_threads_and_flags_are_left_as_they_were(task, measure):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    measure([Request(("FP32",) * len(task.layers), "test", 0)])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_the_profile_says_what_the_network_is(task, profile, measure):
    assert tuple(layer.name for layer in profile.layers) == task.layers
    types = [layer.type for layer in profile.layers]
    assert types[-1] == "Classifier"
    assert set(types) == {"Conv", "LayerNorm", "Linear", "Classifier"}
    assert max(layer.gradient_sensitivity for layer in profile.layers) == 1.0
    state = unpack_arrays(task.payload()["weights"], "weights")
    total = sum(array.size for name, array in state.items() if "num_batches" not in name)
    assert profile.parameters + profile.constant_bits // 32 == total
    assert profile.passes["loss"] == 1 + len(task.layers) * (len(MENU) - 1)
    for i, layer in enumerate(profile.layers):
        assert set(layer.loss) == set(layer.weight_error) == set(MENU.names)
        assert layer.loss["FP32"] == 0.0
        assert layer.weight_error["INT2-channel"] > layer.weight_error["INT8-channel"] > 0
        assert layer.activation_range > 0
        assert layer.weight_range == pytest.approx(float(np.ptp(measure._originals[i])))


def test_losses_are_those_of_each_layer_alone(task, profile, measure):
    def accuracy(widths):
        outcomes = measure([Request(widths, "calibration", block.index) for block in task.blocks("calibration")])
        return sum(int(outcome.sum()) for outcome in outcomes)

    reference = accuracy(("FP32",) * len(task.layers))
    for i, layer in enumerate(profile.layers):
        alone = accuracy(tuple("INT2-channel" if i == j else "FP32" for j in range(len(task.layers))))
        assert layer.loss["INT2-channel"] == pytest.approx(1 - alone / reference)


def test_gradient_sensitivity_is_that_of_the_definition(task, profile):
    """Σ|w · ∂L/∂w| per weight over the calibration data, divided by the largest layer's, in one pass."""
    payload = task.payload()
    network = build_network(payload["architecture"], unpack_arrays(payload["weights"], "weights"))
    data = unpack_arrays(payload["data"]["calibration"], "calibration")
    loss = torch.nn.functional.cross_entropy(
        network(torch.from_numpy(data["inputs"])), torch.from_numpy(data["labels"]), reduction="sum"
    )
    loss.backward()
    parameters = dict(network.named_parameters())
    values = [
        float((parameters[row["parameter"]] * parameters[row["parameter"]].grad).abs().mean().detach())
        for row in payload["layers"]
    ]
    found = [layer.gradient_sensitivity for layer in profile.layers]
    assert found == pytest.approx([value / max(values) for value in values], rel=1e-3)
