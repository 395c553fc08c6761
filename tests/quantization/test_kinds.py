"""Asymmetric and clipped integers, NF4 and FP8, against the plain way: one weight after the other."""

import math
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evoquant.errors import PrecisionError
from evoquant.quantization.error import squared_error
from evoquant.quantization.formats import E4M3_VALUES, NF4_LEVELS, NF4_MIDPOINTS
from evoquant.quantization.integers import SHRINK, folded_sum
from evoquant.quantization.numerics import dequantize, fake_quantize, quantize
from evoquant.quantization.precision import Precision

F32 = np.float32
ROW = arrays(np.float32, (1, 7), elements=st.floats(-1000, 1000, width=32))
INTEGERS = st.sampled_from([f"INT{b}-channel{end}" for b in (2, 3, 4, 8) for end in ("-asym", "-mse", "-asym-mse")])


def plain_scale(size, largest):
    if size == 0:
        return np.float16(1)
    return max(np.float16(F32(size) / F32(largest)), np.float16(2.0**-24))


def plain_integers(row, precision, factor=1.0):
    """Codes, scale and zero point of one slice whose range is shrunk by `factor`."""
    top = 2**precision.code_bits - 1 if precision.asymmetric else 2 ** (precision.code_bits - 1) - 1
    low, high = min(0, *map(float, row)), max(0, *map(float, row))
    if not precision.asymmetric:
        high = max(-low, high)
    low, high = F32(low) * F32(factor), F32(high) * F32(factor)
    scale = plain_scale(high - low if precision.asymmetric else high, top)
    zero, bottom = 0, -top
    if precision.asymmetric:
        zero, bottom = min(round(float(-low / F32(scale))), top), 0
    return [min(max(round(float(F32(w) / F32(scale))) + zero, bottom), top) for w in row], scale, zero


def plain_error(row, codes, scale, zero):
    errors = [(F32(code - zero) * F32(scale) - w) ** 2 for code, w in zip(codes, row, strict=True)]
    while len(errors) > 1:
        half = (len(errors) + 1) // 2
        errors = [a + b for a, b in zip_longest(errors[:half], errors[half:], fillvalue=F32(0))]
    return errors[0]


@given(ROW, INTEGERS)
def test_integers(weight, name):
    precision = Precision.parse(name)
    row = list(weight[0])
    factors = SHRINK if precision.clipped else (1.0,)
    tried = [plain_integers(row, precision, factor) for factor in factors]
    codes, scale, zero = min(tried, key=lambda found: plain_error(row, *found))  # the first of equal ones
    quantized = quantize(weight, precision, 0)
    assert quantized.codes.tolist() == [codes]
    assert quantized.scales.tolist() == [scale]
    assert quantized.codes.dtype == (np.uint8 if precision.asymmetric else np.int8)
    if precision.asymmetric:
        assert quantized.zero_points.dtype == np.uint8
        assert quantized.zero_points.tolist() == [zero]
    else:
        assert quantized.zero_points is None
    assert dequantize(quantized).tolist() == [[float(F32(code - zero) * F32(scale)) for code in codes]]


@given(ROW, st.sampled_from(["INT2", "INT4", "INT8"]))
def test_asymmetric_codes_reach_zero_and_both_ends(weight, code):
    precision = Precision.parse(f"{code}-channel-asym")
    back = fake_quantize(weight, precision, 0)
    assert fake_quantize(np.zeros_like(weight), precision, 0).tolist() == np.zeros_like(weight).tolist()
    assert (back[weight == 0] == 0).all()
    step = float(quantize(weight, precision, 0).scales[0])
    rounded_scale = (weight.max() - weight.min() + abs(weight).max()) * 2.0**-10
    assert abs(back - weight).max() <= step + rounded_scale  # half a step each for weight and zero point


def test_asymmetric_ranges_fit_one_sided_weights_twice_as_well():
    weight = np.abs(np.random.Generator(np.random.Philox(1)).standard_normal((4, 256), dtype=np.float32))
    both, one = (fake_quantize(weight, Precision.parse(f"INT4-channel{end}"), 0) for end in ("", "-asym"))
    assert squared_error(weight, one) < squared_error(weight, both) / 3


@pytest.mark.parametrize(("name", "gain"), [("INT2-channel", 0.3), ("INT3-g128", 0.8), ("INT4-tensor", 0.5)])
def test_clipping_pays_on_normal_weights(name, gain):
    weight = np.random.Generator(np.random.Philox(2)).standard_normal((16, 4096), dtype=np.float32)
    whole, clipped = (fake_quantize(weight, Precision.parse(name + end), 0) for end in ("", "-mse"))
    assert squared_error(weight, clipped) < gain * squared_error(weight, whole)


