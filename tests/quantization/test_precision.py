import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.errors import PrecisionError
from evoquant.quantization.precision import EXAMPLES, SCALE_BITS, SEED_MENU, Menu, Precision

GRANULARITIES = ("tensor", "channel", "g1", "g32", "g128")
ENDINGS = ["".join(parts) for parts in itertools.product(("", "-asym"), ("", "-mse"), ("", "-a8"))]
NAMES = [
    *(f"INT{bits}" for bits in range(2, 9)),
    *(f"INT{bits}-{size}{end}" for bits in range(2, 9) for size in GRANULARITIES for end in ENDINGS),
    *(f"{code}-{size}" for code in ("FP8", "NF4") for size in GRANULARITIES),
    *("FP16", "BF16", "FP32"),
]
SHAPES = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


@st.composite
def tensors(draw):
    shape = draw(SHAPES)
    return shape, draw(st.none() | st.integers(0, len(shape) - 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_all_of_it(name):
    precision = Precision.parse(name)
    assert precision.name == name
    assert precision.format == name.split("-")[0]
    assert precision.code_bits == int(precision.format.lstrip("INTFPB"))
    assert precision.is_integer == name.startswith("INT")
    parts = name.split("-")
    assert precision.has_scales == (len(parts) > 1)
    assert (precision.asymmetric, precision.clipped) == ("asym" in parts, "mse" in parts)
    assert precision.activation_bits == (8 if "a8" in parts else None)
    assert Precision.parse(precision.name) == precision


@pytest.mark.parametrize(
    "name",
    [
        "",
        "int4",
        "INT1",
        "INT9",
        "INT16",
        "FP64",
        "NF8-channel",
        "INT4-channel-zero",
        "INT4-a8-row",
        "INT4-",
        "INT4-g0",
        "INT4-g08",
        "INT4-g9999999",
        "INT4 ",
        "INT4-row",
    ],
)
def test_unknown_names_are_refused_with_examples(name):
    with pytest.raises(PrecisionError) as raised:
        Precision.parse(name)
    assert repr(name) in str(raised.value)
    assert EXAMPLES in str(raised.value)


@pytest.mark.parametrize("name", ["FP16-channel", "FP32-tensor", "FP16-g128", "BF16-channel", "FP32-a8", "FP16-mse"])
def test_floats_have_no_scales(name):
    with pytest.raises(PrecisionError, match=f"{name[:4]} has no scales; write '{name[:4]}'"):
        Precision.parse(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FP8", "FP8-channel"),
        ("NF4", "NF4-channel"),
        ("INT4-asym", "INT4-channel-asym"),
        ("INT8-a8", "INT8-channel-a8"),
        ("NF4-g64-asym", "NF4-g64"),
        ("FP8-tensor-a8", "FP8-tensor"),
        ("INT4-channel-mse-asym", "INT4-channel-asym-mse"),
        ("INT4-asym-channel", "INT4-channel-asym"),
        ("INT4-a8-g32-mse", "INT4-g32-mse-a8"),
        ("INT4-g32-mse-mse", "INT4-g32-mse"),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(name, meant):
    with pytest.raises(PrecisionError, match=f"{name}.*write '{meant}'"):
        Precision.parse(name)
    assert Precision.parse(meant).name == meant


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        *(("INT2", 1), ("INT3-g32-mse", 3), ("INT4-channel-a8", 7), ("INT8", 127)),
        *(("INT2-channel-asym", 3), ("INT8-g32-asym-mse", 255), ("FP8-channel", 448), ("NF4-g64", 1)),
    ],
)
def test_symmetric_codes_are_narrow(name, largest):
    assert Precision.parse(name).largest_code == largest


@pytest.mark.parametrize(
    ("name", "shape", "axis", "expected"),
    [
        ("INT4-g128", (256, 1024), 0, 4.125),
        ("INT4-channel", (64, 512), 0, 4 + 16 / 512),
        ("INT4-channel", (512, 64), 1, 4 + 16 / 512),
        ("INT8-tensor", (10, 10), 0, 8.16),
        ("INT8-channel", (100,), None, 8.16),
        ("INT4-g32-asym", (256, 1024), 0, 4.625),
        ("INT4-g128-asym-mse-a8", (256, 1024), 0, 4.15625),
        ("INT3-g32", (16, 32, 3, 3), 0, 3.5),
        ("INT8-channel-a8", (64, 512), 0, 8 + 16 / 512),
        ("NF4-g64", (256, 1024), 0, 4.25),
        ("FP8-channel", (64, 512), 0, 8 + 16 / 512),
        ("BF16", (3, 7), 0, 16.0),
        ("INT2", (3, 7), 0, 2.0),
        ("FP16", (3, 7), 0, 16.0),
        ("FP32", (3, 7), None, 32.0),
    ],
)
def test_effective_bits(name, shape, axis, expected):
    assert Precision.parse(name).effective_bits(shape, axis) == pytest.approx(expected, rel=1e-15)


@given(st.sampled_from(NAMES), tensors())
def test_bits_are_codes_and_scales(name, tensor):
    shape, axis = tensor
    precision = Precision.parse(name)
    weights, slices = math.prod(shape), precision.slices(shape, axis)
    per_slice = SCALE_BITS + (precision.code_bits if "asym" in name else 0)
    assert precision.bits(shape, axis) == weights * precision.code_bits + slices * per_slice
    assert (slices == 0) == (precision.granularity in ("nominal", "none"))
    assert slices <= weights
    if precision.group_size and precision.fits(shape, axis):
        assert slices * precision.group_size == weights


@given(tensors(), st.integers(1, 12))
def test_groups_divide_what_a_channel_holds(tensor, size):
    shape, axis = tensor
    per_channel = math.prod(shape) // (1 if axis is None else shape[axis])
    assert Precision.parse(f"INT4-g{size}").fits(shape, axis) == (per_channel % size == 0)


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (128, 64, 1, 1), (96, 384), (1000, 96)])
def test_groups_of_32_fit_ordinary_kernels_and_linears(shape):
    assert Precision.parse("INT3-g32").fits(shape, 0)
    assert Precision.parse("INT3-g128").fits(shape, 0) == (math.prod(shape[1:]) % 128 == 0)


