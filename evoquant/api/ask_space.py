"""A genome space for somebody's own loop: by the same tables, names and defaults as a campaign's config.

search_space("rule", "seed/train", rungs=2) → SearchSpace
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.api.parts import parts_of
from evoquant.campaign.build import check_signals, make_space
from evoquant.campaign.build_scoring import compiled
from evoquant.campaign.config import CampaignConfig, config_from_dict
from evoquant.campaign.config_genome import DirectSpaceConfig, RuleSpaceConfig, TreeSpaceConfig
from evoquant.campaign.own import check_own_space, given_part, is_maker
from evoquant.campaign.signals import (
    PER_WIDTH,
    STATISTICS,
    TREE_CHEAP,
    has_rule_signal,
    narrow_widths,
    rule_signals,
    tree_signals,
)
from evoquant.errors import InputError, named_in, shown_value
from evoquant.files import canonical_json
from evoquant.genomes.tree_numpy import has_signal
from evoquant.profiles.builtin import any_profile
from evoquant.profiles.model import ModelProfile
from evoquant.quantization.precision import Menu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from evoquant.api.campaigns import Part
    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.problem import Problem
    from evoquant.scoring.protocol import CostMaker

    Profile = str | Path | ModelProfile


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Genomes to choose from, and the models that they allocate.

    Attributes:
        space: the genomes'.
        problems: the models, compiled for the menu; () for a space of one's own without any.
        made_of: plain data that tells this space from others; its `cost` is what a config says of one.
    """

    space: Space
    problems: tuple[Problem, ...]
    made_of: dict[str, Any]

    def widths(self, genome: Genome, model: int = 0) -> dict[str, str]:
        """Layer → precision that a genome gives it.

        Args:
            genome: of this space.
            model: which one, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        if not 0 <= model < len(self.problems):
            raise InputError(f"model {model}: this space has {len(self.problems)} models, counted from 0.")
        problem = self.problems[model]
        return dict(zip(problem.layers, problem.unfold(genome.allocate(problem)), strict=True))


def search_space(
    kind: str | Space | Callable[..., Space],
    profile: Profile | Sequence[Profile] = (),
    *,
    menu: Sequence[str] | Menu | None = None,
    cost: Part[CostMaker] = None,
    costs: Mapping[str, Part[CostMaker]] | None = None,
    **options: Any,
) -> SearchSpace:
    """The space of genomes that a search varies.

    Args:
        kind: `rule`, `tree` or `direct`; or a space of one's own, which keeps `evoquant.genomes.base.Space`: it, or its
            class, `module:Class` or as it is, which is called with the models and the options.
        profile: one or more models: built-in names, paths of JSON files, or profiles.
        menu: names of precisions; INT2, INT4, INT8, FP16 and FP32 by default.
        cost: what compression is of, bits by default: a kind or a mapping as in a config, a class, or an object.
        costs: further ones by name, for limits and fronts over several.
        options: what `genome` takes in a config: `types`, `signals`, `rungs`, ….

    Raises:
        InputError: an option or a model cannot be used.
    """
    named = kind if isinstance(kind, str) else str(getattr(kind, "__qualname__", type(kind).__qualname__))
    source = f"search_space({named!r})"
    names = list(menu.names) if isinstance(menu, Menu) else menu if menu is None else list(menu)
    given = {"options": options} if ":" in named else options  # module:Class
    genome = {"kind": kind, **given} if isinstance(kind, str) else {}
    parts = parts_of(cost=cost, **{f"costs.{key}": one for key, one in (costs or {}).items()})
    config = config_from_dict({"name": "own-loop", "menu": names, "genome": genome, **parts.entries}, source)
    listed = [profile] if not isinstance(profile, (list, tuple)) else profile
    profiles = [_profile(one, source) for one in listed]
    with parts.lent(), _named(source):
        problems = compiled(config, profiles)
    models = {"menu": list(config.resolved_menu.names), "profiles": [one.digest for one in profiles], **parts.entries}
    if not isinstance(kind, str) and not is_maker("genome", kind):
        if options:
            raise InputError(f"{source}: {', '.join(options)}: a space of your own has its options already.")
        own: Any = kind
        genes = [[gene.name, gene.kind, gene.low, gene.high, gene.group] for gene in own.genes]
        return SearchSpace(own, problems, {"space": named, "genes": genes, **models})
    if not problems:
        raise InputError(f"{source}: name a model: a built-in profile such as 'seed/train', a file or a profile.")
    if isinstance(config.genome, DirectSpaceConfig) and len(problems) > 1:
        raise InputError(f"{source}: a direct allocation is of one model, and there are {len(problems)}; name one.")
    if not isinstance(kind, str):
        with _named(source):
            made: Space = given_part(kind, "genome", named, problems, **options)
            check_own_space(made, named, config.seed)
        return SearchSpace(made, problems, {"space": named, "options": plain_options(options, source), **models})
    config = _with_signals(config, problems)
    with _named(source):
        space = make_space(config, problems)
    for problem in problems:
        check_signals(space, problem)
    return SearchSpace(space, problems, {"space": config.genome.model_dump(mode="json"), **models})


def plain_options(options: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Options of a class of one's own, by which a saved search is told from others.

    Raises:
        InputError: they are no plain data.
    """
    try:
        canonical_json(dict(options))
    except (TypeError, ValueError):
        raise InputError(
            f"{source}: options are plain data, which a saved state is compared by; bind others with functools.partial."
        ) from None
    return dict(options)


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    """What speaks of a config's keys says what was called."""
    try:
        yield
    except InputError as error:
        raise named_in(error, source) from None


def _profile(given: Any, source: str) -> ModelProfile:
    if isinstance(given, ModelProfile):
        return given
    if isinstance(given, str) or hasattr(given, "__fspath__"):
        return any_profile(str(given))
    raise InputError(f"{source}: {shown_value(given)} is no model; give a built-in name, a file or a profile.")


def _with_signals(config: CampaignConfig, problems: tuple[Problem, ...]) -> CampaignConfig:
    """The config with the signals that the models have, where it names none: a network's profile may lack losses."""
    genome = config.genome
    if not isinstance(genome, (RuleSpaceConfig, TreeSpaceConfig)) or genome.signals is not None:
        return config
    if isinstance(genome, RuleSpaceConfig):
        usual, has = rule_signals(config, problems), has_rule_signal
        cheap = ["gradient_sensitivity", "activation_range", *STATISTICS]
        cheap += [f"{kind}:{width}" for kind in PER_WIDTH for width in narrow_widths(config.resolved_menu)]
    else:
        usual, has = tree_signals(config, problems), has_signal
        cheap = [*usual, *TREE_CHEAP]
    known = [name for name in usual if all(has(problem, name) for problem in problems)]
    if known != usual:
        known = [name for name in dict.fromkeys(cheap) if all(has(problem, name) for problem in problems)]
    return config.model_copy(update={"genome": genome.model_copy(update={"signals": known})})
