"""What a profile's JSON file may hold: types and limits, checked at the boundary."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, field_validator, model_validator

from evoquant.errors import PrecisionError
from evoquant.quantization.precision import Precision

# Strict: `true` and "2" are no numbers.
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, le=2**53, strict=True)]
MAX_WIDTHS = 1000  # of a layer: more than there are precisions that anyone compares


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a name has printable characters only")
    return text


Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
Sensitivity = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False, strict=True)]


class LayerSchema(BaseModel):
    """One layer; see `LayerProfile` for the meaning of each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    type: Name
    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    position: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
    channel_axis: Annotated[int, Field(strict=True)] | None = 0
    weight_mean: Finite = 0.0
    weight_std: NotNegative = 0.0
    weight_range: NotNegative = 0.0
    activation_range: NotNegative = 0.0
    gradient_sensitivity: NotNegative = 0.0
    loss: Annotated[dict[str, Sensitivity], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    divergence: Annotated[dict[str, NotNegative], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    fisher: Annotated[dict[str, NotNegative], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    hessian: Annotated[dict[str, NotNegative], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    weight_error: Annotated[dict[str, NotNegative], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    expected_loss: Annotated[dict[str, NotNegative], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    allowed: Annotated[tuple[str, ...], Field(max_length=MAX_WIDTHS)] | None = None
    tie_group: Name | None = None
    fan_in: Count | None = None
    groups: Count = 1
    holders: Count = 1
    called: Annotated[bool, Field(strict=True)] = True
    macs: Annotated[int, Field(ge=0, le=2**53, strict=True)] | None = None

    @field_validator("loss", "divergence", "fisher", "hessian", "weight_error", "expected_loss", "allowed")
    @classmethod
    def _known_precisions(cls, value: Any) -> Any:
        for name in value or ():
            try:
                Precision.parse(name)
            except PrecisionError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> LayerSchema:
        if math.prod(self.shape) > 2**53:
            raise ValueError(f"layer {self.name!r} has more than 2^53 weights")
        if self.channel_axis is not None and not 0 <= self.channel_axis < len(self.shape):
            raise ValueError(
                f"layer {self.name!r}: channel_axis {self.channel_axis} is no axis of a shape of {len(self.shape)} "
                "axes; count from 0, or use null for a tensor that is one slice"
            )
        return self


class ProfileSchema(BaseModel):
    """A whole profile file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: Literal["evoquant.profile"] = Field(alias="schema")
    version: Literal[1]
    name: Name
    constant_bits: Annotated[int, Field(ge=0, le=2**60, strict=True)] = 0
    passes: Annotated[dict[str, NotNegative], Field(max_length=MAX_WIDTHS)] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    # Of a million faulty layers the first one's faults are said: all of them would take gigabytes.
    layers: Annotated[tuple[LayerSchema, ...], FailFast(), Field(min_length=1, max_length=1_000_000)]
