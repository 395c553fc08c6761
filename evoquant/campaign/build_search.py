"""From the `search` part of a config to a search: a literal table, kind → class and settings.

A search is imported when a campaign names it: together they, and DEAP, take longer to load than a small campaign runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from evoquant.campaign.config_outside import OutsideConfig
from evoquant.campaign.config_search import IslandsConfig, RandomConfig
from evoquant.errors import ConfigError, InputError, quoted, suggestion
from evoquant.genomes.strategies import strategy_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.config_outside import AnySearch
    from evoquant.campaign.config_search import BuiltInSearch
    from evoquant.genomes.base import Genome, Space
    from evoquant.genomes.schema import DirectSchema, RuleSchema, TreeSchema
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem
    from evoquant.search.base import Search

    Classes: TypeAlias = tuple[Callable[..., Search], Callable[..., Any]]  # the search, and its settings


def _genetic() -> Classes:
    from evoquant.search.genetic import GeneticSearch, GeneticSettings

    return GeneticSearch, GeneticSettings


def _nsga2() -> Classes:
    from evoquant.search.nsga2 import Nsga2Search, Nsga2Settings

    return Nsga2Search, Nsga2Settings


def _cmaes() -> Classes:
    from evoquant.search.cmaes import CmaesSearch, CmaesSettings

    return CmaesSearch, CmaesSettings


def _map_elites() -> Classes:
    from evoquant.search.map_elites import MapElitesSearch, MapElitesSettings

    return MapElitesSearch, MapElitesSettings


def _islands() -> Classes:
    from evoquant.search.islands import IslandSearch, IslandSettings

    return IslandSearch, IslandSettings


def _level_switch() -> Classes:
    from evoquant.search.level_switch import LevelSwitchSearch, LevelSwitchSettings

    return LevelSwitchSearch, LevelSwitchSettings


def _surrogate() -> Classes:
    from evoquant.search.surrogate import SurrogateSearch, SurrogateSettings

    return SurrogateSearch, SurrogateSettings


def _steady_genetic() -> Callable[..., Search]:
    from evoquant.search.steady import SteadyGenetic

    return SteadyGenetic


def _steady_surrogate() -> Callable[..., Search]:
    from evoquant.search.steady_surrogate import SteadySurrogate

    return SteadySurrogate


SEARCHES: dict[str, Callable[[], Classes]] = {
    "genetic": _genetic,
    "nsga2": _nsga2,
    "cmaes": _cmaes,
    "map_elites": _map_elites,
    "islands": _islands,
    "level_switch": _level_switch,
    "surrogate": _surrogate,
}
STEADY: dict[str, Callable[[], Callable[..., Search]]] = {"genetic": _steady_genetic, "surrogate": _steady_surrogate}
MODELLING = ("surrogate",)  # these read the one problem and the objective too


BATCH_KEYS = ("population", "initial", "batch", "offspring")
ARRAYS = 4  # of a generation's genes at a time, at least: parents, children, what is sorted out, what is scored


def require_room(config: BuiltInSearch, genes: int) -> None:
    """Refuse a generation that this machine cannot hold.

    Args:
        config: of the search.
        genes: numbers a candidate.

    Raises:
        ConfigError: it takes more than all memory.
    """
    sizes = config.genetic if isinstance(config, IslandsConfig) else config
    batch = max((getattr(sizes, key, None) or 0 for key in BATCH_KEYS), default=0)
    batch *= config.islands if isinstance(config, IslandsConfig) else 1
    needed, there = 8 * ARRAYS * batch * genes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ConfigError(
            f"search: {batch} candidates of {genes} genes take at least {needed / 1e9:.0f} GB, and this machine has "
            f"{there / 1e9:.0f}; lower the population (or initial, batch, offspring)."
        )


def start_genome(item: str | RuleSchema | TreeSchema | DirectSchema) -> Genome:
    """A genome that a search's `start` names, or holds.

    Raises:
        GenomeError: no strategy is called that, or a tree is malformed.
    """
    if isinstance(item, str):
        return strategy_rule(item)
    if item.kind == "direct":
        return item.to_direct()
    return item.to_rule() if item.kind == "rule" else item.to_tree()


def built_in_search(
    config: AnySearch, space: Space, seed: int, problems: Sequence[Problem], objective: Objective
) -> Search:
    """A search of evoquant's own, or another library's.

    Raises:
        InputError: it cannot search these genomes or so many models, or a start genome is not of the space.
        ConfigError: a generation does not fit into memory.
    """
    if isinstance(config, OutsideConfig):
        from evoquant.campaign.build_outside import outside_search

        return outside_search(config, space, seed, [start_genome(item) for item in config.start])
    require_room(config, len(getattr(space, "genes", ())))
    if isinstance(config, RandomConfig):
        from evoquant.search.random import RandomSearch

        return RandomSearch(space, seed=seed, population=config.population)
    options = config.model_dump(exclude={"kind", "start", "in_flight"})
    started = config
    if isinstance(config, IslandsConfig):
        from evoquant.search.genetic import GeneticSettings

        started = config.genetic
        options["genetic"] = GeneticSettings(**started.model_dump(exclude={"kind", "start", "in_flight"}))
    start = [start_genome(item) for item in getattr(started, "start", ())]
    for genome in start:
        space.encode(genome)
    search, settings = SEARCHES[config.kind]()
    more: dict[str, Any] = {"start": start} if start else {}
    in_flight = getattr(config, "in_flight", None)
    if in_flight is not None:
        search = STEADY[config.kind]()
        more["in_flight"] = in_flight
    if config.kind in MODELLING:
        if len(problems) != 1:
            raise InputError(f"search.kind: {config.kind} models one network's loss; there are {len(problems)} models.")
        more |= {"problem": problems[0], "objective": objective}
    if options.get("objectives"):
        options["objectives"] = tuple(options["objectives"])
        more["references"] = _references(options["objectives"], problems)
    return search(space, seed=seed, settings=settings(**options), **more)


def _references(objectives: Sequence[str], problems: Sequence[Problem]) -> dict[str, NDArray[np.float64]]:
    """Name of an objective → what the models cost in FP32.

    Raises:
        InputError: a model has no such cost.
    """
    found = {}
    for name in objectives:
        if name in ("retention", "bits"):
            continue
        if not all(name in problem.costs for problem in problems):
            known = ["retention", "bits", *(problems[0].costs if problems else ())]
            raise InputError(f"search.objectives: nothing is counted as {quoted(name)}.{suggestion(name, known)}")
        found[name] = np.array([problem.costs[name].reference for problem in problems], dtype=np.float64)
    return found
