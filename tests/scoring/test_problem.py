import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoquant.errors import ProfileError
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.problem import (
    LOSS_UNITS,
    NO_SAVING,
    SCALAR_SIGNALS,
    compile_problem,
    integer_loss,
    narrower_width,
    rule_signals,
)
from evoquant.scoring.separable import cost_sums, loss_sums

LOSSES = dict(zip(SEED_MENU.names, (0.4, 0.2, 0.1, 0.01, 0.0), strict=True))


def layer(name, **changes):
    given = {"type": "Linear", "shape": (4, 8), "position": 0.5, "loss": LOSSES}
    return LayerProfile(name, **{**given, **changes})


def problem_of(*layers, menu=SEED_MENU, **options):
    return compile_problem(ModelProfile("m", layers, **options), menu)


TIED = (
    layer(
        "q",
        type="Attention",
        shape=(2, 3),
        position=0.1,
        weight_mean=0.5,
        weight_std=0.1,
        weight_range=1.0,
        activation_range=5.0,
        gradient_sensitivity=0.2,
        loss={"INT4": 0.1, "FP16": 0.0},
        fisher={"INT4": 1.5},
        weight_error={"INT4": 0.25, "FP16": 0.5},
        tie_group="qkv",
    ),
    layer("o", position=0.3, loss={"INT4": 0.5, "FP16": 0.1}, fisher={"INT4": 3.0}, weight_error={"INT4": 1.0}),
    layer(
        "k",
        type="Linear",
        shape=(4, 6),
        position=0.8,
        weight_mean=0.7,
        weight_std=0.3,
        weight_range=0.5,
        activation_range=9.0,
        gradient_sensitivity=0.8,
        loss={"INT4": 0.2, "FP16": -0.1},
        fisher={"INT4": 2.0},
        weight_error={"INT4": 0.5},
        tie_group="qkv",
    ),
)


def test_tie_groups_merge():
    problem = problem_of(*TIED, menu=Menu.parse(["INT4", "FP16"]))
    assert problem.units == ("qkv", "o")
    assert problem.unit_of_layer.tolist() == [0, 1, 0]
    assert problem.types.tolist() == ["Linear", "Linear"]  # the largest member's
    assert problem.position.tolist() == [pytest.approx(0.45), 0.3]  # the plain mean
    merged = {name: values[0] for name, values in problem.scalars.items()}
    assert merged["parameters"] == 30
    assert merged["weight_range"] == 1.0
    assert merged["activation_range"] == 9.0
    assert merged["gradient_sensitivity"] == pytest.approx((0.2 * 6 + 0.8 * 24) / 30)
    assert merged["weight_mean"] == pytest.approx((0.5 * 6 + 0.7 * 24) / 30)
    assert merged["weight_std"] == pytest.approx((0.1 * 6 + 0.3 * 24) / 30)
    assert problem.signal("loss:INT4")[0] == pytest.approx(1 - 0.9 * 0.8)
    assert problem.signal("loss:FP16")[0] == pytest.approx(1 - 1.0 * 1.1)
    assert problem.signal("fisher:INT4").tolist() == [3.5, 3.0]
    assert problem.signal("weight_error:INT4").tolist() == [0.75, 1.0]
    assert problem.loss[0].tolist() == [integer_loss(0.1) + integer_loss(0.2), integer_loss(0.0) + integer_loss(-0.1)]
    assert problem.cost.table.tolist() == [[30 * 4 * 1024, 30 * 16 * 1024], [32 * 4 * 1024, 32 * 16 * 1024]]
    assert problem.unfold(np.array([1, 0], dtype=np.int8)) == ("FP16", "INT4", "FP16")


def test_equally_large_members_give_the_first_ones_type():
    problem = problem_of(layer("a", type="Conv", tie_group="t"), layer("b", type="Linear", tie_group="t"))
    assert problem.types.tolist() == ["Conv"]


def test_a_tie_group_with_the_name_of_a_layer_is_refused():
    with pytest.raises(ProfileError, match="tie group 'a' has the name of a layer"):
        problem_of(layer("a"), layer("b", tie_group="a"), layer("c", tie_group="a"))


