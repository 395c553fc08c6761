import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evoquant.errors import PrecisionError
from evoquant.quantization.error import sqnr_db, squared_error
from evoquant.quantization.numerics import dequantize, fake_quantize, quantize, representable
from evoquant.quantization.precision import Precision

INTEGERS = [f"INT{bits}-{slices}" for bits in (2, 3, 4, 8) for slices in ("tensor", "channel", "g2")]
WEIGHTS = arrays(np.float32, (3, 4), elements=st.floats(-1000, 1000, width=32))


def plain(values, bits):
    """One slice the plain way: Python floats for the steps that are exact, float32 where the format says so."""
    largest = 2 ** (bits - 1) - 1
    absmax = max(abs(float(v)) for v in values)
    if absmax == 0:
        scale = np.float16(1)
    else:
        scale = np.float16(np.float32(absmax) / np.float32(largest))
        scale = scale if scale > 0 else np.float16(2.0**-24)
    codes = []
    for v in values:
        exact = np.float32(v) / np.float32(scale)
        codes.append(max(-largest, min(largest, round(float(exact)))))  # Python rounds half to even
    return codes, scale


@given(WEIGHTS, st.sampled_from(INTEGERS), st.sampled_from([0, 1, None]))
def test_codes_and_scales_are_those_of_the_plain_way(weight, name, axis):
    precision = Precision.parse(name)
    if not precision.fits(weight.shape, axis):
        assert not representable(weight, precision, axis)
        return
    quantized = quantize(weight, precision, axis)
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    codes = quantized.codes
    codes = codes.reshape(1, -1) if axis is None else np.moveaxis(codes, axis, 0).reshape(rows.shape)
    if precision.granularity == "tensor":
        rows, codes = rows.reshape(1, -1), codes.reshape(1, -1)
    elif precision.granularity == "group":
        rows, codes = rows.reshape(-1, 2), codes.reshape(-1, 2)
    assert len(quantized.scales) == len(rows) == precision.slices(weight.shape, axis)
    for row, code, scale in zip(rows, codes, quantized.scales, strict=True):
        assert (code.tolist(), scale) == plain(row, precision.code_bits)


@pytest.mark.parametrize("shape", [(1, 200), (63, 65), (130, 200), (200, 1), (70, 3, 9)])
@pytest.mark.parametrize("name", ["INT4-channel", "INT4-channel-asym", "FP8-channel"])
def test_a_weight_that_is_turned_gives_what_it_gives_as_it_lies(shape, name):
    weight = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    turned = np.ascontiguousarray(np.moveaxis(weight, 0, 1))
    lies, found = (fake_quantize(one, Precision.parse(name), axis) for one, axis in ((weight, 0), (turned, 1)))
    assert found.flags.c_contiguous and found.tobytes() == np.ascontiguousarray(np.moveaxis(lies, 0, 1)).tobytes()


@given(WEIGHTS, st.sampled_from(INTEGERS))
def test_codes_are_symmetric_narrow_and_the_error_is_half_a_step_at_most(weight, name):
    precision = Precision.parse(name)
    quantized = quantize(weight, precision, 0)
    assert np.abs(quantized.codes).max() <= precision.largest_code
    back = dequantize(quantized)
    assert back.dtype == np.float32
    step = np.float32(quantized.scales.max())
    # a scale rounded down to FP16 clips the largest weight by up to 2^-11 of it
    assert np.abs(back - weight).max() <= 0.5 * step + np.abs(weight).max() * 2.0**-10
    assert np.array_equal(-dequantize(quantize(-weight, precision, 0)), back)


@given(WEIGHTS)
def test_floats(weight):
    assert np.array_equal(fake_quantize(weight, Precision.parse("FP32"), 0), weight)
    assert np.array_equal(fake_quantize(weight, Precision.parse("FP16"), 0), weight.astype(np.float16).astype("f4"))


def test_half_steps_go_to_the_even_code():
    weight = np.array([[0.5, 1.5, 2.5, 7.0]], dtype=np.float32)  # INT4: scale 1
    assert quantize(weight, Precision.parse("INT4-channel"), 0).codes.tolist() == [[0, 2, 2, 7]]


def test_edge_scales():
    int8 = Precision.parse("INT8-channel")
    weight = np.array([[0.0, 0.0], [2.0**-40, 0.0], [127 * 3 * 2.0**-24, 0.0]], dtype=np.float32)
    quantized = quantize(weight, int8, 0)
    assert quantized.scales.tolist() == [1.0, 2.0**-24, 3 * 2.0**-24]
    assert quantized.codes.tolist() == [[0, 0], [0, 0], [127, 0]]


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("INT2-channel", 65504.0, True),
        ("INT2-channel", 65520.0, False),
        ("INT8-channel", 127 * 65504.0, True),
        ("INT8-channel", 128 * 65504.0, False),
        ("FP16", 65504.0, True),
        ("FP16", 65520.0, False),
        ("INT2-channel-asym", 3 * 65504.0, True),
        ("INT2-channel-asym-mse", 3 * 65520.0, False),
        ("NF4-channel", 65504.0, True),
        ("NF4-g2", 65520.0, False),
        ("FP8-channel", 448 * 65504.0, True),
        ("FP8-channel", 449 * 65504.0, False),
        ("BF16", 3.3895313e38, True),
        ("BF16", 3.39e38, False),
        ("BF16", -math.inf, False),
        ("FP32", 3e38, True),
        ("INT8-channel", math.nan, False),
    ],
)
def test_what_fp16_cannot_hold(name, value, fits):
    weight = np.full((1, 2), value, dtype=np.float32)
    assert representable(weight, Precision.parse(name), 0) is fits
    if not fits:
        with pytest.raises(PrecisionError, match=name):
            fake_quantize(weight, Precision.parse(name), 0)


def test_a_range_that_float32_cannot_hold_is_refused_without_a_warning():
    weight = np.array([[3e38, -3e38]], dtype=np.float32)
    assert not representable(weight, Precision.parse("INT8-channel-asym"), 0)


def test_nominal_widths_cannot_hold_weights_and_the_message_says_what_can():
    with pytest.raises(PrecisionError, match=r"INT4 is nominal.*INT4-channel"):
        fake_quantize(np.ones((2, 2)), Precision.parse("INT4"), 0)


def test_errors():
    assert squared_error([1.0, 2.0], [1.5, 2.0]) == 0.25
    assert sqnr_db([1.0, 2.0], [1.0, 2.0]) == math.inf
    assert sqnr_db([10.0], [9.0]) == pytest.approx(20.0)
    assert sqnr_db([0.0], [1.0]) == -math.inf
