"""Cost tables: what each choice of a width costs, exactly, in integers.

Nobody else computes parameters · bits: the maker of a table is the one place that knows how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

BIT_UNITS = 1024  # a table of bits counts in 1/1024 bit


@dataclass(frozen=True)
class Cost:
    """An additive cost.

    Attributes:
        name: `bits`, ….
        table: `(units, P)` int64, what giving this unit this width costs.
        constant: what no width applies to, in the same unit.
        reference: the same cost of the model as it is, all in FP32, `constant` included.
    """

    name: str
    table: NDArray[np.int64]
    constant: int
    reference: int


def bits_cost(profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
    """Bits of weights and scales in 1/1024 bit, `(units, P)`: weights · code bits + slices · scale bits per tensor.

    Args:
        profile: the model.
        menu: the P precisions.
        members: layer indices of each unit.
    """
    layers = profile.layers
    table = np.array(
        [
            [sum(p.bits(layers[i].shape, layers[i].channel_axis) for i in unit) * BIT_UNITS for p in menu]
            for unit in members
        ],
        dtype=np.int64,
    )
    constant = profile.constant_bits * BIT_UNITS
    return Cost("bits", table, constant, profile.parameters * 32 * BIT_UNITS + constant)
