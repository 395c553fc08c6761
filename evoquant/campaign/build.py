"""From a config to the parts of a campaign: literal tables, name → class.

Beside a built-in name, `kind: module:Class` takes anyone's own class; see `evoquant.campaign.own`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.campaign.build_scoring import compiler, make_objective, retention_model
from evoquant.campaign.config import CampaignConfig, CodeConfig, HeldConfig, ModelsConfig, ReplayConfig
from evoquant.campaign.config_genome import DirectSpaceConfig, TreeSpaceConfig
from evoquant.campaign.config_objective import CertifiedConfig
from evoquant.campaign.config_own import EXECUTORS
from evoquant.campaign.evaluate import Estimator, SeparableEstimator
from evoquant.campaign.in_memory import borrowed_executor
from evoquant.campaign.located import input_name
from evoquant.campaign.own import check_own_space, given_part, is_maker, know_space, load_code, own_part
from evoquant.errors import ConfigError, InfeasibleError, InputError, quoted, suggestion
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.profiles.builtin import any_profile
from evoquant.profiles.model import ModelProfile
from evoquant.scoring.objective import Objective
from evoquant.scoring.problem import Problem, compile_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from evoquant.campaign.measurer import Measurer
    from evoquant.execution.base import Executor
    from evoquant.execution.need import Need
    from evoquant.genomes.base import Space
    from evoquant.scoring.protocol import RetentionModel
    from evoquant.search.base import Search
    from evoquant.store import Store

__all__ = [
    "Campaign",
    "allow_genomes",
    "build_campaign",
    "check_signals",
    "deployed_profile",
    "load_code",
    "make_executor",
    "make_objective",
    "make_search",
    "make_space",
    "require_allowed",
    "searched_profile",
]


@dataclass
class Campaign:
    """The parts of a campaign, built and ready for the loop.

    Attributes:
        config: as resolved.
        problems: split → compiled models; for a measured task `calibration` holds the one network.
        space: None for a replay.
        search, estimator, objective: as configured.
        model: the estimator of retention where it is one's own; None for the separable one.
        executor: the workers; `picked` says why, where `auto` chose.
        measurer: for a measured task.
        profile: of the measured network.
        afterwards: generations of a replay that are compared with the champion and do not replace it.
        inputs: name → digest of whatever the run reads.
    """

    config: CampaignConfig
    problems: dict[str, tuple[Problem, ...]]
    space: Space | None
    search: Search
    estimator: Estimator
    objective: Objective
    executor: Executor
    inputs: dict[str, str]
    measurer: Measurer | None = None
    profile: ModelProfile | None = None
    store: Store | None = None
    picked: str = ""
    afterwards: frozenset[int] = frozenset()
    model: RetentionModel | None = None
    _optima: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether retention comes from real forward passes."""
        return self.measurer is not None

    def optimum(self, split: str) -> NDArray[np.float64] | None:
        """`(models,)` certified upper bounds on the fitness that any allocation of each model of `split` can have.

        None where that is not known: with an objective of one's own, which need not be monotone, or an estimator of
        one's own, where a network is measured, or where a profile has no losses.
        """
        known = all(problem.loss is not None for problem in self.problems[split])
        certified = isinstance(self.config.objective, CertifiedConfig) and self.config.estimator is None
        if self.measured or not certified or not known:
            return None
        if split not in self._optima:
            self._optima[split] = _optima(self.problems[split], self.objective)
        return self._optima[split]

    @property
    def generations(self) -> int:
        """The most generations that there will be."""
        search = self.config.search
        return len(search.generations) if isinstance(search, ReplayConfig) else self.config.stop.generations

    def close(self) -> None:
        """Stop the workers, close the store."""
        try:
            self.executor.close()
        finally:
            if self.store is not None:
                self.store.close()


def searched_profile(config: CampaignConfig, name: str) -> ModelProfile:
    """A profile as a campaign sees it: by built-in name or path, with what its `deploy_to` can take.

    Raises:
        ProfileError: no such profile.
        InputError: a layer cannot be deployed at any width of the menu.
    """
    return deployed_profile(config, any_profile(name))


def deployed_profile(config: CampaignConfig, profile: ModelProfile) -> ModelProfile:
    """The profile with what a campaign's `deploy_to` can take; itself where the campaign names no target.

    Raises:
        InputError: a layer cannot be deployed at any width of the menu; the message begins with the model.
    """
    if not config.deploy_to:
        return profile
    from evoquant.profiles.narrowing import constrained

    try:
        return constrained(profile, config.resolved_menu, config.deploy_to)
    except InputError as error:
        raise InputError(f"{profile.name}: {error}") from None


