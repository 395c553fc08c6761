"""Bit operations: what the multiplications of a model take of a processor that pays by the bit.

A multiply-accumulate of a weight of b bits with an input of a bits is b · a bit operations (van Baalen et al. 2020,
Bayesian Bits, arXiv:2005.07093, appendix B.2.1). Inputs are 32 bits where nothing quantizes them: weights alone are
quantized unless a precision ends in -a8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError
from evoquant.scoring.cost import Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu, Precision

FLOAT_BITS = 32


def bits_of_product(precision: Precision) -> int:
    """Bit operations of one multiply-accumulate: bits of the weight times bits of the input."""
    return precision.code_bits * (precision.activation_bits or FLOAT_BITS)


def bit_operations(profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
    """`(units, P)` bit operations of one sample: multiply-accumulates · bits of the weight · bits of the input.

    Raises:
        InputError: the profile does not say how many multiply-accumulates a layer makes, or none makes any.
    """
    lacking = [layer.name for layer in profile.layers if layer.macs is None]
    if lacking:
        raise InputError(
            f"bit operations: layer {lacking[0]!r} says no `macs`, the multiply-accumulates of a sample that read its "
            f"weight{f', nor do {len(lacking) - 1} others' if len(lacking) > 1 else ''}; profile the network again "
            f"with `evoquant profile`, or add `macs` to the profile by hand."
        )
    macs = [layer.macs or 0 for layer in profile.layers]
    if not sum(macs):
        raise InputError("bit operations: no layer makes any: `macs` is 0 everywhere; correct the profile.")
    price = [bits_of_product(precision) for precision in menu]
    table = [[sum(macs[i] for i in unit) * one for one in price] for unit in members]
    return Cost("bit operations", np.array(table, dtype=np.int64), 0, sum(macs) * FLOAT_BITS**2)
