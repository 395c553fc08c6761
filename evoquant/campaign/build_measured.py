"""From a config to a campaign on a real network: its task, its profile, the measured estimator."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evoquant.campaign.budget import Budget
from evoquant.campaign.build import (
    Campaign,
    check_signals,
    deployed_profile,
    load_code,
    make_executor,
    make_objective,
    make_search,
    make_space,
)
from evoquant.campaign.build_scoring import compiled, compiler
from evoquant.campaign.config_measured import MemoryTaskConfig, OnnxTaskConfig, TorchTaskConfig
from evoquant.campaign.in_memory import borrowed
from evoquant.campaign.measure import MeasuredEstimator
from evoquant.campaign.measurer import Measurer
from evoquant.campaign.racing import Racing
from evoquant.campaign.signals import profile_signals
from evoquant.errors import InputError
from evoquant.models.own_rounding import quantizer_of, rounded_by, rounder_named
from evoquant.models.tasks import load_task
from evoquant.scoring.problem import compile_problem
from evoquant.search.base import Archiving
from evoquant.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.execution.base import Executor
    from evoquant.models.base import Failed, MeasuredTask, Outcome, Request
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.problem import Problem


BLOCK, BATCH = 512, 128  # samples of a network of one's own, where the config does not say


@dataclass(frozen=True)
class Opened:
    """A real network, profiled and ready to be measured.

    Attributes:
        measurer: answers requests, on the executor that was given.
        profile: with the signals that were asked for.
        problem: the profile compiled.
        store: where outcomes are kept; to be closed.
    """

    measurer: Measurer
    profile: ModelProfile
    problem: Problem
    store: Store


def make_task(config: TaskConfig, cache: Path) -> MeasuredTask:
    """The network and data that a config names; an example's network is trained, or taken from `cache`.

    Raises:
        InputError: it cannot be used.
    """
    if config.quantized_cache is not None:
        plain = make_task(config.model_copy(update={"quantized_cache": None}), cache)
        return keeping(plain, config.quantized_cache_bytes)
    if config.rounding is not None and not isinstance(config, MemoryTaskConfig):
        plain = make_task(config.model_copy(update={"rounding": None}), cache)
        return rounded_by(plain, rounder_named(config.rounding))
    if isinstance(config, TorchTaskConfig):
        from evoquant.models.torch_factory import load_factory

        return load_factory(config.factory, config.seed, config.block or BLOCK, config.batch or BATCH)
    if isinstance(config, OnnxTaskConfig):
        return _onnx_task(config)
    if isinstance(config, MemoryTaskConfig):
        return borrowed(config)
    return load_task(config.kind, seed=config.seed, cache=cache, block=config.block, batch=config.batch)


def keeping(task: MeasuredTask, quantized_cache: int | None) -> MeasuredTask:
    """The task with so many bytes of quantized weights kept by each worker.

    Raises:
        InputError: a task of anyone's own kind.
    """
    if not isinstance(task, type) and is_dataclass(task) and hasattr(task, "quantized_cache"):
        made: MeasuredTask = replace(task, quantized_cache=quantized_cache)
        return made
    raise InputError("quantized_cache: networks of this task's kind take none; leave it out.")


def _onnx_task(config: OnnxTaskConfig) -> MeasuredTask:
    from evoquant.models.onnx_task import load_onnx_task

    metric = config.metric if ":" not in (config.metric or "") else load_code(str(config.metric))
    return load_onnx_task(
        Path(config.model),
        Path(config.data),
        metric=metric,
        block=config.block or BLOCK,
        batch=config.batch or BATCH,
        seed=config.seed,
    )


def open_network(
    task: MeasuredTask,
    menu: Menu,
    signals: Sequence[str],
    cache: Path,
    executor: Executor,
    limit_s: float | None = None,
    compiling: Callable[[ModelProfile], Problem] | None = None,
) -> Opened:
    """Profile a task for a menu, with its measurements on `executor`; `compiling` knows other costs than bits.

    Raises:
        InputError: it cannot be profiled.
    """
    store = Store.open(cache)
    try:
        measurer = Measurer(task, store)
        measurer.use(executor, limit_s)
        profile = task.profile(menu, measurer.outcomes, signals)
        problem = compile_problem(profile, menu) if compiling is None else compiling(profile)
        return Opened(measurer, profile, problem, store)
    except BaseException:
        store.close()
        raise


def bare_profile(task: MeasuredTask, menu: Menu) -> ModelProfile:
    """A task's profile without signals, for which nothing is measured.

    Raises:
        InputError: it cannot be profiled.
    """

    def nothing(requests: Sequence[Request]) -> list[Outcome | Failed]:
        assert not requests
        return []

    return task.profile(menu, nothing, ())


@contextlib.contextmanager
def opened_network(
    config: TaskConfig,
    menu: Menu,
    signals: Sequence[str],
    cache: Path,
    task: MeasuredTask | None = None,
    compiling: Callable[[ModelProfile], Problem] | None = None,
) -> Iterator[Opened]:
    """A network outside of a campaign, measured in this process; closed at the end.

    Args:
        config: where it comes from.
        menu, signals: to profile it with.
        cache: folder for outcomes and trained networks.
        task: what `make_task` has made of `config`, where that is done.
        compiling: knows other costs than bits.

    Raises:
        InputError: it cannot be used or profiled.
    """
    executor = make_executor("local", None, None)
    try:
        made = make_task(config, cache) if task is None else task
        opened = open_network(made, menu, signals, cache, executor, compiling=compiling)
        try:
            yield opened
        finally:
            opened.store.close()
    finally:
        executor.close()


def build_measured(config: CampaignConfig, cache: Path, executor: Executor) -> Campaign:
    """All parts of a campaign on a real network.

    Raises:
        InputError: whatever the config names cannot be used, or its passes do not even pay the signals.
    """
    assert config.task is not None
    task = make_task(config.task, cache)
    limit_s, compiling = config.executor.limit_s, compiler(config)
    opened = open_network(task, config.resolved_menu, profile_signals(config), cache, executor, limit_s, compiling)
    try:
        return _campaign(config, deployable_only(config, opened), executor)
    except BaseException:
        opened.store.close()
        raise


def deployable_only(config: CampaignConfig, opened: Opened) -> Opened:
    """A profiled network with what a campaign's `deploy_to` can take; signals stay as they were measured.

    Raises:
        InputError: a layer cannot be deployed at any width of the menu.
    """
    if not config.deploy_to:
        return opened
    profile = deployed_profile(config, opened.profile)
    return replace(opened, profile=profile, problem=compiled(config, [profile])[0])


def estimator_class(config: CampaignConfig) -> type[MeasuredEstimator]:
    """Who races the candidates of a config: generation by generation, or each by itself."""
    if getattr(config.search, "in_flight", None) is None:
        return MeasuredEstimator
    from evoquant.campaign.steady_measured import SteadyEstimator

    return SteadyEstimator


def _inputs(task: MeasuredTask, profile: ModelProfile) -> dict[str, str]:
    """What a campaign reads, and goes on with only as long as it stays the same."""
    found = {f"task {task.name}": task.model_digest, "profile": profile.digest}
    if getattr(task, "rounder", None) is not None:
        found["rounding"] = quantizer_of(task)
    return found


def _campaign(config: CampaignConfig, opened: Opened, executor: Executor) -> Campaign:
    problem, profile, measurer = opened.problem, opened.profile, opened.measurer
    space = make_space(config, (problem,))
    check_signals(space, problem)
    search = make_search(config, space, (problem,))
    blocks = [block.samples for block in measurer.task.blocks("calibration")]
    budget = Budget(blocks, sum(profile.passes.values()), config.stop.passes)
    racing = config.resolved_racing
    estimator = estimator_class(config)(
        space,
        problem,
        objective := make_objective(config, (problem,)),
        measurer,
        budget,
        Racing(racing.confidence, behind=not isinstance(search, Archiving)) if racing.enabled else None,
    )
    estimator.limit(config.executor.limit_s)
    return Campaign(
        config,
        {"calibration": (problem,)},
        space,
        search,
        estimator,
        objective,
        executor,
        _inputs(measurer.task, profile),
        measurer,
        profile,
        opened.store,
    )
