"""What a genome's plain data may hold, checked at the boundary."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from evoquant.errors import PrecisionError, quoted
from evoquant.genomes.expression import MAX_NODES
from evoquant.genomes.rule import Rule, Rung
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from evoquant.genomes.direct import Direct
    from evoquant.genomes.tree import Tree


def _precision(name: str) -> str:
    try:
        return Precision.parse(name).name
    except PrecisionError as error:
        raise ValueError(str(error)) from None


Width = Annotated[str, AfterValidator(_precision)]
Name = Annotated[str, Field(min_length=1, max_length=500)]
MAX_UNITS = 1_000_000


def _widths(value: dict[str, str]) -> dict[str, str]:
    """Each a precision; only the first that is none is named: there may be a million."""
    known: dict[str, str] = {}
    for unit, width in value.items():
        if not 0 < len(unit) <= 500:
            raise ValueError(f"the unit's name {quoted(unit, 60)} has {len(unit)} characters, not 1 to 500")
        if width not in known:
            try:
                known[width] = _precision(width)
            except ValueError as error:
                raise ValueError(f"{quoted(unit)}: {error}") from None
    return {unit: known[width] for unit, width in value.items()}


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("should not be true or false; give a value")  # which Python would take for 1 or 0
        return value


class RungSchema(_Closed):
    """One rung."""

    signal: Annotated[str, Field(pattern=r"^[a-z_]+(:[A-Z0-9a-z-]+)?$", max_length=60)]
    above: Annotated[float, Field(allow_inf_nan=False)]
    width: Width


class ProtectedSchema(_Closed):
    """Protected layer types."""

    types: Annotated[list[Name], Field(min_length=1, max_length=200)]
    width: Width


class EdgesSchema(_Closed):
    """The first and the last fraction of the layers."""

    fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    width: Width


class RuleSchema(_Closed):
    """A rule."""

    kind: Literal["rule"] = "rule"
    protected: ProtectedSchema | None = None
    edges: EdgesSchema | None = None
    rungs: Annotated[list[RungSchema], Field(max_length=64)] = Field(default_factory=list)
    otherwise: Width

    def to_rule(self) -> Rule:
        """The genome."""
        return Rule(
            otherwise=self.otherwise,
            rungs=tuple(Rung(r.signal, r.above, r.width) for r in self.rungs),
            edges=self.edges.fraction if self.edges else 0.0,
            edge_width=self.edges.width if self.edges else None,
            protected=frozenset(self.protected.types) if self.protected else frozenset(),
            protected_width=self.protected.width if self.protected else None,
        )


def _token(value: Any) -> str | float:
    if isinstance(value, str) and len(value) <= 500:
        return value
    # Compared and not converted: an integer of hundreds of digits has no float.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise ValueError("a node is the name of an operator or signal, or a finite number")


class TreeSchema(_Closed):
    """A tree: operators, signals and constants in prefix order."""

    kind: Literal["tree"] = "tree"
    expression: Annotated[
        list[Annotated[str | float, BeforeValidator(_token)]], Field(min_length=1, max_length=MAX_NODES)
    ]

    def to_tree(self) -> Tree:
        """The genome.

        Raises:
            GenomeError: incomplete, wrongly typed, too deep, or an unknown name; the message names the position.
        """
        from evoquant.genomes.tree import Tree

        return Tree(tuple(self.expression))


class DirectSchema(_Closed):
    """A direct allocation of one model."""

    kind: Literal["direct"]
    model: Name
    widths: Annotated[dict[str, str], Field(min_length=1, max_length=MAX_UNITS), AfterValidator(_widths)]

    def to_direct(self) -> Direct:
        """The genome."""
        from evoquant.genomes.direct import Direct

        return Direct(self.model, tuple(self.widths.items()))
