"""Conformance of costs: what makes every sum of them exact, and compression mean something.

check_cost(MyCost(device="phone"))
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.cost import Cost, bits_cost
from evoquant.scoring.problem import LARGEST_SUM
from evoquant.testing.clauses import no_global_randomness, require, run_checks
from evoquant.testing.examples import SCALED, example_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Maker = Callable[[ModelProfile, Menu, Sequence[Sequence[int]]], Cost]

LARGE_SIDE = 2**17  # of a square matrix: 2^34 weights, of which no product may be held in 32 bits


def check_cost(maker: Maker, profile: ModelProfile | None = None, menu: Menu | None = None) -> None:
    """Put a maker of cost tables through all that the protocol promises.

    Args:
        maker: called as `maker(profile, menu, members)`, made with its options.
        profile: a model to try it on beside large layers; by default the published test model.
        menu: the widths; by default those of the seed suite, and others with scales.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    profile = example_profile() if profile is None else profile
    for widths in (SEED_MENU, Menu.parse(SCALED)) if menu is None else (menu,):
        checks = (check_table, check_repeats, check_additive, check_menu, check_reference, check_large)
        run_checks(checks, maker, profile, widths)


def check_table(maker: Maker, profile: ModelProfile, menu: Menu) -> None:
    """`(units, P)` int64 whole numbers that no sum of them can overflow, with a name that says what is counted."""
    cost = _made(maker, profile, menu, _each(profile))
    for what, value in (("constant", cost.constant), ("reference", cost.reference)):
        require(type(value) is int, f"{what}: {value!r} is a {type(value).__name__}, not an int")
    require(cost.constant >= 0, f"constant: {cost.constant} is below 0")
    least, most = (sum(rows.tolist(), cost.constant) for rows in (cost.table.min(axis=1), cost.table.max(axis=1)))
    require(least > 0, f"table: an allocation that costs {least}: compression, which divides by it, has no meaning")
    above = cost.reference > cost.constant
    require(above, f"reference: {cost.reference} is not above the constant part of it, {cost.constant}")
    own = cost.name != "bits" or np.array_equal(cost.table, bits_cost(profile, menu, _each(profile)).table)
    require(own, "name: `bits` is evoquant's own cost; say what is counted")
    require(most < LARGEST_SUM, f"table: sums up to {most} are above 2^62")


def check_repeats(maker: Maker, profile: ModelProfile, menu: Menu) -> None:
    """The same model costs the same: exactly, at any time, in every process."""
    with no_global_randomness("the cost"):
        first = _made(maker, profile, menu, _each(profile))
    again = _made(maker, profile, menu, _each(profile))
    require(np.array_equal(first.table, again.table), "table: another one the second time")
    same = (first.name, first.constant, first.reference) == (again.name, again.constant, again.reference)
    require(same, "name, constant or reference: another one the second time")


def check_additive(maker: Maker, profile: ModelProfile, menu: Menu) -> None:
    """What a unit costs depends on its own layers and width alone: sums are exact, and bounds hold."""
    clause = "table: not additive: what a unit costs depends on "
    alone = _made(maker, profile, menu, _each(profile)).table
    backwards = _made(maker, profile, menu, _each(profile)[::-1])
    require(np.array_equal(backwards.table[::-1], alone), clause + "where it stands")
    members = _tied(profile)
    tied = _made(maker, profile, menu, members).table
    singles = [place for place, unit in enumerate(members) if len(unit) == 1]
    same = np.array_equal(tied[singles], alone[[members[place][0] for place in singles]])
    require(same, clause + "which other layers share a width")
    swapped = _made(maker, profile, menu, [members[-1], *members[:-1]]).table
    require(np.array_equal(np.roll(swapped, -1, axis=0), tied), clause + "the units before it")


def check_menu(maker: Maker, profile: ModelProfile, menu: Menu) -> None:
    """A width costs the same whatever other widths there are."""
    whole = _made(maker, profile, menu, _each(profile))
    for place, precision in enumerate(menu):
        part = _made(maker, profile, Menu((precision,)), _each(profile))
        same = np.array_equal(part.table[:, 0], whole.table[:, place])
        require(same, f"table: {precision.name} costs something else where it is the only width of the menu")
        require(part.constant == whole.constant, f"constant: another one where {precision.name} is the only width")


def check_reference(maker: Maker, profile: ModelProfile, menu: Menu) -> None:
    """The reference is the model in FP32, whatever the menu: compression is counted from there."""
    cost = _made(maker, profile, menu, _each(profile))
    narrow = _made(maker, profile, Menu(menu.precisions[:1]), _each(profile))
    require(narrow.reference == cost.reference, f"reference: depends on the menu: {menu.names[0]} alone changes it")
    for members in (_each(profile), _tied(profile)):
        fp32 = _made(maker, profile, Menu.parse(["FP32"]), members)
        total = int(fp32.table.sum()) + fp32.constant
        clause = f"reference: {fp32.reference}, and the model that is FP32 throughout costs {total}"
        require(total == fp32.reference, f"{clause}: its compression is not 1")


def check_large(maker: Maker, profile: ModelProfile, menu: Menu) -> None:
    """Nothing overflows: a larger layer of the same shape costs no less."""
    small, large = (_matrices(side) for side in (LARGE_SIDE // 64, LARGE_SIDE))
    before, after = (_made(maker, matrices, menu, _each(matrices)).table for matrices in (small, large))
    clause = f"table: a matrix of {LARGE_SIDE}² weights costs less than one of {LARGE_SIDE // 64}²: an overflow?"
    require((after >= before).all(), clause)
    check_table(maker, large, menu)
    check_reference(maker, large, menu)


def _matrices(side: int) -> ModelProfile:
    layers = (LayerProfile("first", "Linear", (side, side), 0.0), LayerProfile("second", "Linear", (side, side), 1.0))
    return ModelProfile(f"matrices of {side}", layers)


def _each(profile: ModelProfile) -> list[tuple[int, ...]]:
    """Members where no layers share a width."""
    return [(layer,) for layer in range(len(profile.layers))]


def _tied(profile: ModelProfile) -> list[tuple[int, ...]]:
    """Members where the first and the last layer, and the two after the first, share theirs."""
    count = len(profile.layers)
    groups = [(0, count - 1), (1, 2)] if count > 3 else [tuple(range(count))]
    taken = {layer for group in groups for layer in group}
    return [*groups, *((layer,) for layer in range(count) if layer not in taken)]


def _made(maker: Maker, profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
    cost: Any = maker(profile, menu, members)
    missing = [field.name for field in dataclasses.fields(Cost) if not hasattr(cost, field.name)]
    require(not missing, f"the maker should return an evoquant.scoring.cost.Cost; what it gave lacks {missing}")
    require(isinstance(cost.name, str) and cost.name.strip(), f"name: {cost.name!r} does not say what is counted")
    table: NDArray[np.int64] = cost.table
    require(isinstance(table, np.ndarray), f"table: a {type(table).__name__}, not an array")
    shape = (len(members), len(menu))
    require(table.shape == shape, f"table: shape {table.shape}, expected (units, widths) = {shape}")
    require(table.dtype == np.int64, f"table: {table.dtype}, not int64: only whole numbers sum exactly in any order")
    require((table >= 0).all(), "table: an entry is below 0")
    made: Cost = cost
    return made
