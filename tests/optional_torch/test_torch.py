"""The real network: what is measured is what was asked for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from evoquant.models.arrays import unpack_arrays
from evoquant.models.base import DIVERGENCE, SCORE, SIGNALS, Failed, Request
from evoquant.models.kept import Bounded, Kept
from evoquant.models.measurer import start_measurer
from evoquant.models.networks import build_network
from evoquant.models.tasks import load_task
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
    return task.profile(MENU, measure, SIGNALS)


def reference(task):
    return ("FP32",) * len(task.layers)


def alone(task, layer, width):
    return tuple(width if layer == j else "FP32" for j in range(len(task.layers)))


def plain(task):
    payload = task.payload()
    return build_network(payload["architecture"], unpack_arrays(payload["weights"], "weights"))


def test_training_repeats_to_the_byte_also_over_a_damaged_network_in_the_cache_and_another_seed_does_not(
    task, tmp_path
):
    again = load_task("digits", seed=0, cache=tmp_path)
    assert again.model_digest == task.model_digest
    assert again.payload()["weights"] == task.payload()["weights"]
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-100])
    assert load_task("digits", seed=0, cache=tmp_path).model_digest == task.model_digest
    assert load_task("digits", seed=1, cache=tmp_path).model_digest != task.model_digest


def test_splits_are_disjoint_and_the_network_is_good(task, measure):
    seen = set()
    for split in SPLITS:
        rows = {row.tobytes() for row in task.data[split]["inputs"]}
        assert not rows & seen
        seen |= rows
        (outcome,) = measure([Request(reference(task), split, 0)])
        assert outcome[:, SCORE].mean() > 0.95, split
        assert not outcome[:, DIVERGENCE].any()


def test_fp32_everywhere_is_the_plain_network(task, measure):
    data = task.data["test"]
    with torch.inference_mode():
        logits = plain(task)(torch.from_numpy(data["inputs"]))
    expected = logits.argmax(dim=1).numpy() == data["targets"]
    (outcome,) = measure([Request(reference(task), "test", 0)])
    assert outcome.dtype == np.float32
    assert outcome[:, SCORE].tolist() == expected.astype(float).tolist()


@pytest.mark.parametrize("width", ["INT2-channel", "INT4-channel", "FP16"])
def test_the_network_runs_with_exactly_the_quantized_weights(task, measure, width):
    originals = [tensor.numpy().copy() for tensor in measure._originals]
    for i in range(len(task.layers)):
        widths = alone(task, i, width)
        with measure.quantized(widths):
            for j, parameter in enumerate(measure._parameters):
                expected = fake_quantize(originals[j], Precision.parse(widths[j]), task.found[j].channel_axis)
                assert np.array_equal(parameter.detach().numpy(), expected), (task.layers[i], task.layers[j])
    assert all(np.array_equal(p.detach().numpy(), o) for p, o in zip(measure._parameters, originals, strict=True))


def test_every_layer_is_measured(task, measure):
    """A layer whose output never moves at the lowest width is not being measured."""
    for i, layer in enumerate(task.layers):
        (outcome,) = measure([Request(alone(task, i, "INT2-channel"), "gate", 0)])
        assert outcome[:, DIVERGENCE].max() > 1e-5, layer


def test_divergence_is_the_kl_of_the_predicted_distributions(task, measure):
    widths = alone(task, 2, "INT2-channel")
    (outcome,) = measure([Request(widths, "gate", 0)])
    inputs = torch.from_numpy(task.data["gate"]["inputs"])
    with torch.inference_mode(), measure.quantized(widths):
        quantized = torch.log_softmax(measure._network(inputs).double(), dim=1)
    with torch.inference_mode():
        fp32 = torch.log_softmax(plain(task)(inputs).double(), dim=1)
    expected = torch.nn.functional.kl_div(quantized, fp32, log_target=True, reduction="none").sum(dim=1)
    assert outcome[:, DIVERGENCE] == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-6)


def test_what_cannot_be_measured_is_data(task, measure):
    few, unknown, activations, split, block, fine = measure(
        [
            Request(("FP32",), "test", 0),
            Request(("INT9",) * len(task.layers), "test", 0),
            Request(("INT8-channel-a8",) * len(task.layers), "test", 0),
            Request(reference(task), "nowhere", 0),
            Request(reference(task), "test", 99),
            Request(reference(task), "test", 0),
        ]
    )
    assert isinstance(few, Failed) and few.reason == "raised:InputError"
    assert isinstance(unknown, Failed) and unknown.reason == "raised:PrecisionError"
    assert isinstance(activations, Failed) and "norm1" in activations.message
    assert isinstance(split, Failed) and isinstance(block, Failed)
    assert isinstance(fine, np.ndarray)


def test_a_network_that_overflows_is_not_finite(task):
    measure = start_measurer(task.payload())
    measure._originals[0] = torch.full_like(measure._originals[0], 3e38)
    measure._parameters[0].data = measure._originals[0]
    (outcome,) = measure([Request(reference(task), "test", 0)])
    assert isinstance(outcome, Failed) and outcome.reason == "not_finite"


def test_threads_and_flags_are_left_as_they_were(task, measure):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    measure([Request(reference(task), "test", 0)])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_small_cache_changes_no_outcome(task, measure):
    tight = start_measurer(task.payload())
    tight._quantized, tight._references = Kept(3000), Bounded(0)
    requests = [Request(("INT4-channel",) * len(task.layers), "gate", 0), Request(alone(task, 0, "FP16"), "gate", 0)]
    for ours, theirs in zip(tight(requests * 2), measure(requests * 2), strict=True):
        assert np.array_equal(ours, theirs)
    assert tight._quantized.bytes <= 3000


def test_the_least_recently_used_goes_first():
    cache = Bounded(2)
    made = []

    def get(key, size=1):
        return cache.get(key, lambda: made.append(key) or key, lambda _: size)

    for key in "abacb":
        get(key)
    assert made == list("abcb"), "a was used after b"
    get("large", 3)
    assert get("b") == "b" and made == [*"abcb", "large"] and cache.bytes == 2


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
    assert profile.passes["divergence"] == profile.passes["activation_range"] == 0
    assert profile.passes["gradient_sensitivity"] == 3
    assert profile.passes["fisher"] == (3 + len(MENU) - 1) * 256 / 400
    for i, layer in enumerate(profile.layers):
        for kind in ("loss", "divergence", "fisher", "hessian", "weight_error"):
            assert set(getattr(layer, kind)) == set(MENU.names)
            assert getattr(layer, kind)["FP32"] == 0.0
        assert layer.weight_error["INT2-channel"] > layer.weight_error["INT8-channel"] > 0
        assert layer.activation_range > 0
        weight = measure._originals[i].numpy()
        assert layer.weight_range == pytest.approx(float(np.ptp(weight)))
        assert (layer.weight_mean, layer.weight_std) == pytest.approx((weight.mean(), weight.std()), rel=1e-4)
        assert layer.sqnr_db("INT8-channel") == pytest.approx(
            10 * np.log10(np.square(weight).sum() / layer.weight_error["INT8-channel"]), rel=1e-4
        )


def test_losses_and_divergences_are_those_of_each_layer_alone(task, profile, measure):
    def means(widths):
        outcomes = measure([Request(widths, "calibration", block.index) for block in task.blocks("calibration")])
        return np.concatenate(outcomes).mean(axis=0, dtype=np.float64)

    base = means(reference(task))
    for i, layer in enumerate(profile.layers):
        score, divergence = means(alone(task, i, "INT2-channel"))
        assert layer.loss["INT2-channel"] == pytest.approx(1 - score / base[SCORE])
        assert layer.divergence["INT2-channel"] == pytest.approx(divergence)


def test_only_what_was_asked_for_is_measured(task):
    def never(requests):
        raise AssertionError("measured")

    bare = task.profile(MENU, never, ())
    assert not bare.passes and not bare.layers[0].loss and bare.layers[0].weight_error
    cheap = task.profile(MENU, never, ("fisher",), fisher_samples=100)
    assert dict(cheap.passes) == {"fisher": (3 + len(MENU) - 1) * 100 / 400}
    assert not cheap.layers[0].loss and not cheap.layers[0].divergence and cheap.layers[0].fisher
    ranges = task.profile(MENU, never, ("activation_range",))
    assert dict(ranges.passes) == {"activation_range": 1.0} and ranges.layers[0].activation_range > 0


def test_gradient_sensitivity_is_that_of_the_definition(task, profile):
    """Σ|w · ∂L/∂w| per weight over the calibration data, divided by the largest layer's, in one pass."""
    network, data = plain(task), task.data["calibration"]
    loss = torch.nn.functional.cross_entropy(
        network(torch.from_numpy(data["inputs"])), torch.from_numpy(data["targets"]), reduction="sum"
    )
    loss.backward()
    parameters = dict(network.named_parameters())
    values = [
        float((parameters[layer.parameter] * parameters[layer.parameter].grad).abs().mean().detach())
        for layer in task.found
    ]
    found = [layer.gradient_sensitivity for layer in profile.layers]
    assert found == pytest.approx([value / max(values) for value in values], rel=1e-3)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in task.network.parameters())
