"""What a cost table's JSON file may hold: types and limits, checked at the boundary."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from evoquant.errors import InputError, PrecisionError, describe_validation, quoted
from evoquant.quantization.precision import Precision
from evoquant.scoring.cost_file import CostTable, unit_of, whole


def _a_width(name: str) -> str:
    try:
        Precision.parse(name)
    except PrecisionError as error:
        raise ValueError(str(error)) from None
    return name


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | Annotated[int, Field(ge=0, strict=True)]
Width = Annotated[str, AfterValidator(_a_width)]
Amounts = Annotated[dict[Width, Amount], Field(max_length=1000)]
Name = Annotated[str, Field(min_length=1, max_length=500)]


class TableLayer(BaseModel):
    """A layer: what it costs at each width; `spread` is the interquartile range of what was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=2**53, strict=True)], ...], Field(max_length=8)] | None = None
    values: Annotated[Amounts, Field(min_length=1)]
    spread: Amounts = Field(default={})
    kernels: dict[Width, str] = Field(default={})


class CostTableSchema(BaseModel):
    """A whole table; what `measured` holds is for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: Literal["evoquant.cost_table"] = Field(alias="schema")
    version: Literal[1]
    unit: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z _-]{0,39}$")] = "ns"
    model: Name | None = None
    target: Name | None = None
    constant: Amount = 0
    noise: Amount | None = None
    span: Amount | None = None
    layers: Annotated[tuple[TableLayer, ...], Field(min_length=1, max_length=1_000_000)]
    measured: dict[str, Any] = Field(default={})


def table_from_dict(data: Any, source: str, unit: str | None = None) -> CostTable:
    """A table from its JSON form as plain data.

    Raises:
        InputError: it is none; the message begins with `source`.
    """
    try:
        checked = CostTableSchema.model_validate(data)
    except ValidationError as error:
        keys = {*CostTableSchema.model_fields, *TableLayer.model_fields}
        raise InputError(describe_validation(error, source, keys, data)) from None
    if unit is not None and unit_of(unit) != unit_of(checked.unit):
        raise InputError(f"{source}: its values are in {checked.unit}, not in {unit}; leave the config's `unit` out.")
    counted = whole(checked.unit, source)
    values: dict[str, dict[str, int]] = {}
    for layer in checked.layers:
        if layer.name in values:
            raise InputError(f"{source}: two layers are called {quoted(layer.name)}; names are unique.")
        place = f"{source}: layer {quoted(layer.name)}"
        values[layer.name] = {width: counted(value, f"{place}: {width}") for width, value in layer.values.items()}
    noise = checked.noise
    if noise is None and any(layer.spread for layer in checked.layers):  # independent, so their squares add up
        noise = math.sqrt(sum(max(layer.spread.values(), default=0) ** 2 for layer in checked.layers))
    rounded = noise if unit_of(checked.unit) != checked.unit else None if noise is None else round(noise)
    return CostTable(
        source,
        unit_of(checked.unit),
        values,
        {layer.name: layer.shape for layer in checked.layers if layer.shape is not None},
        counted(checked.constant, f"{source}: constant"),
        None if rounded is None else counted(rounded, f"{source}: noise"),
        None if checked.span is None else counted(checked.span, f"{source}: span"),
        checked.target,
    )
