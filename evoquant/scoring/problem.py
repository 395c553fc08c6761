"""Problem: what a profile becomes for a campaign, compiled once into read-only arrays."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from evoquant.errors import PrecisionError, ProfileError, suggestion
from evoquant.profiles.model import PER_WIDTH
from evoquant.scoring.cost import BIT_UNITS, Cost, bits_cost, checked_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu

    # `evoquant.scoring.protocol.CostMaker`, which knows problems itself
    CostMaker = Callable[[ModelProfile, Menu, Sequence[Sequence[int]]], Cost]

Array = TypeVar("Array", bound="NDArray[Any]")

LOSS_UNITS = 2**40
LARGEST_LOSS = 1.0 - 2.0**-30
LARGEST_SUM = 2**62

SCALAR_SIGNALS = (
    "gradient_sensitivity",
    "parameters",
    "weight_mean",
    "weight_std",
    "weight_range",
    "activation_range",
)
WIDTH_SIGNALS = PER_WIDTH
PER_BIT = {f"{kind}_per_bit": kind for kind in ("loss", "divergence", "fisher", "expected_loss")}
"""Prices: what a step down to a width costs for each bit per weight of the model that it saves."""
NO_SAVING = 1e12  # the price of a width that costs no less than the next wider one


@dataclass(frozen=True, eq=False)
class Problem:
    """A model as arrays over units (layers that share a width count once) and the menu's P widths.

    Attributes:
        name: the model's.
        menu: the P precisions, narrowest first.
        layers: names of the layers, in order.
        units: names of the units: the layer's, or the tie group's.
        unit_of_layer: `(layers,)` index of each layer's unit.
        types: `(units,)` layer type names.
        position: `(units,)` in [0, 1].
        scalars: signal name → `(units,)` float64.
        widths: signal name → precision name → `(units,)` float64, for the widths that the profile knows.
        loss: `(units, P)` int64, −ln(1 − s) in units of 2^−40; None where the profile lacks it for some width.
        cost: what choices cost: bits, or what a campaign counts instead.
        allowed: `(units, P)` bool.
        weights: parameters of the whole model that widths apply to.
        bits: the bits, whatever `cost` is.
        costs: name → every cost that a campaign names, `bits` and the one that `cost` is among them; empty where there
            is but that one.
    """

    name: str
    menu: Menu
    layers: tuple[str, ...]
    units: tuple[str, ...]
    unit_of_layer: NDArray[np.intp]
    types: NDArray[np.str_]
    position: NDArray[np.float64]
    scalars: Mapping[str, NDArray[np.float64]]
    widths: Mapping[str, Mapping[str, NDArray[np.float64]]]
    loss: NDArray[np.int64] | None
    cost: Cost
    allowed: NDArray[np.bool_]
    weights: int
    bits: Cost
    costs: Mapping[str, Cost] = field(default_factory=dict)

    @property
    def own_cost(self) -> bool:
        """Whether something else than bits is counted."""
        return self.cost.name != self.bits.name

    @property
    def bit(self) -> float:
        """What one bit of one weight costs, on average, in the cost's unit: 1024 for bits.

        So bits per weight are 32 times the share of the FP32 cost, whatever is counted.
        """
        return (self.cost.reference - self.cost.constant) / (32.0 * float(self.weights))

    def signal(self, name: str) -> NDArray[np.float64]:
        """`(units,)` values of a signal: `gradient_sensitivity`, `loss:FP16`, `fisher_per_bit:INT4`, ….

        Raises:
            ProfileError: unknown signal, or the profile lacks it for that width.
        """
        if name in self.scalars:
            return self.scalars[name]
        kind, colon, width = name.partition(":")
        if kind in PER_BIT and colon:
            return self._per_bit(PER_BIT[kind], narrower_width(name, self.menu))
        if not colon or kind not in WIDTH_SIGNALS:
            raise ProfileError(f"unknown signal {name!r}.{suggestion(name, rule_signals(self.menu))}")
        meant = self._known_width(kind, width)
        if meant is None:
            raise ProfileError(
                f"profile {self.name!r} has no {kind} for {width}, which the signal {name!r} reads; "
                f"add it to the profile or leave the signal out."
            )
        return self.widths[kind][meant]

    def _per_bit(self, kind: str, narrow: int) -> NDArray[np.float64]:
        """`(units,)` rise of −ln(1 − s), or of a cost in nats, for each effective bit per weight that the model saves.

        What one step down the menu, from the next wider width to this one, costs: the price that a Lagrangian
        allocation compares with its multiplier (Shoham & Gersho, IEEE Trans. ASSP 36(9), 1988).

        Args:
            kind: `loss`, or any other that `PER_BIT` has.
            narrow: menu index of the width stepped down to.
        """
        if kind == "loss":
            loss = self.separable_loss()
            rise = (loss[:, narrow] - loss[:, narrow + 1]) / LOSS_UNITS
        else:
            below, above = (self.signal(f"{kind}:{self.menu.names[i]}") for i in (narrow, narrow + 1))
            rise = below - above
        cost = self.cost.table
        saved = (cost[:, narrow + 1] - cost[:, narrow]) / (self.bit * float(self.weights))
        prices: NDArray[np.float64] = np.full(len(rise), NO_SAVING)
        np.divide(rise, saved, out=prices, where=saved > 0)
        return prices

    def _known_width(self, kind: str, width: str) -> str | None:
        if width in self.widths[kind]:
            return width
        try:
            meant = self.menu.names[self.menu.resolve(width)]
        except PrecisionError:
            return None
        return meant if meant in self.widths[kind] else None

    def separable_loss(self) -> NDArray[np.int64]:
        """`(units, P)` int64 losses.

        Raises:
            ProfileError: the profile lacks a loss for a width of the menu; the message names both.
        """
        if self.loss is None:
            missing = [p for p in self.menu.names if p not in self.widths["loss"]]
            raise ProfileError(
                f"profile {self.name!r} has no loss for {', '.join(missing)} on every layer, which the separable "
                f"estimator needs; add it to the profile or take the width off the menu."
            )
        return self.loss

    @functools.cached_property
    def _repair_table(self) -> NDArray[np.int8]:
        """`(units, P)`: the width itself where allowed, else the next wider allowed, else the widest allowed."""
        table = np.empty(self.allowed.shape, dtype=np.int8)
        for unit, row in enumerate(self.allowed):
            (options,) = np.nonzero(row)
            for width in range(len(row)):
                wider = options[options >= width]
                table[unit, width] = wider[0] if len(wider) else options[-1]
        return table

    @functools.cached_property
    def all_allowed(self) -> bool:
        """Whether every unit may take every width."""
        return bool(self.allowed.all())

    def repair(self, allocations: NDArray[np.int8]) -> NDArray[np.int8]:
        """`(n, units)` allocations with every forbidden width replaced; see DESIGN: next wider, else widest allowed."""
        if self.all_allowed:
            return allocations
        return self._repair_table[np.arange(len(self.units)), allocations]

    def repair_one(self, allocation: NDArray[np.int8]) -> NDArray[np.int8]:
        """`repair` of one `(units,)` allocation."""
        repaired: NDArray[np.int8] = self.repair(allocation[None])[0]
        return repaired

    def unfold(self, allocation: NDArray[np.int8]) -> tuple[str, ...]:
        """Precision names per layer, in layer order, of one `(units,)` allocation."""
        names = self.menu.names
        return tuple(names[allocation[unit]] for unit in self.unit_of_layer)


def compile_problem(
    profile: ModelProfile, menu: Menu, maker: CostMaker = bits_cost, makers: Mapping[str, CostMaker] | None = None
) -> Problem:
    """Compile a profile for a menu: tie groups become units, signals are merged, scores become integers.

    Losses of a unit's members combine as s = 1 − Π(1 − s); parameters, divergences, Fisher and Hessian costs and
    squared errors are summed;
    ranges take the maximum; gradient sensitivity, mean and std are weighted by parameters; position is the mean.

    Args:
        profile: the model.
        menu: the P precisions.
        maker: of the cost table; bits by default.
        makers: name → maker, where a campaign names several costs; `maker` is among them.

    Raises:
        ProfileError: nothing is allowed for a unit, or the sums would not fit 62 bits.
        InputError: `maker` made no such table, or cannot make one; the message says which model.
    """
    layers = profile.layers
    if profile.parameters * 32 * BIT_UNITS > LARGEST_SUM:
        raise ProfileError(
            f"profile {profile.name!r} is too large: {profile.parameters} weights in units of 1/{BIT_UNITS} bit exceed "
            f"2^62; split the model."
        )
    groups: dict[tuple[str, str], list[int]] = {}
    for index, layer in enumerate(layers):
        key = ("layer", layer.name) if layer.tie_group is None else ("tie", layer.tie_group)
        groups.setdefault(key, []).append(index)
    members = list(groups.values())
    units = tuple(name for _, name in groups)
    unit_of_layer = np.empty(len(layers), dtype=np.intp)
    for unit, indices in enumerate(members):
        unit_of_layer[indices] = unit
    grouped = [[layers[i] for i in indices] for indices in members]
    widths = _merge_widths(grouped)
    bits = bits_cost(profile, menu, members)
    bits = dataclasses.replace(bits, table=_frozen(bits.table))
    made: dict[int, Cost] = {id(bits_cost): bits}  # each maker is asked once, whatever its names are
    for name, one in {**(makers or {}), "": maker}.items():
        if id(one) not in made:
            made[id(one)] = checked_cost(one, profile, menu, members, name)
    cost = made[id(maker)]
    problem = Problem(
        name=profile.name,
        menu=menu,
        layers=tuple(layer.name for layer in layers),
        units=units,
        unit_of_layer=_frozen(unit_of_layer),
        types=_frozen(np.array([_largest(unit).type for unit in grouped])),
        position=_frozen(np.array([_mean([layer.position for layer in unit]) for unit in grouped])),
        scalars={name: _frozen(np.array([_merge_scalar(name, unit) for unit in grouped])) for name in SCALAR_SIGNALS},
        widths=widths,
        loss=_integer_loss(grouped, menu),
        cost=cost,
        allowed=_frozen(_merge_allowed(profile.name, units, grouped, menu)),
        weights=profile.parameters,
        bits=bits,
        costs={name: made[id(one)] for name, one in (makers or {}).items()},
    )
    for what, table in ((cost.name, problem.cost.table), ("loss", problem.loss)):
        largest = int(np.abs(table).max()) if table is not None else 0
        if len(units) * largest > LARGEST_SUM or problem.cost.reference > LARGEST_SUM:
            raise ProfileError(
                f"profile {profile.name!r} is too large: {len(units)} units of {what} exceed 2^62; split the model."
            )
    return problem


def rule_signals(menu: Menu) -> list[str]:
    """Every signal that a rule may read with this menu."""
    by_width = [f"{kind}:{name}" for kind in WIDTH_SIGNALS for name in menu.names]
    return [*SCALAR_SIGNALS, *by_width, *(f"{kind}:{name}" for kind in PER_BIT for name in menu.names[:-1])]


def narrower_width(signal: str, menu: Menu) -> int:
    """Menu index of W in `loss_per_bit:W` and its like, which compare W with the next wider width.

    Raises:
        ProfileError: W is not on the menu, or the widest of it.
    """
    width = signal.partition(":")[2]
    try:
        narrow = menu.resolve(width)
    except PrecisionError as error:
        raise ProfileError(f"signal {signal!r}: {error}") from None
    if narrow == len(menu) - 1:
        raise ProfileError(
            f"signal {signal!r}: {width} is the widest of the menu {', '.join(menu.names)}, and nothing is saved by "
            f"taking it; name a narrower width."
        )
    return narrow


def integer_loss(s: float) -> int:
    """−ln(1 − s) as an integer in units of 2^−40; s above 1 − 2^−30 counts as that."""
    return round(-math.log1p(-min(s, LARGEST_LOSS)) * LOSS_UNITS)


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array


def _largest(unit: Sequence[LayerProfile]) -> LayerProfile:
    return max(unit, key=lambda layer: layer.parameters)


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else math.fsum(values) / len(values)


def _merge_scalar(name: str, unit: Sequence[LayerProfile]) -> float:
    values = [float(getattr(layer, name)) for layer in unit]
    if len(unit) == 1:  # the layer's own figure, to the last bit
        return values[0]
    if name == "parameters":
        return math.fsum(values)
    if name.endswith("_range"):
        return max(values)
    total = sum(layer.parameters for layer in unit)
    weighted = [value * layer.parameters for value, layer in zip(values, unit, strict=True)]
    return _sum(name, unit, weighted) / total


def _sum(name: str, unit: Sequence[LayerProfile], values: Sequence[float]) -> float:
    try:
        result = math.fsum(values)
    except (OverflowError, ValueError):  # beyond the range of floats, or infinities of both signs
        result = math.inf
    if not math.isfinite(result):
        names = ", ".join(layer.name for layer in unit)
        raise ProfileError(f"layers {names}, tied: their {name} together is beyond the range of floats; correct it.")
    return result


def _merge_widths(grouped: Sequence[Sequence[LayerProfile]]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Signal → precision → `(units,)`, for the precisions that every layer knows."""
    merged: dict[str, dict[str, NDArray[np.float64]]] = {}
    for kind in WIDTH_SIGNALS:
        tables = [[getattr(layer, kind) for layer in unit] for unit in grouped]
        common = set.intersection(*(set(table) for unit in tables for table in unit))
        merged[kind] = {}
        for width in sorted(common):
            values = [[table[width] for table in unit] for unit in tables]
            if kind == "loss":
                column = [v[0] if len(v) == 1 else 1.0 - math.prod(1.0 - s for s in v) for v in values]
            else:
                column = [v[0] if len(v) == 1 else _sum(kind, unit, v) for v, unit in zip(values, grouped, strict=True)]
            merged[kind][width] = _frozen(np.array(column, dtype=np.float64))
    return merged


def _integer_loss(grouped: Sequence[Sequence[LayerProfile]], menu: Menu) -> NDArray[np.int64] | None:
    if any(name not in layer.loss for unit in grouped for layer in unit for name in menu.names):
        return None
    rows = [[sum(integer_loss(layer.loss[name]) for layer in unit) for name in menu.names] for unit in grouped]
    return _frozen(np.array(rows, dtype=np.int64))


def _merge_allowed(
    model: str, units: Sequence[str], grouped: Sequence[Sequence[LayerProfile]], menu: Menu
) -> NDArray[np.bool_]:
    allowed = np.array([[all(layer.allows(p) for layer in unit) for p in menu] for unit in grouped], dtype=bool)
    for unit, row, layers in zip(units, allowed, grouped, strict=True):
        if not row.any():
            names = ", ".join(layer.name for layer in layers)
            raise ProfileError(
                f"profile {model!r}: unit {unit!r} ({names}) allows none of the menu {', '.join(menu.names)}; "
                f"widen the menu or the layers' `allowed`."
            )
    return allowed