def test_equal_errors_take_the_largest_range():
    # ternary codes ±1 of 1 and 31/32: scale 1 misses the second by 1/32, scale 31/32 the first
    assert SHRINK[:2] == (1, 31 / 32)
    weight = np.array([[1, 31 / 32], [-31 / 32, 1]], dtype=np.float32)
    assert quantize(weight, Precision.parse("INT2-channel-mse"), 0).scales.tolist() == [1, 1]
    other = np.array([[31 / 32, 31 / 32], [1, 30 / 32]], dtype=np.float32)
    assert quantize(other, Precision.parse("INT2-channel-mse"), 0).scales.tolist() == [31 / 32, 31 / 32]


def test_nf4_bounds_go_to_the_lower_level():
    weight = np.array([[1.0, *NF4_MIDPOINTS]], dtype=np.float32)
    assert quantize(weight, Precision.parse("NF4-channel"), 0).codes.tolist() == [[15, *range(15)]]


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(0, 100, width=32)))
def test_folded_sums_are_sums(rows):
    expected = rows.astype(np.float64).sum(axis=1)
    np.testing.assert_allclose(folded_sum(rows.copy()), expected, rtol=1e-6)


@given(ROW)
def test_nf4(weight):
    quantized = quantize(weight, Precision.parse("NF4-channel"), 0)
    scale = plain_scale(abs(weight).max(), 1)
    levels = [F32(level) for level in NF4_LEVELS.tolist()]
    nearest = [min(range(16), key=lambda i: (abs(float(F32(w) / F32(scale)) - float(levels[i])), i)) for w in weight[0]]
    assert quantized.codes.dtype == np.uint8
    assert quantized.codes.tolist() == [nearest]
    assert dequantize(quantized).tolist() == [[float(levels[i] * F32(scale)) for i in nearest]]


@given(ROW)
def test_fp8(weight):
    quantized = quantize(weight, Precision.parse("FP8-channel"), 0)
    scale = plain_scale(abs(weight).max(), 448)
    values = [float(value) for value in E4M3_VALUES]

    def nearest(w):
        found = float(F32(w) / F32(scale))
        code = min(range(127), key=lambda i: (abs(abs(found) - values[i]), i % 2))  # half steps to the even mantissa
        return code + (128 if math.copysign(1, found) < 0 else 0)

    codes = [nearest(w) for w in weight[0]]
    assert quantized.codes.dtype == np.uint8
    assert quantized.codes.tolist() == [codes]
    signed = [(-1 if code > 127 else 1) * F32(values[code % 128]) for code in codes]
    assert dequantize(quantized).tolist() == [[float(value * F32(scale)) for value in signed]]


@pytest.mark.parametrize("kind", ["NF4-g2", "FP8-g2", "INT4-g2-asym", "INT4-g2-mse", "INT4-g2-asym-mse"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_slices_do_not_know_each_other(kind, axis):
    weight = np.random.Generator(np.random.Philox(3)).standard_normal((4, 3, 2, 2), dtype=np.float32)
    precision = Precision.parse(kind)
    moved = weight if axis is None else np.moveaxis(weight, axis, 0)
    rows = moved.reshape(-1, 2)
    alone = np.concatenate([fake_quantize(row[None], precision, 0) for row in rows]).reshape(moved.shape)
    expected = alone if axis is None else np.moveaxis(alone, 0, axis)
    found = fake_quantize(weight, precision, axis)
    assert found.tolist() == expected.tolist()
    assert found.flags.c_contiguous


def test_activation_widths_do_not_change_weights():
    weight = np.random.Generator(np.random.Philox(4)).standard_normal((4, 8), dtype=np.float32)
    plain, with_activations = (quantize(weight, Precision.parse(f"INT4-channel-asym{end}"), 0) for end in ("", "-a8"))
    assert plain.codes.tolist() == with_activations.codes.tolist()
    assert plain.scales.tolist() == with_activations.scales.tolist()


@pytest.mark.parametrize("name", ["FP32", "FP16", "BF16"])
def test_floats_have_no_codes(name):
    with pytest.raises(PrecisionError, match=f"{name} has no codes; use fake_quantize"):
        quantize(np.ones((2, 2)), Precision.parse(name), 0)


def test_groups_that_do_not_divide_are_refused_with_the_channel_of_the_same_kind():
    with pytest.raises(PrecisionError, match="use INT4-channel-asym-mse-a8"):
        quantize(np.ones((2, 3)), Precision.parse("INT4-g2-asym-mse-a8"), 0)
