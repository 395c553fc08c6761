import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.quantization.activations import fake_quantize_activations
from evoquant.quantization.formats import (
    E4M3_VALUES,
    LARGEST_BF16,
    NF4_LEVELS,
    NF4_MIDPOINTS,
    e4m3_codes,
    e4m3_decoded,
    round_bf16,
    round_e4m3,
)


def test_the_levels_of_nf4_are_normal_quantiles():
    """Dettmers et al. 2023, equation 4: eight quantiles above 0, seven below, and 0, over the largest."""
    offset = (1 - 1 / 30 + 1 - 1 / 32) / 2
    above = [NormalDist().inv_cdf(offset + (0.5 - offset) * i / 8) for i in range(8)]
    below = [-NormalDist().inv_cdf(offset + (0.5 - offset) * i / 7) for i in range(7)]
    levels = sorted([*above, 0.0, *below])
    np.testing.assert_allclose(NF4_LEVELS, np.array(levels) / max(levels), atol=1e-6)


def test_the_bounds_of_nf4_are_those_of_bitsandbytes():
    published = [
        *(-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984),
        *(-0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668),
        *(0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011),
    ]
    assert NF4_MIDPOINTS.tolist() == np.array(published, dtype=np.float32).tolist()


def test_e4m3_has_the_published_extremes():
    """Micikevicius et al. 2022, table 1."""
    assert E4M3_VALUES[0b0_1111_110] == 448
    assert E4M3_VALUES[0b0_0001_000] == 2.0**-6
    assert E4M3_VALUES[0b0_0000_111] == 0.875 * 2.0**-6
    assert E4M3_VALUES[0b0_0000_001] == 2.0**-9
    assert (np.diff(E4M3_VALUES) > 0).all()


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (460.0, 448.0),
        (-1e9, -448.0),
        (17.0, 16.0),  # half way between 16 and 18
        (19.0, 20.0),
        (15.5, 16.0),  # half way between 15 and 16: carries into the next power of two
        (2.0**-10, 0.0),  # half of the smallest
        (3 * 2.0**-10, 2.0**-8),
        (2.0**-149, 0.0),
    ],
)
def test_e4m3_rounds_half_to_even_and_saturates(value, rounded):
    assert round_e4m3(np.array([value, -value], dtype=np.float32)).tolist() == [rounded, -rounded]


def test_all_e4m3_numbers_come_back():
    codes = np.array([code for code in range(256) if code % 128 != 127], dtype=np.uint8)
    values = e4m3_decoded(codes)
    assert e4m3_codes(values).tolist() == codes.tolist()
    assert np.array_equal(round_e4m3(values), values)


FINITE = st.floats(-LARGEST_BF16, LARGEST_BF16, width=32)


@given(FINITE)
def test_bf16_is_the_nearest_multiple_of_its_last_place(value):
    exponent = max(math.frexp(value)[1] - 1, -126)
    place = 2.0 ** (exponent - 7)  # 8 bits of mantissa with the hidden one
    found = round_bf16(np.array([value], dtype=np.float32))[0]
    assert float(found) == round(value / place) * place  # Python rounds half to even
    assert np.signbit(found) == (math.copysign(1, value) < 0)


ELEMENTS = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from(
    [0.0, -0.0, 0.5, 2.0**-149, 2.0**-126, 127.0, 63.5]
)


@given(st.lists(ELEMENTS, min_size=1, max_size=9))
def test_activations_are_those_of_the_plain_way(row):
    values = [np.float32(v) for v in row]
    scale = max(max(abs(v) for v in values) / np.float32(127), np.float32(2.0**-126))
    codes = [round(float(v / scale)) for v in values]
    assert max(map(abs, codes)) <= 127
    expected = [float(np.float32(code) * scale) for code in codes]
    found = fake_quantize_activations([row], "token")
    assert found.dtype == np.float32
    assert found.tolist() == [expected]
    assert fake_quantize_activations([row], "sample").tolist() == [expected]
    assert not np.signbit(found[found == 0]).any()


def test_what_shares_a_scale():
    values = np.random.Generator(np.random.Philox(5)).standard_normal((2, 3, 4), dtype=np.float32)
    values *= np.arange(1, 7, dtype=np.float32).reshape(2, 3, 1)
    tokens = [[fake_quantize_activations(row[None], "token")[0].tolist() for row in sample] for sample in values]
    assert fake_quantize_activations(values, "token").tolist() == tokens
    samples = [fake_quantize_activations(sample.reshape(1, -1), "token").reshape(3, 4).tolist() for sample in values]
    assert fake_quantize_activations(values, "sample").tolist() == samples
    assert samples != tokens


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_slice_with_what_is_not_finite_is_lost_as_a_whole(bad):
    found = fake_quantize_activations([[1.0, bad, 0.0], [1.0, 2.0, 0.0]], "token")
    assert np.isnan(found).tolist() == [[True] * 3, [False] * 3]
    assert np.isfinite(fake_quantize_activations(np.empty((0, 3)), "token")).all()