def test_single_layers_keep_their_figures_to_the_last_bit():
    profile = seed_profile("train")
    problem = compile_problem(profile, SEED_MENU)
    assert problem.position.tolist() == [layer.position for layer in profile.layers]
    for name in ("gradient_sensitivity", "weight_std", "activation_range"):
        assert problem.signal(name).tolist() == [getattr(layer, name) for layer in profile.layers]
    for width in SEED_MENU.names:
        assert problem.signal(f"loss:{width}").tolist() == [layer.loss[width] for layer in profile.layers]


def test_arrays_are_read_only():
    problem = problem_of(layer("a"), layer("b"))
    arrays = [problem.loss, problem.cost.table, problem.allowed, problem.types, problem.position]
    arrays += [problem.unit_of_layer, *problem.scalars.values(), problem.signal("loss:INT4")]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = array


def test_repair_takes_the_next_wider_else_the_widest_allowed():
    problem = problem_of(layer("a", allowed=("INT4", "FP16")), layer("b", allowed=("INT2",)), layer("c"))
    everything = np.array([[width] * 3 for width in range(5)], dtype=np.int8)
    repaired = problem.repair(everything)
    assert repaired.tolist() == [[1, 0, 0], [1, 0, 1], [3, 0, 2], [3, 0, 3], [3, 0, 4]]
    assert repaired.dtype == np.int8
    assert not problem.all_allowed
    assert problem.repair_one(everything[2]).tolist() == [3, 0, 2]


def test_nothing_is_copied_where_all_is_allowed():
    problem = problem_of(layer("a"))
    allocations = np.zeros((3, 1), dtype=np.int8)
    assert problem.all_allowed
    assert problem.repair(allocations) is allocations


def test_a_unit_allows_what_all_its_members_allow():
    tied = [
        layer("a", allowed=("INT2", "INT4", "FP16"), tie_group="t"),
        layer("b", allowed=("INT4", "INT8"), tie_group="t"),
    ]
    assert problem_of(*tied).allowed.tolist() == [[False, True, False, False, False]]
    impossible = [layer("a", allowed=("INT2",), tie_group="t"), layer("b", allowed=("INT4",), tie_group="t")]
    with pytest.raises(ProfileError, match=r"profile 'm': unit 't' \(a, b\) allows none of the menu INT2.*widen"):
        problem_of(*impossible)


def test_groups_that_do_not_divide_a_channel_are_not_allowed():
    menu = Menu.parse(["INT4-g8", "INT4-g3", "FP16"])
    problem = problem_of(layer("a", shape=(2, 16)), layer("b", shape=(2, 12)), menu=menu)
    by_name = [dict(zip(menu.names, row, strict=True)) for row in problem.allowed.tolist()]
    assert by_name == [
        {"INT4-g3": False, "INT4-g8": True, "FP16": True},
        {"INT4-g3": True, "INT4-g8": False, "FP16": True},
    ]


def test_missing_losses_name_profile_and_width():
    partial = layer("b", loss={"FP16": 0.0, "FP32": 0.0})
    problem = problem_of(layer("a"), partial)
    assert problem.loss is None
    with pytest.raises(ProfileError, match=r"profile 'm' has no loss for INT2, INT4, INT8 on every layer"):
        problem.separable_loss()
    assert problem.signal("loss:FP16").tolist() == [0.01, 0.0]
    with pytest.raises(ProfileError, match=r"profile 'm' has no loss for INT8, which the signal 'loss:INT8' reads"):
        problem.signal("loss:INT8")
    with pytest.raises(ProfileError, match=r"no fisher for INT8"):
        problem.signal("fisher:INT8")
    with pytest.raises(ProfileError, match=r"unknown signal 'los:INT8'\. Did you mean 'loss:INT8'"):
        problem.signal("los:INT8")


def test_loss_per_bit_is_the_rise_for_each_bit_per_weight_that_the_model_saves():
    problem = problem_of(layer("a", shape=(4, 8)), layer("b", shape=(4, 24)))  # 128 weights, constants not counted
    rise = math.log(1 - 0.2) - math.log(1 - 0.4)
    assert problem.signal("loss_per_bit:INT2") == pytest.approx([rise / (2 * 32 / 128), rise / (2 * 96 / 128)])
    rise = math.log(1 - 0.0) - math.log(1 - 0.01)
    assert problem.signal("loss_per_bit:FP16") == pytest.approx([rise / (16 * 32 / 128), rise / (16 * 96 / 128)])


