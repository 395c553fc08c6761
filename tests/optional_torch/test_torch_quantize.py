"""The quantizer on tensors gives the reference's numbers to the last bit, signs of zeros included."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

torch = pytest.importorskip("torch")

from evoquant.errors import PrecisionError
from evoquant.models import torch_quantize
from evoquant.models.torch_quantize import fake_quantize_activations_tensor, fake_quantize_tensor
from evoquant.quantization import integers
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


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("NF4-channel", [1.0, *NF4_MIDPOINTS.tolist()]),
        ("FP8-channel", [448.0, *((E4M3_VALUES[:-1] + E4M3_VALUES[1:]) / 2).tolist()]),
        ("INT8-channel", [127.0, *(k + 0.5 for k in range(-127, 127))]),
        ("INT8-channel-asym", [-100.0, 155.0, *(k + 0.5 for k in range(-100, 155))]),
        ("INT2-channel-mse", [1.0, 31 / 32]),  # two ranges of equal error
        ("BF16", [1 + 2.0**-8, 1 + 3 * 2.0**-8, 2.0**-134, 3 * 2.0**-134]),
        ("FP16", [1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-25, 3 * 2.0**-25]),
    ],
)
def test_ties(name, row):
    agree(np.array([row, [-value for value in row]], dtype=np.float32), name, 0)


def test_errors_are_summed_in_the_same_order():
    rows = np.random.Generator(np.random.Philox(8)).random((50, 77), dtype=np.float32)
    expected = integers.folded_sum(rows.copy())
    assert bits(torch_quantize._folded_sum(torch.from_numpy(rows.copy())).numpy()[:, 0]) == bits(expected)
    assert bits(rows.sum(axis=1)) != bits(expected)  # so the order can be seen


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


TINY = np.array([[2.0**-120, 2.0**-124], [2.0**-126, 3 * 2.0**-127], [2.0**-149, 0], [0, -0.0]], dtype=np.float32)


@given(ACTIVATIONS, st.sampled_from(["token", "sample"]))
@example(TINY, "token")
def test_activations(values, per):
    expected = fake_quantize_activations(values, per)
    found = fake_quantize_activations_tensor(torch.from_numpy(values), per).numpy()
    lost = np.isnan(expected)
    assert np.isnan(found).tolist() == lost.tolist()
    assert bits(np.where(lost, 0, found)) == bits(np.where(lost, 0, expected))