def make_executor(
    kind: str,
    workers: int | None,
    address: str | None,
    options: Mapping[str, JsonValue] | None = None,
    need: Need | None = None,
    runtime_env: Mapping[str, JsonValue] | None = None,
) -> Executor:
    """An executor that has not started yet: local, of Ray, or one's own as `module:Class` with its options.

    `need` and `runtime_env` are for Ray's workers.

    Raises:
        ConfigError: one's own cannot be imported or made, or does not keep the protocol.
    """
    if kind not in EXECUTORS:
        given = {} if workers is None else {"workers": workers}
        own: Executor = own_part(CodeConfig(kind=kind, options=dict(options or {})), "executor", **given)
        return own
    if kind == "ray":
        from evoquant.execution.ray import RayExecutor

        return RayExecutor(workers=workers, address=address, need=need, runtime_env=runtime_env)
    from evoquant.execution.local import LocalExecutor

    return LocalExecutor()


def build_campaign(config: CampaignConfig, cache: Path) -> Campaign:
    """All parts of a campaign; a task's network is trained (or taken from `cache`) and profiled.

    Raises:
        InputError: whatever the config names cannot be used.
    """
    where, lent = config.executor, borrowed_executor()
    if lent is not None:
        named = lent if hasattr(lent, "__qualname__") else type(lent)
        workers = {} if where.workers is None or not is_maker("executor", lent) else {"workers": where.workers}
        own = given_part(lent, "executor", str(getattr(named, "__qualname__", named)), **workers)
        campaign = _built(config, cache, own)
        campaign.picked = "the program's own"  # there is nothing left to choose
        return campaign
    address = where.address or os.environ.get("RAY_ADDRESS")
    kind = "local" if where.kind == "auto" else where.kind
    return _built(
        config, cache, make_executor(kind, where.workers, address, where.options, where.need, where.runtime_env)
    )


def _built(config: CampaignConfig, cache: Path, executor: Executor) -> Campaign:
    try:
        if isinstance(config.search, ReplayConfig):
            return _build_replay(config, config.search, executor)
        if config.task is not None:
            from evoquant.campaign.build_measured import build_measured

            return build_measured(config, cache, executor)
        return _build_separable(config, executor)
    except BaseException:
        executor.close()
        raise


def _build_separable(config: CampaignConfig, executor: Executor) -> Campaign:
    models = config.models or ModelsConfig()
    profiles = {
        split: [searched_profile(config, name) for name in names] for split, names in models.model_dump().items()
    }
    compiling = compiler(config)
    problems = {split: tuple(compiling(profile) for profile in found) for split, found in profiles.items()}
    model = retention_model(config, (p for split in problems.values() for p in split))
    for problem in (p for split in problems.values() for p in split if model is None):
        problem.separable_loss()
    if isinstance(config.genome, DirectSpaceConfig) and len({p.digest for s in profiles.values() for p in s}) > 1:
        raise ConfigError(
            "genome.kind: direct searches one model's allocation; give the same single model under models.train and "
            "leave models.valid and models.test empty, or use genome.kind: rule."
        )
    space = make_space(config, problems["train"])
    for problem in (p for split in problems.values() for p in split):
        check_signals(space, problem)
    objective = make_objective(config, problems["train"])
    optima: dict[str, NDArray[np.float64]] = {}
    if config.relative_to_optimum:
        optima = {split: _optima(problems[split], objective) for split in ("train", "valid")}
        for name, values in optima.items():
            _check_positive(problems[name], values)
    estimator = SeparableEstimator(
        space, problems["train"], objective, config.aggregate, config.executor.batch, optima.get("train"), model
    )
    estimator.use(executor)
    inputs = {
        input_name(config, name): profile.digest
        for split, names in models.model_dump().items()
        for name, profile in zip(names, profiles[split], strict=True)
    }
    search = make_search(config, space, problems["train"])
    return Campaign(
        config, problems, space, search, estimator, objective, executor, inputs, model=model, _optima=optima
    )


def _optima(problems: tuple[Problem, ...], objective: Objective) -> NDArray[np.float64]:
    from evoquant.bounds.optimum import certify

    def best(problem: Problem) -> float:
        try:
            return certify(problem, objective).upper_bound
        except InfeasibleError:  # nothing keeps the limits, and there are no shares of that
            return math.nan

    return np.array([best(problem) for problem in problems], dtype=np.float64)


def _check_positive(problems: tuple[Problem, ...], optima: NDArray[np.float64]) -> None:
    """Refuse what is no share: divided by an optimum below 0 the worst would come out as the best."""
    for problem, value in zip(problems, optima.tolist(), strict=True):
        if not value > 0:
            raise ConfigError(
                f"relative_to_optimum: on {problem.name!r} the best possible fitness is {value:.4g}, and there are "
                f"shares only of one above 0; set an objective that the model can meet, or leave the model out."
            )