def test_loss_per_bit_is_exact_and_may_be_negative():
    problem = problem_of(*TIED, menu=Menu.parse(["INT4", "FP16"]), constant_bits=1000)
    tied = integer_loss(0.1) + integer_loss(0.2) - integer_loss(0.0) - integer_loss(-0.1)
    rises = [tied / LOSS_UNITS, (integer_loss(0.5) - integer_loss(0.1)) / LOSS_UNITS]
    assert problem.signal("loss_per_bit:INT4").tolist() == [rises[0] / (12 * 30 / 62), rises[1] / (12 * 32 / 62)]
    better = problem_of(layer("a", loss={**LOSSES, "INT8": -0.1}))
    assert better.signal("loss_per_bit:INT8")[0] == pytest.approx((-math.log(1.1) + math.log(0.99)) / 8)


def test_loss_per_bit_counts_scales_and_the_next_width_of_the_menu():
    menu = Menu.parse(["INT4-channel", "INT4-g4", "INT4-tensor", "INT8-channel"])  # in this order
    loss = dict(zip(menu.names, (0.3, 0.2, 0.1, 0.0), strict=True))
    problem = problem_of(layer("a", shape=(2, 8), loss=loss), layer("b", shape=(2, 4), loss=loss), menu=menu)
    # Scales: a has 2 per channel, 4 per group; b, whose channel is one group, costs the same either way.
    channel, group, tensor = (problem.signal(f"loss_per_bit:{name}").tolist() for name in menu.names[:-1])
    assert channel == [pytest.approx((math.log(0.8) - math.log(0.7)) / (2 * 16 / 24)), NO_SAVING]
    assert group == [NO_SAVING, NO_SAVING]  # the next in order has fewer scales
    assert tensor[0] == pytest.approx(-math.log(0.9) / ((16 * 4 + 16) / 24))
    assert tensor[1] == pytest.approx(-math.log(0.9) / ((8 * 4 + 16) / 24))


def test_other_prices_are_rises_in_nats_and_costs_are_summed_over_tied_layers():
    tied = [
        layer("a", shape=(32,), fisher={"INT4": 0.5, "INT8": 0.125}, hessian={"INT4": 1.0}, tie_group="t"),
        layer("b", shape=(96,), fisher={"INT4": 0.25, "INT8": 0.125}, hessian={"INT4": 2.0}, tie_group="t"),
    ]
    problem = problem_of(*tied, menu=Menu.parse(["INT4", "INT8", "FP32"]))
    assert problem.signal("fisher_per_bit:INT4").tolist() == [(0.75 - 0.25) / 4]
    assert problem.signal("hessian:INT4").tolist() == [3.0]
    with pytest.raises(ProfileError, match="no divergence for INT4"):
        problem.signal("divergence_per_bit:INT4")


def test_loss_per_bit_goes_by_the_menu():
    menu = Menu.parse(["INT4", "INT8-channel", "FP32"])
    problem = problem_of(layer("a", loss=dict(zip(menu.names, (0.4, 0.1, 0.0), strict=True))), menu=menu)
    assert problem.signal("loss_per_bit:INT8").tolist() == problem.signal("loss_per_bit:INT8-channel").tolist()
    assert narrower_width("loss_per_bit:INT8", menu) == 1
    for name in rule_signals(menu):
        if name in SCALAR_SIGNALS or name.startswith("loss"):
            assert problem.signal(name).shape == (1,)
    for name, fault in (
        ("loss_per_bit:FP32", "FP32 is the widest of the menu INT4, INT8-channel, FP32.*name a narrower width"),
        ("loss_per_bit:FP16", "signal 'loss_per_bit:FP16': the menu INT4, INT8-channel, FP32 has no FP16"),
        ("loss_per_bit:X", "unknown precision 'X'"),
        ("loss_per_bit:", "unknown precision ''"),
        ("loss_per_bit", "unknown signal 'loss_per_bit'. Did you mean 'loss_per_bit:"),
        ("loss_per_bits:INT4", "unknown signal 'loss_per_bits:INT4'. Did you mean 'loss_per_bit:INT4'"),
    ):
        with pytest.raises(ProfileError, match=fault) as caught:
            problem.signal(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ProfileError, match="has no loss for INT4"):
        problem_of(layer("a", loss={"INT8-channel": 0.1, "FP32": 0.0}), menu=menu).signal("loss_per_bit:INT8")


def test_a_loss_of_zero_is_a_loss():
    problem = problem_of(layer("a", loss=dict.fromkeys(SEED_MENU.names, 0.0)))
    assert problem.separable_loss().tolist() == [[0] * 5]


