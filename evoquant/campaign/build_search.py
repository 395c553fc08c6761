"""From the `search` part of a config to a search: a literal table, kind → class and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_search import IslandsConfig, RandomConfig
from evoquant.errors import InputError
from evoquant.genomes.strategies import strategy_rule
from evoquant.search.cmaes import CmaesSearch, CmaesSettings
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.islands import IslandSearch, IslandSettings
from evoquant.search.level_switch import LevelSwitchSearch, LevelSwitchSettings
from evoquant.search.map_elites import MapElitesSearch, MapElitesSettings
from evoquant.search.nsga2 import Nsga2Search, Nsga2Settings
from evoquant.search.random import RandomSearch
from evoquant.search.steady import SteadyGenetic
from evoquant.search.steady_surrogate import SteadySurrogate
from evoquant.search.surrogate import SurrogateSearch, SurrogateSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evoquant.campaign.config_search import BuiltInSearch
    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem
    from evoquant.search.base import Search

SEARCHES: dict[str, tuple[Callable[..., Search], Callable[..., Any]]] = {
    "genetic": (GeneticSearch, GeneticSettings),
    "nsga2": (Nsga2Search, Nsga2Settings),
    "cmaes": (CmaesSearch, CmaesSettings),
    "map_elites": (MapElitesSearch, MapElitesSettings),
    "islands": (IslandSearch, IslandSettings),
    "level_switch": (LevelSwitchSearch, LevelSwitchSettings),
    "surrogate": (SurrogateSearch, SurrogateSettings),
}
STEADY: dict[str, Callable[..., Search]] = {"genetic": SteadyGenetic, "surrogate": SteadySurrogate}
MODELLING = ("surrogate",)  # these read the one problem and the objective too


def built_in_search(
    config: BuiltInSearch, space: Space, seed: int, problems: Sequence[Problem], objective: Objective
) -> Search:
    """A search of evoquant's own.

    Raises:
        InputError: it cannot search these genomes or so many models, or a start genome is not of the space.
    """
    if isinstance(config, RandomConfig):
        return RandomSearch(space, seed=seed, population=config.population)
    options = config.model_dump(exclude={"kind", "start", "in_flight"})
    started = config
    if isinstance(config, IslandsConfig):
        started = config.genetic
        options["genetic"] = GeneticSettings(**started.model_dump(exclude={"kind", "start", "in_flight"}))
    start: list[Genome] = [
        strategy_rule(item) if isinstance(item, str) else item.to_rule() for item in getattr(started, "start", ())
    ]
    for genome in start:
        space.encode(genome)
    search, settings = SEARCHES[config.kind]
    more: dict[str, Any] = {"start": start} if start else {}
    in_flight = getattr(config, "in_flight", None)
    if in_flight is not None:
        search = STEADY[config.kind]
        more["in_flight"] = in_flight
    if config.kind in MODELLING:
        if len(problems) != 1:
            raise InputError(f"search.kind: {config.kind} models one network's loss; there are {len(problems)} models.")
        more |= {"problem": problems[0], "objective": objective}
    return search(space, seed=seed, settings=settings(**options), **more)
