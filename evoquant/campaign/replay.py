"""The candidates of a replay: named strategies, changed or not, and random rules drawn from the config's seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evoquant.campaign.config import CampaignConfig, CandidateConfig, ReplayConfig
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals, with_change
from evoquant.genomes.strategies import strategy, strategy_rule
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from evoquant.genomes.base import Genome


@dataclass(frozen=True)
class ReplayCandidate:
    """A replay's candidate: what is evaluated, and what the report says beside its scores."""

    label: str
    genome: Genome
    data: str
    published: dict[str, str]
    reason: str | None


def replay_plan(config: CampaignConfig) -> list[list[ReplayCandidate]]:
    """Every generation's candidates of a replay, random ones drawn from the config's seed."""
    assert isinstance(config.search, ReplayConfig)
    return [
        [
            ReplayCandidate(
                label,
                genome,
                candidate.data,
                candidate.published.model_dump(exclude_none=True) if candidate.published else {},
                candidate.reason,
            )
            for candidate in generation.candidates
            for label, genome in _replay_genomes(config, candidate, number)
        ]
        for number, generation in enumerate(config.search.generations)
    ]


def _replay_genomes(config: CampaignConfig, candidate: CandidateConfig, generation: int) -> list[tuple[str, Genome]]:
    if candidate.random is not None:
        menu = config.resolved_menu
        space = RuleSpace(menu, LAYER_TYPES, default_signals(menu), 3)
        rows = space.canonical(space.sample(generator_for(config.seed, generation, "replay"), candidate.random))
        return [(f"random {i + 1}", space.decode(row)) for i, row in enumerate(rows)]
    assert candidate.strategy is not None
    if candidate.change is None:
        return [(candidate.strategy, strategy(candidate.strategy))]
    change = candidate.change.model_dump(exclude_defaults=True)
    said = ", ".join(f"{key} {'+'.join(value) if isinstance(value, list) else value}" for key, value in change.items())
    return [(f"{candidate.strategy}, {said}", with_change(strategy_rule(candidate.strategy), **change))]
