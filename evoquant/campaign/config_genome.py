"""The `genome` part of the campaign's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator

from evoquant.campaign.config_base import Closed, tag
from evoquant.campaign.config_own import CodeConfig, HeldConfig
from evoquant.errors import quoted, suggestion
from evoquant.genomes.expression import ALL_SIGNALS, MAX_DEPTH, MAX_NODES, OPERATOR


class RuleSpaceConfig(Closed):
    """Rules; null lists are filled in from the train models and the menu."""

    kind: Literal["rule"] = "rule"
    types: list[str] | None = None
    signals: list[str] | None = None
    rungs: Annotated[int, Field(ge=0, le=16)] = 3


class TreeSpaceConfig(Closed):
    """Trees; null lists are filled in from the train models."""

    kind: Literal["tree"]
    types: list[str] | None = None
    signals: Annotated[list[str], Field(min_length=1)] | None = None
    operators: Annotated[list[str], Field(min_length=1)] | None = None
    max_nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] = 31
    max_depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 8

    @field_validator("signals")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if name not in ALL_SIGNALS:
                raise ValueError(f"trees have no signal {quoted(name)}.{suggestion(name, ALL_SIGNALS)}")
        return value

    @field_validator("operators")
    @classmethod
    def _known_operators(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if name not in OPERATOR:
                raise ValueError(f"trees have no operator {quoted(name)}.{suggestion(name, OPERATOR)}")
        return value


class DirectSpaceConfig(Closed):
    """One width per unit of the one model."""

    kind: Literal["direct"]


GenomeConfig = Annotated[
    Annotated[RuleSpaceConfig, Tag("rule")]
    | Annotated[TreeSpaceConfig, Tag("tree")]
    | Annotated[DirectSpaceConfig, Tag("direct")]
    | Annotated[CodeConfig, Tag("code")]
    | Annotated[HeldConfig, Tag("memory")],
    tag("rule", ("rule", "tree", "direct")),
]