@given(tensors(), st.sampled_from(["INT2", "INT8-tensor", "INT4-channel-asym", "NF4-channel", "FP16"]))
def test_only_groups_can_fail_to_fit(tensor, name):
    assert Precision.parse(name).fits(*tensor)


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_a_menu_has_one_order(names):
    menu = Menu.parse(names)
    assert menu == Menu.parse(reversed(names))
    assert sorted(menu.names) == sorted(names)
    keys = [(precision.code_bits, precision.name) for precision in menu]
    assert keys == sorted(keys)
    assert len(menu) == len(names)
    assert [menu.resolve(name) for name in menu.names] == list(range(len(menu)))


def test_the_order_of_a_menu_is_code_bits_then_name():
    narrowest_first = [
        *("INT3-g32-mse", "INT4-g32", "INT4-g32-asym", "NF4-g64", "FP8-channel", "INT8-channel", "INT8-channel-a8"),
        *("BF16", "FP16", "FP32"),
    ]
    assert list(Menu.parse(reversed(narrowest_first)).names) == narrowest_first


def test_the_seed_menu():
    assert SEED_MENU.names == ("INT2", "INT4", "INT8", "FP16", "FP32")
    assert [precision.code_bits for precision in SEED_MENU] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([], "1 to 64 precisions, not 0"),
        ([f"INT4-g{i}" for i in range(1, 66)], "1 to 64 precisions, not 65"),
        (["INT4", "FP16", "INT4"], "each precision once; got INT4, FP16, INT4"),
        (["INT4", "INT5x"], "unknown precision 'INT5x'"),
    ],
)
def test_menus_that_are_refused(names, fault):
    with pytest.raises(PrecisionError, match=fault):
        Menu.parse(names)


def test_a_format_stands_for_the_one_precision_that_has_it():
    menu = Menu.parse(["INT4-g128", "INT8-channel", "INT8-tensor", "FP16"])
    assert menu.resolve("INT4") == 0
    assert menu.resolve("FP16") == 3
    assert menu.resolve("INT4-channel") == 0
    with pytest.raises(PrecisionError, match="has more than one INT8"):
        menu.resolve("INT8")
    with pytest.raises(PrecisionError, match=r"INT4-g128.*has no INT2"):
        menu.resolve("INT2")
    with pytest.raises(PrecisionError, match="unknown precision 'quux'"):
        menu.resolve("quux")