@given(st.floats(-1.0, 1.0))
def test_integer_loss_is_the_rounded_logarithm(s):
    value = integer_loss(s)
    assert isinstance(value, int)
    kept = 1.0 - min(s, 1.0 - 2.0**-30)
    assert value / LOSS_UNITS == pytest.approx(-math.log(kept), abs=1e-9)
    assert integer_loss(0.0) == 0


def test_integer_loss_has_an_end():
    assert integer_loss(1.0) == integer_loss(1.0 - 2.0**-31) == integer_loss(1.0 - 2.0**-30)
    assert integer_loss(1.0) / LOSS_UNITS == pytest.approx(30 * math.log(2))
    assert integer_loss(-1.0) == -round(math.log(2) * LOSS_UNITS)


def test_costs_are_exact():
    menu = Menu.parse(["INT4-g3", "INT8-channel", "INT8-tensor", "FP16"])
    problem = problem_of(layer("a", shape=(5, 7)), menu=menu, constant_bits=77)
    # INT4 per group of 3 in a channel of 7: not allowed, yet counted with a rounded-up number of scales.
    assert problem.cost.table.tolist() == [
        [(35 * 4 + 5 * 3 * 16) * 1024, (35 * 8 + 5 * 16) * 1024, (35 * 8 + 16) * 1024, 35 * 16 * 1024]
    ]
    assert problem.cost.constant == 77 * 1024
    assert problem.cost.reference == (35 * 32 + 77) * 1024
    assert problem.weights == 35


def test_sums_above_62_bits_are_refused():
    # 2^46 weights · 32 bits · 1024 = 2^61: one such layer fits, three do not.
    fits = problem_of(layer("a", shape=(2**46,)))
    assert fits.cost.reference == 2**61
    with pytest.raises(ProfileError, match=r"profile 'm' is too large.*2\^62"):
        problem_of(*(layer(name, shape=(2**46,)) for name in "abc"))


@pytest.mark.parametrize("weights", [2**48, 2**50, 2**53])
def test_a_single_layer_above_62_bits_is_refused(weights):
    with pytest.raises(ProfileError, match=r"too large"):
        problem_of(layer("a", shape=(weights,)))


figures = st.floats(-0.5, 0.99)
random_layers = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.integers(1, 6),
        st.tuples(*[figures] * 5),
        st.sampled_from([None, "t", "u"]),
        st.sampled_from([None, ("INT4", "FP32"), ("INT2", "FP32"), ("FP32", "FP16", "INT8")]),
    ),
    min_size=1,
    max_size=6,
)


@given(random_layers, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_against_plain_python(drawn, random):
    layers = [
        layer(f"l{i}", shape=(a, b), loss=dict(zip(SEED_MENU.names, s, strict=True)), tie_group=tie, allowed=allowed)
        for i, (a, b, s, tie, allowed) in enumerate(drawn)
    ]
    problem = problem_of(*layers)
    asked = np.array([[random.randrange(5) for _ in problem.units] for _ in range(4)], dtype=np.int8)
    repaired = problem.repair(asked)
    losses, costs = loss_sums(problem, repaired), cost_sums(problem, repaired)
    for row in range(len(asked)):
        total_loss, total_bits, kept = 0, 0, 1.0
        for layer_profile, width in zip(layers, problem.unfold(repaired[row]), strict=True):
            total_loss += integer_loss(layer_profile.loss[width])
            total_bits += layer_profile.parameters * int(width.removeprefix("INT").removeprefix("FP"))
            kept *= 1.0 - layer_profile.loss[width]
            assert layer_profile.allowed is None or width in layer_profile.allowed
        assert losses[row] == total_loss
        assert Fraction(int(costs[row]), 1024) == total_bits
        assert math.exp(-losses[row] / LOSS_UNITS) == pytest.approx(kept, rel=1e-10)


@pytest.mark.parametrize("figures", [{"weight_mean": 1.7e308}, {"fisher": {"FP16": 1.7e308}}])
def test_tied_figures_beyond_floats_are_named(figures):
    layers = tuple(LayerProfile(name, "Conv", (4,), 0.5, tie_group="t", **figures) for name in ("a", "b"))
    with pytest.raises(ProfileError, match=r"layers a, b, tied: their (weight_mean|fisher) together is beyond"):
        compile_problem(ModelProfile("huge", layers), SEED_MENU)
