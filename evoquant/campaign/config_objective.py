"""The `objective` part of the campaign's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, Tag, field_validator, model_serializer, model_validator

from evoquant.campaign.config_base import Closed, tag
from evoquant.campaign.config_own import CodeConfig, HeldConfig
from evoquant.errors import InputError, quoted, suggestion
from evoquant.scoring.quantity import parse_amount

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


class LimitsConfig(Closed):
    """The least of one cost, with retention and other costs within limits."""

    kind: Literal["limits"]
    minimise: str | None = None
    retention: Retention = 0.95
    at_most: Annotated[dict[str, float | str], Field(max_length=32)] = Field(default={})

    @field_validator("at_most", mode="before")
    @classmethod
    def _amounts(cls, value: Any) -> Any:
        for name, most in value.items() if isinstance(value, dict) else ():
            try:
                amount = parse_amount(most)
            except InputError as error:
                raise ValueError(f"{quoted(name)}: {str(error).removesuffix('.')}") from None
            if name == "effective_bits" and amount.dimension:
                raise ValueError(f"effective_bits: {most} is no number of bits per weight; write a number such as 4.5")
        return value

    def check_names(self, costs: Mapping[str, object], *, single: bool) -> None:
        """Check that everything named is counted.

        Args:
            costs: the campaign's, by name.
            single: whether it has a `cost`, which goes by that name.

        Raises:
            ValueError: something is not.
        """
        known = list(dict.fromkeys(["bits", "bytes", *costs, *(["cost"] if single else [])]))
        for key, name in (("minimise", self.minimise), *(("at_most", name) for name in self.at_most)):
            allowed = known if key == "minimise" else [*known, "effective_bits"]
            if name is not None and name not in allowed:
                hint = suggestion(name, allowed)
                if name == "retention":
                    hint = " Retention is wanted at least: objective.retention."
                raise ValueError(
                    f"objective.{key}: nothing is counted under the name {quoted(name)}.{hint} More costs are named "
                    f"under `costs`"
                )


CertifiedConfig = CliffConfig | FeasibleFirstConfig | BudgetConfig | LimitsConfig
"""Objectives of which the optimum can be certified."""
ObjectiveConfig = Annotated[
    Annotated[CliffConfig, Tag("cliff")]
    | Annotated[FeasibleFirstConfig, Tag("feasible_first")]
    | Annotated[BudgetConfig, Tag("budget")]
    | Annotated[LimitsConfig, Tag("limits")]
    | Annotated[CodeConfig, Tag("code")]
    | Annotated[HeldConfig, Tag("memory")],
    tag("cliff", ("cliff", "feasible_first", "budget", "limits")),
]