def _build_replay(config: CampaignConfig, replay: ReplayConfig, executor: Executor) -> Campaign:
    from evoquant.campaign.replay import replay_plan
    from evoquant.search.replay import Replay, ReplayEntry

    menu = config.resolved_menu
    names = list(replay.data)
    profiles = [any_profile(name) for name in replay.data.values()]
    problems = tuple(compile_problem(profile, menu) for profile in profiles)
    entries = [[ReplayEntry(c.label, c.genome, names.index(c.data)) for c in row] for row in replay_plan(config)]
    objective = make_objective(config)
    estimator = SeparableEstimator(None, problems, objective, config.aggregate, config.executor.batch)
    estimator.use(executor)
    inputs = {name: profile.digest for name, profile in zip(replay.data.values(), profiles, strict=True)}
    afterwards = frozenset(i for i, generation in enumerate(replay.generations) if generation.afterwards)
    return Campaign(
        config,
        {"replay": problems},
        None,
        Replay(entries),
        estimator,
        objective,
        executor,
        inputs,
        afterwards=afterwards,
    )


def make_space(config: CampaignConfig, problems: tuple[Problem, ...]) -> Space:
    """The genome space; types and signals default to the published ones and those of the models.

    Raises:
        ConfigError: a type that no model has, or a space of one's own that cannot be made.
    """
    genome, menu = config.genome, config.resolved_menu
    if isinstance(genome, (CodeConfig, HeldConfig)):
        made: Space = own_part(genome, "genome", problems)
        check_own_space(made, genome.kind if isinstance(genome, CodeConfig) else genome.what, config.seed)
        return made
    if isinstance(genome, DirectSpaceConfig):
        from evoquant.genomes.direct import DirectSpace

        return DirectSpace(problems[0])
    from evoquant.campaign.signals import rule_signals, tree_signals

    found = {str(t) for problem in problems for t in problem.types.tolist()}
    types = genome.types or sorted(found | set(LAYER_TYPES))
    if strange := sorted(set(types) - found - set(LAYER_TYPES)):
        name = strange[0]
        raise ConfigError(f"genome.types: no model has layers of type {quoted(name)}.{suggestion(name, found)}")
    if isinstance(genome, TreeSpaceConfig):
        from evoquant.genomes.tree import TreeSpace

        return TreeSpace(
            menu,
            types if genome.types is None else genome.types,
            tree_signals(config, problems),
            operators=genome.operators,
            max_nodes=genome.max_nodes,
            max_depth=genome.max_depth,
        )
    return RuleSpace(menu, types, rule_signals(config, problems), genome.rungs)


def check_signals(space: Space, problem: Problem) -> None:
    """Check that a model has every signal that the genomes read.

    Raises:
        ProfileError: it lacks one; the message names both.
    """
    if isinstance(space, RuleSpace):
        for name in space.signals:
            problem.signal(name)
        return
    from evoquant.genomes.tree import TreeSpace
    from evoquant.genomes.tree_numpy import signal_values

    if isinstance(space, TreeSpace):
        for name in space.signals:
            signal_values(problem, name)


def make_search(config: CampaignConfig, space: Space, problems: Sequence[Problem]) -> Search:
    """The search of a config over `space`, on these models."""
    search = config.search
    assert not isinstance(search, ReplayConfig)
    if isinstance(search, (CodeConfig, HeldConfig)):
        made: Search = own_part(search, "search", space, seed=config.seed)
        return made
    from evoquant.campaign.build_search import built_in_search

    return built_in_search(search, space, config.seed, problems, make_objective(config, tuple(problems)))


def require_allowed(config: CampaignConfig, allowed: Sequence[str], source: Path) -> None:
    """Refuse to run code that a run directory's config names unless the user names it again.

    Genomes of a space of one's own can be read from then on.

    Raises:
        InputError: listing what would have to be allowed, or the space cannot be imported.
    """
    missing = [name for name in config.code() if name not in allowed]
    if missing:
        flags = " ".join(f"--allow-code {name}" for name in missing)
        raise InputError(f"{source}: its config names code ({', '.join(missing)}); to run it, repeat it: {flags}")
    if isinstance(config.genome, CodeConfig):
        allow_genomes([config.genome.kind])


def allow_genomes(names: Sequence[str]) -> None:
    """Read genomes of these spaces, each `module:Class`, from now on.

    Raises:
        ConfigError: it cannot be imported, or does not say how to read one.
    """
    for name in names:
        space = load_code(name)
        if hasattr(space, "genome_from_dict"):  # else its genomes are of ours
            know_space(space, name)
