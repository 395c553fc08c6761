"""Cost tables from files: measured by `evoquant cost --latency`, or by the user on a device of their own.

    CSV     layer,width,value             a line for each layer and width
            conv1,INT4-channel,13200      (an empty layer: what no width applies to)
    JSON    {"schema": "evoquant.cost_table", "version": 1, "unit": "ns", "constant": 900,
             "layers": [{"name": "conv1", "shape": [8, 3, 3, 3], "values": {"INT4-channel": 13200, "FP32": 30100}}]}

Values are numbers from 0, of one unit: `ns`, `us`, `ms` and `s` become whole nanoseconds, anything else has to be
whole. FP32 is needed of every layer, since compression counts from there.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, quoted, suggestion
from evoquant.files import parse_json, read_text
from evoquant.quantization.precision import Precision
from evoquant.scoring.cost import LARGEST_COST, Cost
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu

SCHEMA, VERSION = "evoquant.cost_table", 1
LARGEST_TABLE = 2**26
"""Bytes of a file."""
NANOSECONDS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
TIME = "nanoseconds"
WIDEST = "FP32"
_COLUMNS = ["layer", "width", "value"]


@dataclass(frozen=True)
class CostTable:
    """What a file says.

    Attributes:
        source: the file, for messages.
        unit: what is counted: `nanoseconds`, or the user's own word.
        values: layer → width → cost, whole numbers.
        shapes: layer → shape of its weight, for layers whose file says it.
        constant: what no width applies to.
        noise: how far two measurements of one whole model are apart; None where nobody said.
        span: how far whole models of other widths were measured to be apart; None where none were.
        target: the deployment target that was measured; None where the file says none.
    """

    source: str
    unit: str
    values: Mapping[str, Mapping[str, int]]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constant: int = 0
    noise: int | None = None
    span: int | None = None
    target: str | None = None


@dataclass(frozen=True)
class Signal:
    """Whether allocations differ by more than the noise.

    Attributes:
        unit: of both.
        cheapest, dearest: the least and the most that any allocation of the menu costs.
        noise: how far two measurements of one model are apart; None where it is not known.
        span: how far whole models of other widths were measured to be apart; None where none were.
    """

    unit: str
    cheapest: int
    dearest: int
    noise: int | None
    span: int | None = None

    @property
    def present(self) -> bool:
        """Whether some allocations differ by twice the noise or more: by the table, and as whole models."""
        differences = [self.dearest - self.cheapest, *([] if self.span is None else [self.span])]
        return self.noise is None or min(differences) >= 2 * self.noise

    @property
    def text(self) -> str:
        """A sentence that says so."""
        span = amount_text(self.dearest - self.cheapest, self.unit)
        between = f"between the cheapest and the dearest allocation lie {span}"
        if self.span is not None and self.span < self.dearest - self.cheapest:
            between += f", and {amount_text(self.span, self.unit)} between whole models as they were measured"
        if self.noise is None:
            return f"{between}; how noisy that is, the table does not say"
        noise = amount_text(self.noise, self.unit)
        if self.present:
            return f"{between}; the noise is {noise}"
        return f"{no_signal(self.unit)}: {between}, less than twice the noise of {noise}"


def no_signal(unit: str) -> str:
    """What is said where amounts differ by less than twice their noise."""
    return f"no {'latency' if unit == TIME else unit} signal here"


@dataclass(frozen=True)
class TableCost:
    """Makes the tables of models from one that was read.

    Attributes:
        table: as read.
        refuse: whether one in which allocations differ by less than twice the noise is refused.
    """

    table: CostTable
    refuse: bool = True

    def __call__(self, profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
        """`(units, P)` in the table's unit; a width that a layer may not take counts as FP32.

        Raises:
            InputError: the table is of another model, lacks a width, or differences drown in its noise.
        """
        table = self.table
        check_model(table, profile)
        signal = signal_of(table, profile, menu, members)
        if self.refuse and len(menu) > 1 and not signal.present:  # of one width there is nothing to choose
            raise InputError(f"{table.source}: {signal.text}; count bytes or bit operations instead.")
        rows = [[sum(_value(table, profile.layers[i], p.name) for i in unit) for p in menu] for unit in members]
        reference = sum(values[WIDEST] for values in table.values.values()) + table.constant
        if reference <= table.constant:  # as measured where a call takes far longer than any layer
            raise InputError(
                f"{table.source}: at {WIDEST} the layers take nothing beside the constant part, {table.constant} "
                f"{table.unit}: there is nothing to save. Measure more samples a call (--batch), or count bytes."
            )
        return Cost(table.unit, np.array(rows, dtype=np.int64), table.constant, reference, table.noise)


def signal_of(table: CostTable, profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Signal:
    """How far the allocations of a menu lie apart, beside the table's noise.

    Raises:
        InputError: the table lacks a width that a layer may take.
    """
    cheapest = dearest = table.constant
    for unit in members:
        layers = [profile.layers[i] for i in unit]
        allowed = [p.name for p in menu if all(layer.allows(p) for layer in layers)]
        for layer in layers:
            for name in allowed:
                _require_width(table, layer.name, name)
        costs = [sum(table.values[layer.name][name] for layer in layers) for name in allowed]
        cheapest, dearest = cheapest + min(costs, default=0), dearest + max(costs, default=0)
    return Signal(table.unit, cheapest, dearest, table.noise, table.span)


def _value(table: CostTable, layer: LayerProfile, width: str) -> int:
    values = table.values[layer.name]
    return values.get(width, values[WIDEST])


def _require_width(table: CostTable, layer: str, width: str) -> None:
    known = table.values[layer]
    if width not in known:
        raise InputError(
            f"{table.source}: layer {layer!r}: no value for {width}, which is on the menu; it has {', '.join(known)}. "
            f"Measure it, or take it off the menu."
        )


def check_model(table: CostTable, profile: ModelProfile) -> None:
    """Check that a table is of this model: the same layers, of the same shapes where it says them.

    Raises:
        InputError: it is not; the message names the layer.
    """
    where = f"{table.source}: a table of another model than {profile.name!r}"
    for layer in profile.layers:
        if layer.name not in table.values:
            raise InputError(f"{where}: no layer {layer.name!r}.{suggestion(layer.name, table.values)}")
        shape = table.shapes.get(layer.name, layer.shape)
        if shape != layer.shape:
            raise InputError(
                f"{where}: layer {layer.name!r} has the shape {list(shape)} there, {list(layer.shape)} in the model."
            )
        if WIDEST not in table.values[layer.name]:
            raise InputError(
                f"{table.source}: layer {layer.name!r}: no value for {WIDEST}, from which compression counts; give "
                f"what the layer costs as it is."
            )
    extra = [name for name in table.values if name not in {layer.name for layer in profile.layers}]
    if extra:
        raise InputError(f"{where}: the model has no layer {quoted(extra[0])}.")


def read_table(path: Path, unit: str | None = None) -> CostTable:
    """Read a CSV or JSON file.

    Args:
        path: ending in .csv, else JSON.
        unit: of the values; a CSV's is ns by default, a JSON's is what it says.

    Raises:
        InputError: the file cannot be read or is no such table; the message names file, layer, width and remedy.
    """
    text = read_text(path, limit=LARGEST_TABLE)
    return parse_table(text, path, unit)


def parse_table(text: str, path: Path, unit: str | None = None) -> CostTable:
    """A table from a file's text; see `read_table`."""
    if path.suffix.lower() == ".csv":
        return _from_csv(text, str(path), unit or "ns")
    from evoquant.scoring.cost_schema import table_from_dict

    return table_from_dict(parse_json(text, str(path)), str(path), unit)


