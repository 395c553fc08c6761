"""The `search` part where it is another library's: names, options; documented in `evoquant.search.<kind>_search`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, Tag, field_validator

from evoquant.campaign.config_base import CODE
from evoquant.campaign.config_search import BUILT_IN, BuiltInSearch, Started
from evoquant.errors import quoted

NAME = rf"^([A-Za-z_]\w*|{CODE.pattern})$"
Name = Annotated[str, Field(pattern=NAME, max_length=200)]
PLAIN = re.compile(r"[\w./+-]{1,64}")
MOST_CANDIDATES = 10_000  # a generation
SIZES = ("pop_size", "n_offsprings", "population_size", "popsize", "batch_size")


class OutsideConfig(Started):
    """A search of another library, by the name of a class in it or as `module:Class`, with its keyword arguments."""

    kind: str
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _harmless(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for text in _texts(value):
            if not PLAIN.fullmatch(text):  # pymoo hands some to the package cma, which would evaluate an expression
                raise ValueError(f"{quoted(text, 64)} is no plain word; letters, digits, '.', '/', '+' and '-' alone")
        for key in SIZES:
            size = value.get(key)
            if isinstance(size, (int, float)) and not 1 <= size <= MOST_CANDIDATES:
                raise ValueError(f"{key} lies between 1 and {MOST_CANDIDATES}")
        return value

    @property
    def chosen(self) -> tuple[str, str]:
        """The key that names a class, and the name."""
        key = next(key for key in ("algorithm", "sampler", "emitter") if key in type(self).model_fields)
        return key, getattr(self, key)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the search reads beside the fitness."""
        return ()


class PymooConfig(OutsideConfig):
    """An algorithm of pymoo."""

    kind: Literal["pymoo"]
    algorithm: Name = "GA"
    front: bool = False
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """A front's two values."""
        from evoquant.search.outside_names import FRONTS

        return ("retention", "effective_bits") if self.front or self.algorithm in FRONTS else ()


class OptunaConfig(OutsideConfig):
    """A sampler of Optuna."""

    kind: Literal["optuna"]
    sampler: Name = "TPESampler"
    batch: Annotated[int, Field(ge=1, le=1000)] = 1


class PyribsConfig(OutsideConfig):
    """Emitters of pyribs with an archive."""

    kind: Literal["pyribs"]
    emitter: Name = "EvolutionStrategyEmitter"
    emitters: Annotated[int, Field(ge=1, le=100)] = 4
    batch: Annotated[int, Field(ge=2, le=10_000)] = 25
    bins: Annotated[int, Field(ge=1, le=1000)] = 16
    compression: tuple[Annotated[float, Field(gt=0, le=1000)], Annotated[float, Field(gt=0, le=1000)]] = (1.0, 16.0)
    parts: Annotated[int, Field(ge=0, le=1000)] = 16

    @property
    def needs(self) -> tuple[str, ...]:
        """What places a candidate in the archive, beside its parts."""
        return ("compression",)


AnySearch = (
    BuiltInSearch
    | Annotated[PymooConfig, Tag("pymoo")]
    | Annotated[OptunaConfig, Tag("optuna")]
    | Annotated[PyribsConfig, Tag("pyribs")]
)
SEARCH_KINDS = (*BUILT_IN, "pymoo", "optuna", "pyribs")


def _texts(value: Any) -> list[str]:
    """Every text in plain data, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *_texts(item))]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
