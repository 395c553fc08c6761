"""The `objective` part of the campaign's configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from evoquant.campaign.config_base import Closed, tag
from evoquant.campaign.config_own import CodeConfig, HeldConfig

Retention = Annotated[float, Field(gt=0, lt=1)]


class CliffConfig(Closed):
    """The published objective."""

    kind: Literal["cliff"] = "cliff"
    threshold: Retention = 0.95


class FeasibleFirstConfig(Closed):
    """Compression among what keeps the floor."""

    kind: Literal["feasible_first"]
    floor: Retention = 0.95


class BudgetConfig(Closed):
    """Retention within a size: effective bits per weight, or of one model megabytes (10^6 bytes) or its own cost."""

    kind: Literal["budget"]
    effective_bits: Annotated[float, Field(gt=0, le=64)] | None = None
    megabytes: Annotated[float, Field(gt=0, le=1e9)] | None = None
    cost: Annotated[int, Field(ge=1, le=2**62)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> BudgetConfig:
        if sum(limit is not None for limit in (self.effective_bits, self.megabytes, self.cost)) != 1:
            raise ValueError(
                "a budget has either `effective_bits` or `megabytes`, or `cost` where the campaign has its own"
            )
        return self

    @model_serializer(mode="wrap")
    def _plain(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = made(self)
        if self.cost is None:  # unknown to configs that count bits, whose hashes stay
            plain.pop("cost", None)
        return plain


CertifiedConfig = CliffConfig | FeasibleFirstConfig | BudgetConfig
"""Objectives of which the optimum can be certified."""
ObjectiveConfig = Annotated[
    Annotated[CliffConfig, Tag("cliff")]
    | Annotated[FeasibleFirstConfig, Tag("feasible_first")]
    | Annotated[BudgetConfig, Tag("budget")]
    | Annotated[CodeConfig, Tag("code")]
    | Annotated[HeldConfig, Tag("memory")],
    tag("cliff", ("cliff", "feasible_first", "budget")),
]
