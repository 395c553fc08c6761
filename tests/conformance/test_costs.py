import dataclasses
import random

import numpy as np
import pytest

from evoquant.quantization.precision import Menu
from evoquant.scoring.cost import Cost, bits_cost
from evoquant.testing import ConformanceError, check_cost
from evoquant.testing.examples import example_profile

OURS = {"bits": bits_cost}


@pytest.mark.parametrize("name", OURS)
def test_cost_conforms(name):
    check_cost(OURS[name])
    check_cost(OURS[name], example_profile(restricted=True), Menu.parse(["INT4-tensor", "INT8-channel-asym"]))


class Own:
    """A sound one, in nanoseconds, which each of those below breaks in one way."""

    name = "nanoseconds"

    def __call__(self, profile, menu, members):
        def layer(index, precision):
            return self.of(profile.layers[index], precision)

        table = np.array([[sum(layer(i, p) for i in unit) for p in menu] for unit in members], dtype=np.int64)
        (fp32,) = Menu.parse(["FP32"])
        return Cost(self.name, table, 700, 700 + sum(layer(i, fp32) for i in range(len(profile.layers))))

    def of(self, layer, precision):
        return 500 + layer.parameters * precision.code_bits // 8


def changed(**changes):
    """A maker whose costs have something else: values, or functions of cost, profile, menu and members."""

    class Changed(Own):
        def __call__(self, profile, menu, members):
            cost = super().__call__(profile, menu, members)
            given = {
                name: value(cost, profile, menu, members) if callable(value) else value
                for name, value in changes.items()
            }
            return dataclasses.replace(cost, **given)

    return Changed()


class Wrapping(Own):
    """Multiplies in 32 bits."""

    def of(self, layer, precision):
        return abs(int(np.prod(layer.shape, dtype=np.int32))) * precision.code_bits


class Worn(Own):
    calls = 0

    def of(self, layer, precision):
        self.calls += 1
        return super().of(layer, precision) + self.calls


class Tossed(Own):
    def of(self, layer, precision):
        return super().of(layer, precision) + random.randrange(9)


def crowded(cost, profile, menu, members):
    """Costs more where more units are."""
    return cost.table + len(members)


BROKEN = {
    "floats": (changed(table=lambda cost, *_: cost.table.astype(np.float64)), "float64, not int64"),
    "lists": (changed(table=lambda cost, *_: cost.table.tolist()), "a list, not an array"),
    "turned": (changed(table=lambda cost, *_: cost.table.T.copy()), "shape .*, expected .units, widths."),
    "negative": (changed(table=lambda cost, *_: cost.table - 10_000), "an entry is below 0"),
    "free": (changed(table=lambda cost, *_: cost.table * 0, constant=0), "an allocation that costs 0"),
    "huge": (changed(table=lambda cost, *_: cost.table + 2**60), r"above 2\^62"),
    "nameless": (changed(name=""), "does not say what is counted"),
    "a NumPy number": (changed(constant=np.int64(700)), "constant: .* is a int64, not an int"),
    "a fraction": (changed(reference=1.5), "reference: 1.5 is a float, not an int"),
    "below nothing": (changed(constant=-1), "constant: -1 is below 0"),
    "first dear": (changed(table=lambda cost, *_: cost.table + np.arange(len(cost.table))[:, None]), "where it stands"),
    "crowded": (changed(table=crowded), "which other layers share a width"),
    "bits": (changed(name="bits"), "`bits` is evoquant's own cost"),
    "all constant": (changed(constant=10**12), "is not above the constant part of it"),
    "menu": (changed(table=lambda cost, profile, menu, _: cost.table * len(menu)), "INT2 costs something else where"),
    "constant of the menu": (changed(constant=lambda cost, profile, menu, _: len(menu)), "constant: another one"),
    "reference": (changed(reference=lambda cost, *_: cost.reference + 1), "its compression is not 1"),
    "reference of the menu": (changed(reference=lambda cost, _, menu, members: 10**9 + len(menu)), "INT2 alone"),
    "another one": (lambda profile, menu, members: np.zeros(3), "should return an evoquant.scoring.cost.Cost"),
    "wrapping": (Wrapping(), "an overflow"),
    "worn": (Worn(), "another one the second time"),
    "tossed": (Tossed(), "the global `random` module"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_suite_catches_each_sort_of_broken_cost(name):
    maker, clause = BROKEN[name]
    with pytest.raises(ConformanceError, match=clause):
        check_cost(maker)


def test_a_cost_of_ones_own_conforms():
    check_cost(Own())
