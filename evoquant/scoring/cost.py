"""Cost tables: what each choice of a width costs, exactly, in integers.

Nobody else computes parameters · bits: the maker of a table is the one place that knows how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, raised_by, shown_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        noise: how far two measurements of the model are apart, in that unit; None where nothing was measured.
    """

    name: str
    table: NDArray[np.int64]
    constant: int
    reference: int
    noise: int | None = None


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


LARGEST_COST = 2**62  # of a whole model, so that sums stay exact


def checked_cost(
    maker: Callable[..., Any], profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]], name: str = ""
) -> Cost:
    """The table of a maker, read-only, if it is one; `name` is what a campaign with several calls it.

    Raises:
        InputError: it raised, or what it gave is no cost; the message names the model and the fault.
    """
    who = f"cost {name!r} of {profile.name!r}" if name not in ("", "cost") else f"cost of {profile.name!r}"
    try:
        made = maker(profile, menu, members)
    except InputError as error:
        raise InputError(f"{who}: {error}") from None
    except Exception as error:  # whatever it may raise
        raise InputError(f"{who}: raised {raised_by(error)}.") from error
    fault = _cost_fault(made, (len(members), len(menu)))
    if fault is not None:
        raise InputError(f"{who}: {fault}; `evoquant.testing.check_cost` tries it, evoquant.scoring.protocol says how.")
    table = made.table.copy()
    table.setflags(write=False)
    noise = getattr(made, "noise", None)
    return Cost(made.name, table, int(made.constant), int(made.reference), None if noise is None else int(noise))


def _cost_fault(made: Any, shape: tuple[int, int]) -> str | None:
    if not all(hasattr(made, name) for name in ("name", "table", "constant", "reference")):
        return f"should be an evoquant.scoring.cost.Cost (got {shown_value(made)})"
    name, table = made.name, made.table
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 40:
        return f"name: should say in a few words what is counted (got {shown_value(name)})"
    if name == "bits":
        return "name: 'bits' is evoquant's own count; call yours something else"
    if not isinstance(table, np.ndarray) or table.dtype != np.int64 or table.shape != shape:
        got = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else shown_value(table)
        return f"table: should be int64 of shape (units, widths) = {shape} (got {got})"
    if not all(isinstance(value, (int, np.integer)) for value in (made.constant, made.reference)):
        return "constant and reference: should be whole numbers"
    if not isinstance(noise := getattr(made, "noise", None), (int, np.integer, type(None))) or (noise or 0) < 0:
        return f"noise: should be a whole number from 0, or None (got {shown_value(noise)})"
    if (table < 0).any() or made.constant < 0:
        return "table or constant: is below 0"
    if int(made.reference) <= int(made.constant):
        return f"reference: {made.reference} is not above the constant part, {made.constant}"
    if sum(table.min(axis=1).tolist()) + int(made.constant) <= 0:
        return "table: an allocation that costs nothing has no compression"
    if sum(table.max(axis=1).tolist()) + int(made.constant) > LARGEST_COST or int(made.reference) > LARGEST_COST:
        return "table: its sums exceed 2^62; count in a larger unit"
    return None
