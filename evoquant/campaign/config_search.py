"""The `search` part of the campaign's configuration; settings are documented in `evoquant.search.<kind>`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from evoquant.campaign.config_base import Closed
from evoquant.errors import GenomeError, quoted, suggestion
from evoquant.genomes.schema import DirectSchema, RuleSchema, TreeSchema
from evoquant.genomes.strategies import STRATEGIES

Rate = Annotated[float, Field(ge=0, le=1)]
LARGEST_BATCH = 1_000_000
Batch = Annotated[int, Field(ge=2, le=LARGEST_BATCH)]


def known_strategy(name: str) -> None:
    """Check a strategy's name.

    Raises:
        ValueError: unknown; the message says what is near.
    """
    if name not in STRATEGIES:
        raise ValueError(f"no strategy is called {quoted(name)}.{suggestion(name, STRATEGIES)}")


def _known_tree(item: TreeSchema) -> None:
    try:
        item.to_tree()
    except GenomeError as error:
        raise ValueError(str(error)) from None


def _form(value: Any) -> str:
    if not isinstance(value, (dict, RuleSchema, TreeSchema, DirectSchema)):
        return "strategy"
    kind = value.get("kind") if isinstance(value, dict) else value.kind
    return str(kind) if kind in ("direct", "tree") else "rule"


StartGenome = Annotated[
    Annotated[str, Tag("strategy")]
    | Annotated[RuleSchema, Tag("rule")]
    | Annotated[TreeSchema, Tag("tree")]
    | Annotated[DirectSchema, Tag("direct")],
    Discriminator(_form),
]


class Started(Closed):
    """A search whose first generation begins with given genomes: strategies by name, rules, trees or allocations."""

    start: list[StartGenome] = Field(default_factory=list)

    @field_validator("start")
    @classmethod
    def _known(cls, value: list[StartGenome]) -> list[StartGenome]:
        for item in value:
            if isinstance(item, str):
                known_strategy(item)
            elif isinstance(item, TreeSchema):
                _known_tree(item)
        return value

    def _room(self, first: int, key: str) -> None:
        if len(self.start) > first:
            raise ValueError(f"start names {len(self.start)} genomes, the first generation has {first}; raise {key}")


class Steady(Started):
    """A search that also goes without generations.

    With `in_flight` it keeps so many candidates asked and not yet told, and takes them in the order in which they
    arrive: no worker waits for a generation's slowest, and another run of the same config may come out differently.
    """

    in_flight: Annotated[int, Field(ge=1, le=10_000)] | None = None

    @model_serializer(mode="wrap")
    def _plain(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = made(self)
        if self.in_flight is None:  # unknown to configs that go by generations, whose hashes stay
            plain.pop("in_flight", None)
        return plain


class GeneticConfig(Steady):
    """The genetic algorithm."""

    kind: Literal["genetic"] = "genetic"
    population: Batch = 100
    initial: Batch | None = None
    elites: Annotated[int, Field(ge=0, le=10_000)] = 4
    elite_forms: bool = False
    tournament: Annotated[int, Field(ge=1, le=1000)] = 3
    crossover_rate: Rate = 0.7
    mutation_rate: Rate = 0.1
    immigrant_rate: Rate = 0.05
    tune_rate: Rate = 0.0
    parsimony: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.elites >= self.population:
            raise ValueError(f"elites ({self.elites}) must be fewer than population ({self.population})")
        self._room(self.initial or self.population, "initial")
        return self


class RandomConfig(Closed):
    """Random search."""

    kind: Literal["random"]
    population: Annotated[int, Field(ge=1, le=1_000_000)] = 100


class Nsga2Config(Started):
    """NSGA-II over retention and effective bits, or the costs that it names."""

    kind: Literal["nsga2"]
    population: Annotated[int, Field(ge=2, le=10_000)] = 100
    crossover_rate: Rate = 0.9
    mutation_rate: Rate = 0.05
    immigrant_rate: Rate = 0.0
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    archive: Annotated[int, Field(ge=2, le=100_000)] = 1000
    objectives: Annotated[list[str], Field(min_length=2, max_length=3)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._room(self.population, "population")
        named = self.objectives or ["retention"]
        if "retention" not in named or len(set(named)) < len(named):
            raise ValueError(f"objectives: retention and one or two costs, each once (got {', '.join(named)})")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = made(self)
        if self.objectives is None:  # unknown to configs of retention and size, whose hashes stay
            plain.pop("objectives", None)
        return plain


class CmaesConfig(Closed):
    """CMA-ES with margin on numeric genes."""

    kind: Literal["cmaes"]
    population: Annotated[int, Field(ge=3, le=10_000)] | None = None
    sigma: Annotated[float, Field(gt=0, le=1)] = 0.3
    growth: Annotated[float, Field(ge=1, le=4)] = 2.0


class MapElitesConfig(Started):
    """MAP-Elites over compression and complexity."""

    kind: Literal["map_elites"]
    batch: Batch = 100
    initial: Batch | None = None
    bins: Annotated[int, Field(ge=1, le=1000)] = 16
    compression: tuple[Annotated[float, Field(gt=0, le=1000)], Annotated[float, Field(gt=0, le=1000)]] = (1.0, 16.0)
    parts: Annotated[int, Field(ge=0, le=1000)] = 16
    crossover_rate: Rate = 0.5
    mutation_rate: Rate = 0.1
    immigrant_rate: Rate = 0.05

    @model_validator(mode="after")
    def _fits(self) -> Self:
        least, most = self.compression
        if least >= most:
            raise ValueError(f"compression goes from {least:g} to {most:g}; give the lower limit first")
        self._room(self.initial or self.batch, "initial")
        return self


class IslandsConfig(Closed):
    """Genetic searches side by side, with migration in a ring; `genetic` is each island's, its start included."""

    kind: Literal["islands"]
    islands: Annotated[int, Field(ge=2, le=1000)] = 4
    every: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    migrants: Annotated[int, Field(ge=1, le=10_000)] = 2
    genetic: GeneticConfig = GeneticConfig(population=25, elites=2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.migrants >= self.genetic.population:
            raise ValueError(
                f"migrants ({self.migrants}) must be fewer than an island's population ({self.genetic.population})"
            )
        if self.genetic.in_flight is not None:
            raise ValueError("genetic.in_flight: islands meet after whole generations; leave it out")
        largest = max(self.genetic.population, self.genetic.initial or 0)
        if self.islands * largest > LARGEST_BATCH:
            raise ValueError(f"{self.islands} islands of {largest} are more than {LARGEST_BATCH} candidates at a time")
        return self


class LevelSwitchConfig(Started):
    """(1 + λ) evolution of a direct allocation by level switches."""

    kind: Literal["level_switch"]
    offspring: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    initial: Batch = 32
    moves: Annotated[int, Field(ge=1, le=1000)] = 3
    step_rate: Rate = 0.3


class SurrogateConfig(Steady):
    """Few measurements, each where a model of the measured loss expects the largest improvement."""

    kind: Literal["surrogate"]
    batch: Annotated[int, Field(ge=1, le=1000)] = 2
    population: Annotated[int, Field(ge=2, le=10_000)] = 64
    rounds: Annotated[int, Field(ge=1, le=1000)] = 20


BuiltInSearch = (
    Annotated[GeneticConfig, Tag("genetic")]
    | Annotated[RandomConfig, Tag("random")]
    | Annotated[Nsga2Config, Tag("nsga2")]
    | Annotated[CmaesConfig, Tag("cmaes")]
    | Annotated[MapElitesConfig, Tag("map_elites")]
    | Annotated[IslandsConfig, Tag("islands")]
    | Annotated[LevelSwitchConfig, Tag("level_switch")]
    | Annotated[SurrogateConfig, Tag("surrogate")]
)
BUILT_IN = ("genetic", "random", "nsga2", "cmaes", "map_elites", "islands", "level_switch", "surrogate")
