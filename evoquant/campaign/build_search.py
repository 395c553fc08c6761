"""From the `search` part of a config to a search: a literal table, kind → class and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_search import IslandsConfig, RandomConfig
from evoquant.genomes.strategies import strategy_rule
from evoquant.search.cmaes import CmaesSearch, CmaesSettings
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.islands import IslandSearch, IslandSettings
from evoquant.search.level_switch import LevelSwitchSearch, LevelSwitchSettings
from evoquant.search.map_elites import MapElitesSearch, MapElitesSettings
from evoquant.search.nsga2 import Nsga2Search, Nsga2Settings
from evoquant.search.random import RandomSearch

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.campaign.config_search import BuiltInSearch
    from evoquant.genomes.base import Genome, Space
    from evoquant.search.base import Search

SEARCHES: dict[str, tuple[Callable[..., Search], Callable[..., Any]]] = {
    "genetic": (GeneticSearch, GeneticSettings),
    "nsga2": (Nsga2Search, Nsga2Settings),
    "cmaes": (CmaesSearch, CmaesSettings),
    "map_elites": (MapElitesSearch, MapElitesSettings),
    "islands": (IslandSearch, IslandSettings),
    "level_switch": (LevelSwitchSearch, LevelSwitchSettings),
}


def built_in_search(config: BuiltInSearch, space: Space, seed: int) -> Search:
    """A search of evoquant's own.

    Raises:
        InputError: it cannot search these genomes, or a start genome is not of the space.
    """
    if isinstance(config, RandomConfig):
        return RandomSearch(space, seed=seed, population=config.population)
    options = config.model_dump(exclude={"kind", "start"})
    started = config
    if isinstance(config, IslandsConfig):
        started = config.genetic
        options["genetic"] = GeneticSettings(**started.model_dump(exclude={"kind", "start"}))
    start: list[Genome] = [
        strategy_rule(item) if isinstance(item, str) else item.to_rule() for item in getattr(started, "start", ())
    ]
    for genome in start:
        space.encode(genome)
    search, settings = SEARCHES[config.kind]
    begin = {"start": start} if start else {}
    return search(space, seed=seed, settings=settings(**options), **begin)
