"""The quantizer on tensors gives the reference's numbers to the last bit, signs of zeros included."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

torch = pytest.importorskip("torch")

from evoquant.errors import PrecisionError
from evoquant.models import torch_quantize
from evoquant.models.torch_quantize import fake_quantize_activations_tensor, fake_quantize_tensor
from evoquant.quantization.activations import fake_quantize_activations
from evoquant.quantization.formats import E4M3_VALUES, NF4_MIDPOINTS
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision

SIZES = ("tensor", "channel", "g2", "g3", "g16")
NAMES = [
    *(
        f"INT{bits}-{size}{asym}{mse}"
        for bits, size, asym, mse in itertools.product(range(2, 9), SIZES, ("", "-asym"), ("", "-mse"))
    ),
    *(f"{code}-{size}" for code, size in itertools.product(("NF4", "FP8"), SIZES)),
    *("INT8-channel-a8", "BF16", "FP16", "FP32"),
]
SPECIAL = [0.0, -0.0, 2.0**-149, -(2.0**-130), 2.0**-25, 2.0**-24, 1.0, -1.0, 0.5, 1.5, 7.0, 3.5, 127.0, 448.0, 65504.0]
ELEMENTS = (
    st.sampled_from([*SPECIAL, *NF4_MIDPOINTS.tolist(), *((E4M3_VALUES[:-1] + E4M3_VALUES[1:]) / 2).tolist()])
    | st.floats(-(2.0**10), 2.0**10, width=32)
    | st.integers(-15, 15).map(lambda k: k / 2)
)
SHAPES = st.sampled_from([(6,), (4, 6), (3, 16), (2, 6, 2), (2, 3, 2, 2), (1, 1)])
WEIGHTS = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=ELEMENTS))


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32).tolist()


def answer(function, *arguments):
    try:
        found = function(*arguments)
    except PrecisionError as error:
        return str(error)
    return bits(found.numpy() if isinstance(found, torch.Tensor) else found)


def agree(weight, name, axis):
    precision = Precision.parse(name)
    expected = answer(fake_quantize, weight, precision, axis)
    assert answer(fake_quantize_tensor, torch.from_numpy(weight), precision, axis) == expected, name
    return expected


@given(WEIGHTS, st.sampled_from(NAMES), st.data())
def test_all_precisions_and_axes(weight, name, data):
    agree(weight, name, data.draw(st.none() | st.integers(0, weight.ndim - 1)))


@given(arrays(np.float32, (2, 4), elements=st.floats(width=32)), st.sampled_from(NAMES))
def test_what_cannot_be_held_is_refused_in_the_same_words(weight, name):
    agree(weight, name, 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1, None])
def test_normal_weights(name, axis):
    generator = np.random.Generator(np.random.Philox(NAMES.index(name)))
    weight = generator.standard_normal((48, 48), dtype=np.float32) * np.float32(0.02)
    assert isinstance(agree(weight, name, axis), list)


@pytest.mark.parametrize("name", ["INT4-tensor", "INT3-channel-mse", "INT4-g3-asym-mse", "NF4-channel", "FP8-g16"])
def test_pieces_change_nothing(monkeypatch, name):
    weight = np.random.Generator(np.random.Philox(7)).standard_normal((10, 48), dtype=np.float32)
    for values in (1, 20, 100):
        monkeypatch.setattr(torch_quantize, "PIECE_VALUES", values)
        agree(weight, name, 0)
    monkeypatch.undo()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        agree(np.tile(weight, (20, 10)), name, 0)  # long enough for more threads
        torch.set_num_threads(2)
        agree(np.tile(weight, (20, 10)), name, 0)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["INT4-channel", "FP8-channel", "FP16", "FP32"])
def test_the_result_is_a_new_plain_tensor(name):
    weight = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4).T)
    before = weight.detach().clone()
    found = fake_quantize_tensor(weight, Precision.parse(name), 1)
    assert (found.dtype, found.shape, found.requires_grad) == (torch.float32, weight.shape, False)
    assert found.is_contiguous()
    assert bits(found.numpy()) == bits(fake_quantize(weight.detach().numpy(), Precision.parse(name), 1))
    found.zero_()
    assert torch.equal(weight.detach(), before)


def test_other_types_are_taken_as_float32():
    weight = torch.tensor([[0.1, -0.7, 3.0, 1.0]], dtype=torch.bfloat16)
    expected = fake_quantize(weight.to(torch.float32).numpy(), Precision.parse("INT4-channel"), 0)
    assert bits(fake_quantize_tensor(weight, Precision.parse("INT4-channel"), 0).numpy()) == bits(expected)


ACTIVATIONS = st.sampled_from([(6,), (2, 5), (2, 3, 4), (2, 3, 2, 2), (0, 3)]).flatmap(
    lambda shape: arrays(np.float32, shape, elements=ELEMENTS | st.floats(width=32))
)


@given(ACTIVATIONS, st.sampled_from(["token", "sample"]))
def test_activations(values, per):
    expected = fake_quantize_activations(values, per)
    found = fake_quantize_activations_tensor(torch.from_numpy(values), per).numpy()
    lost = np.isnan(expected)
    assert np.isnan(found).tolist() == lost.tolist()
    assert bits(np.where(lost, 0, found)) == bits(np.where(lost, 0, expected))