def _from_csv(text: str, source: str, unit: str) -> CostTable:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    values: dict[str, dict[str, int]] = {}
    constant: int | None = None
    counted = whole(unit, source)
    try:
        for number, row in enumerate(reader):
            if number == 0:
                got = quoted(",".join(row))
                if [cell.strip() for cell in row] != _COLUMNS:
                    raise InputError(f"{source}: line 1: the columns are layer,width,value (got {got}).")
                continue
            if not row:
                continue
            place = f"{source}: line {reader.line_num}"
            if len(row) != len(_COLUMNS):
                raise InputError(f"{place}: {len(row)} cells; a line has layer,width,value.")
            layer, width, amount = row[0], row[1].strip(), counted(row[2].strip(), place)
            if not layer and not width:
                if constant is not None:
                    raise InputError(f"{place}: what no width applies to stands twice; keep one of them.")
                constant = amount
                continue
            _checked_width(width, place)
            if width in values.setdefault(layer, {}):
                raise InputError(f"{place}: layer {quoted(layer)} at {width} stands twice; keep one of them.")
            values[layer][width] = amount
    except csv.Error as fault:
        raise InputError(f"{source}: line {reader.line_num}: no CSV: {fault}.") from None
    if not values:
        raise InputError(f"{source}: no layers; give a line layer,width,value for each layer and width.")
    return CostTable(source, unit_of(unit), values, constant=constant or 0)


def _checked_width(width: str, place: str) -> None:
    try:
        Precision.parse(width)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def unit_of(unit: str) -> str:
    """What is counted, of a unit that a file or a config names."""
    return TIME if unit in (*NANOSECONDS, TIME) else unit


def whole(unit: str, source: str) -> Callable[[Any, str], int]:
    """What turns a value into a whole number: times into nanoseconds, anything else as it is.

    Raises:
        InputError: (when called) it is no number, below 0, too large, or not whole where it has to be.
    """
    scale, rounded = NANOSECONDS.get(unit, 1), unit_of(unit) == TIME

    def counted(value: Any, place: str) -> int:
        try:
            exact = None if isinstance(value, bool) or len(str(value)) > 60 else Decimal(str(value))
        except ArithmeticError:
            exact = None
        if exact is None or not exact.is_finite() or exact < 0:
            raise InputError(f"{place}: the value is a number from 0 (got {quoted(str(value))}).")
        if exact.adjusted() > 30 or exact * scale > LARGEST_COST:
            raise InputError(f"{place}: {quoted(str(value))} {unit} is beyond 2^62; count in a larger unit.")
        if exact != exact.to_integral_value() and not rounded:
            raise InputError(f"{place}: {value} {unit} is not whole; count in a smaller unit.")
        return int((exact * scale).to_integral_value())

    return counted
