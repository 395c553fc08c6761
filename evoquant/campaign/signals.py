"""Which signals a campaign on a real network measures, and which its genomes read where the config names none.

A measured loss costs one pass for each unit and width, so it is taken only where something named reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.campaign.config_genome import DirectSpaceConfig, RuleSpaceConfig, TreeSpaceConfig
from evoquant.campaign.config_measured import OnnxTaskConfig
from evoquant.errors import ProfileError
from evoquant.genomes.expression import ALL_SIGNALS, signals_of
from evoquant.genomes.rule import Rule, default_signals
from evoquant.genomes.strategies import STRATEGIES
from evoquant.genomes.tree import Tree
from evoquant.genomes.tree_numpy import has_signal
from evoquant.models.base import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evoquant.campaign.config import CampaignConfig
    from evoquant.genomes.base import Genome
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.problem import Problem

TREE_SIGNALS = ("loss", "bits", "share", "gradient_sensitivity", "position", "units", "model_loss")
STATISTICS = ("parameters", "weight_std", "weight_range")
PER_WIDTH = ("fisher", "fisher_per_bit", "divergence", "divergence_per_bit", "weight_error")
TREE_CHEAP = ("fisher", "divergence", "weight_error")
_READS = {"model_loss": "loss", "total_loss": "loss", "expected_loss": "fisher"}  # made of these


def profile_signals(config: CampaignConfig) -> tuple[str, ...]:
    """What the profile of the config's task has to hold: named there, else what genome and search read."""
    if config.signals is not None:
        return tuple(name for name in SIGNALS if name in config.signals)
    read = set(_cheap(config))
    if isinstance(config.genome, (RuleSpaceConfig, TreeSpaceConfig)) and config.genome.signals is not None:
        read = set(_cheap(config)[:1]) | _kinds(config.genome.signals)
    read |= _kinds(_read_by_start(config))
    return tuple(name for name in SIGNALS if name in read)


def signals_read(genome: Genome) -> tuple[str, ...]:
    """What a profile has to hold for a genome to be applied."""
    return tuple(name for name in SIGNALS if name in _kinds(_names_read(genome)))


def _names_read(genome: Genome) -> list[str]:
    """As rungs and trees write them."""
    if isinstance(genome, Rule):
        return [rung.signal for rung in genome.rungs]
    return list(signals_of(genome.expression)) if isinstance(genome, Tree) else []


def rule_signals(config: CampaignConfig, problems: tuple[Problem, ...]) -> list[str]:
    """What rules read: as the config says, else what the published ones do, or on a real network what is cheap."""
    assert isinstance(config.genome, RuleSpaceConfig)
    if config.genome.signals is not None:
        return config.genome.signals
    menu = config.resolved_menu
    if config.task is None:
        return default_signals(menu)
    scalars = [name for name in ("gradient_sensitivity", "activation_range") if name in profile_signals(config)]
    widths = [f"{kind}:{width}" for kind in PER_WIDTH for width in narrow_widths(menu)]
    names = dict.fromkeys([*scalars, *STATISTICS, *widths, *_read_by_start(config)])
    return [name for name in names if all(has_rule_signal(problem, name) for problem in problems)]


def tree_signals(config: CampaignConfig, problems: tuple[Problem, ...]) -> list[str]:
    """What trees read: as the config says, else the usual and what every model knows at no cost of its own."""
    assert isinstance(config.genome, TreeSpaceConfig)
    if config.genome.signals is not None:
        return config.genome.signals
    usual = list(TREE_SIGNALS)
    if config.task is not None:
        usual = [name for name in usual if _kinds([name]) <= set(profile_signals(config))]
    cheap = ("fisher",) if config.task is None else TREE_CHEAP
    also = dict.fromkeys([*cheap, *(name for name in _read_by_start(config) if name in ALL_SIGNALS)])
    return [*usual, *(n for n in also if n not in usual and all(has_signal(problem, n) for problem in problems))]


def _cheap(config: CampaignConfig) -> tuple[str, ...]:
    """One table over all units and widths first: searches, the gate and most genomes read it.

    Ranges of activations come free with the Fisher costs. Gradient sensitivity would take as many passes again, and
    ranked nothing where it was compared; it is measured where something names it.
    """
    if isinstance(config.task, OnnxTaskConfig) or getattr(config.task, "runtime", None) == "onnx":
        return ("divergence",)
    return ("fisher",) if isinstance(config.genome, DirectSpaceConfig) else ("fisher", "activation_range")


def narrow_widths(menu: Menu) -> list[str]:
    """Names of the precisions that a loss can be of: all but FP32."""
    return [precision.name for precision in menu if precision.format != "FP32"]


def _kinds(names: Iterable[str]) -> set[str]:
    """Signals of a profile that these names of rules and trees are made of."""
    bare = (name.partition(":")[0].removesuffix("_per_bit") for name in names)
    return {_READS.get(name, name) for name in bare} & set(SIGNALS)


def _read_by_start(config: CampaignConfig) -> list[str]:
    """Signals that the search's start genomes read."""
    found: dict[str, None] = {}
    for item in getattr(config.search, "start", ()):
        if isinstance(item, str):
            genome: Genome | None = STRATEGIES.get(item)
        else:
            genome = item.to_rule() if item.kind == "rule" else item.to_tree() if item.kind == "tree" else None
        if genome is not None:
            found.update(dict.fromkeys(_names_read(genome)))
    return list(found)


def has_rule_signal(problem: Problem, name: str) -> bool:
    """Whether the model has what a rule's signal reads."""
    try:
        problem.signal(name)
    except ProfileError:
        return False
    return True
