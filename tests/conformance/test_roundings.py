import random

import numpy as np
import pytest

from evoquant.quantization.integers import integer_codes
from evoquant.testing import ConformanceError, check_rounding


def ours(rows, scales, zero_points, precision):
    """Evoquant's own codes: the nearest, halves to even."""
    zeros = zero_points if precision.asymmetric else None
    return integer_codes(rows, scales.astype(np.float16), zeros, precision).astype(np.int16)


def toward_zero(rows, scales, zero_points, precision):
    codes = np.trunc(rows / scales[:, None]) + zero_points[:, None]
    low = 0 if precision.asymmetric else -precision.largest_code
    return np.clip(codes, low, precision.largest_code).astype(np.int16)


@pytest.mark.parametrize("rounding", [ours, toward_zero])
def test_rounding_conforms(rounding):
    check_rounding(rounding)


def wide(rows, scales, zero_points, precision):
    """Forgets to clip."""
    return np.rint(rows / scales[:, None] * 1.5).astype(np.int16) + zero_points.astype(np.int16)[:, None]


def trusting(rows, scales, zero_points, precision):
    """Trusts that scales cover the weights, which clipped or coarsely rounded ones do not."""
    return (np.rint(rows / scales[:, None]) + zero_points[:, None]).astype(np.int16)


def floats(rows, scales, zero_points, precision):
    return ours(rows, scales, zero_points, precision).astype(np.float32)


def flat(rows, scales, zero_points, precision):
    return ours(rows, scales, zero_points, precision).ravel()


def listed(rows, scales, zero_points, precision):
    return ours(rows, scales, zero_points, precision).tolist()


def tossed(rows, scales, zero_points, precision):
    """Stochastic rounding, with the die of everybody."""
    shift = np.array([random.random() < 0.5 for _ in range(rows.size)]).reshape(rows.shape)
    low = 0 if precision.asymmetric else -precision.largest_code
    codes = np.floor(rows / scales[:, None] + shift) + zero_points[:, None]
    return np.clip(codes, low, precision.largest_code).astype(np.int16)


stream = np.random.Generator(np.random.PCG64(1))


def drawn(rows, scales, zero_points, precision):
    """The same with a die of its own, which is not keyed by the tensor."""
    codes = np.floor(rows / scales[:, None] + stream.random(rows.shape)) + zero_points[:, None]
    low = 0 if precision.asymmetric else -precision.largest_code
    return np.clip(codes, low, precision.largest_code).astype(np.int16)


def scaling(rows, scales, zero_points, precision):
    rows /= scales[:, None]
    return ours(rows, np.ones_like(scales), zero_points, precision)


def unaware(rows, scales, zero_points, precision):
    """Forgets zero points."""
    low = 0 if precision.asymmetric else -precision.largest_code
    return np.clip(np.rint(rows / scales[:, None]), low, precision.largest_code).astype(np.int16)


def maker():
    def inner(rows, scales, zero_points, precision):
        return ours(rows, scales, zero_points, precision)

    return inner


BROKEN = {
    "wide": (wide, "leave its range"),
    "trusting": (trusting, "codes from .* leave its range"),
    "floats": (floats, "float32, not of an integer type"),
    "flat": (flat, "codes of shape"),
    "listed": (listed, "a list, not an array"),
    "tossed": (tossed, "the global `random` module"),
    "drawn": (drawn, "the same tensor has other codes the second time"),
    "scaling": (scaling, "writes into its arguments"),
    "unaware": (unaware, "steps from the weight on average"),
    "local": (maker(), "cannot be named as module:function"),
    "lambda": (lambda *given: ours(*given), "cannot be named as module:function"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_suite_catches_each_sort_of_broken_rounding(name):
    rounding, clause = BROKEN[name]
    with pytest.raises(ConformanceError, match=clause):
        check_rounding(rounding)
