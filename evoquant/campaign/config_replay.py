"""The `search` part of the campaign's configuration where it is a replay: a fixed list of candidates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from evoquant.campaign.config_base import Closed
from evoquant.campaign.config_search import known_strategy
from evoquant.errors import quoted, suggestion


class PublishedConfig(Closed):
    """Figures as printed in the published tables, with their digits: '0.0935', '93.5%', '2.43x'."""

    fitness: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    retention: Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")] | None = None
    compression: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None


class ChangeConfig(Closed):
    """A change to a rule strategy."""

    edges: Annotated[float, Field(ge=0, le=1)] | None = None
    edge_width: str | None = None
    threshold: float | None = None
    protect: list[str] = Field(default_factory=list)
    unprotect: list[str] = Field(default_factory=list)


class CandidateConfig(Closed):
    """One candidate of a replay: a strategy, changed or not, or so many random rules."""

    strategy: str | None = None
    change: ChangeConfig | None = None
    random: Annotated[int, Field(ge=1, le=10_000)] | None = None
    data: str
    published: PublishedConfig | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> CandidateConfig:
        if (self.strategy is None) == (self.random is None):
            raise ValueError("a candidate has either `strategy` or `random`")
        if self.strategy is not None:
            known_strategy(self.strategy)
        return self


class GenerationConfig(Closed):
    """One generation of a replay; `afterwards` ones are compared with the champion and do not replace it."""

    generation: str
    candidates: Annotated[list[CandidateConfig], Field(min_length=1)]
    afterwards: bool = False


class ReplayConfig(Closed):
    """A fixed list of candidates; `data` names the models that they are judged on."""

    kind: Literal["replay"]
    data: Annotated[dict[str, str], Field(min_length=1)]
    generations: Annotated[list[GenerationConfig], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_data(self) -> ReplayConfig:
        for generation in self.generations:
            for candidate in generation.candidates:
                if candidate.data not in self.data:
                    raise ValueError(
                        f"data {quoted(candidate.data)} is not defined.{suggestion(candidate.data, self.data)}"
                    )
        return self
