"""The form of recipe.json, and what its parts say of themselves."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from evoquant.quantization.precision import Precision


class _Closed(BaseModel):
    # Fields may be called model_…, of which pydantic below 2.10 warns.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class RecipeLayer(_Closed):
    """A layer of a recipe; the facts are those of `LayerProfile`."""

    name: Annotated[str, Field(min_length=1, max_length=500)]
    type: Annotated[str, Field(min_length=1, max_length=100)]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=2**53)], ...], Field(min_length=1, max_length=8)]
    channel_axis: int | None
    groups: Annotated[int, Field(ge=1)]
    holders: Annotated[int, Field(ge=1)] = 1
    called: bool = True
    tie_group: str | None
    precision: str
    granularity: str
    effective_bits: float

    @model_validator(mode="after")
    def _countable(self) -> RecipeLayer:
        if self.parameters > 2**53:
            raise ValueError("has more than 2^53 weights")
        return self

    @property
    def parameters(self) -> int:
        """Weights."""
        return math.prod(self.shape)

    @property
    def width(self) -> Precision:
        """The precision, parsed."""
        return Precision.parse(self.precision)


class Figures(_Closed):
    """What was measured on one split; see a champion's scores."""

    fitness: float | None = None
    retention: float | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    probability: float | None = None
    samples: Annotated[int, Field(ge=0)] | None = None


class Promise(_Closed):
    """What the recipe says of itself: size of all float tensors, scales counted, and what was measured.

    Attributes:
        bits: of the layers and of what no width applies to.
        effective_bits: of the layers, per weight.
        compression: size of the FP32 model over this one's.
        scores: split → figures.
    """

    bits: Annotated[int, Field(ge=0, le=2**62)]
    effective_bits: float
    compression: float
    scores: dict[str, Figures]

    @property
    def bytes(self) -> float:
        """Of all float tensors."""
        return self.bits / 8


class RecipeFile(_Closed):
    """recipe.json."""

    schema_name: Literal["evoquant.recipe"] = Field(alias="schema")
    version: Literal[1]
    model: str
    model_digest: str
    quantizer: str
    rounding: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    constant_bits: Annotated[int, Field(ge=0, le=2**60)]
    tensors_sha256: str
    promise: Promise
    layers: Annotated[tuple[RecipeLayer, ...], FailFast(), Field(min_length=1, max_length=1_000_000)]
    provenance: dict[str, Any]
