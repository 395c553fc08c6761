"""Parts of a campaign that come from outside: somebody's own class by name, or an object that a program holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, Tag

from evoquant.campaign.config_base import CODE, Closed, tag
from evoquant.errors import quoted, suggestion


class CodeConfig(Closed):
    """An own class, named as `module:Class`, with its keyword arguments."""

    kind: Annotated[str, Field(pattern=CODE.pattern)]
    options: dict[str, JsonValue] = Field(default_factory=dict)


class HeldConfig(Closed):
    """An object in the memory of a Python program; `evoquant.run` and `optimize` write it.

    `what` is the name of its class, `code` a digest of that and of what the object holds.
    """

    kind: Literal["memory"]
    what: Annotated[str, Field(min_length=1, max_length=500)]
    code: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


OwnPart = Annotated[Annotated[CodeConfig, Tag("code")] | Annotated[HeldConfig, Tag("memory")], tag("", ())]
OWN = (CodeConfig, HeldConfig)
PARTS = ("objective", "genome", "search", "cost", "estimator")  # keys of a config that take one


EXECUTORS = ("auto", "local", "ray")


def known_executor(kind: str) -> str:
    """Check the name of an executor: one of `EXECUTORS`, or `module:Class`.

    Raises:
        ValueError: it is neither; the message says what is near.
    """
    if kind not in EXECUTORS and not CODE.fullmatch(kind):
        close = suggestion(kind, EXECUTORS)
        raise ValueError(f"no executor is called {quoted(kind)}.{close} Or name your own class as module:Class")
    return kind


def own_code(*parts: object) -> set[str]:
    """Every `module:Class` among parts of a config."""
    return {part.kind for part in parts if isinstance(part, CodeConfig)}
