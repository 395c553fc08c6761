"""What each part of a campaign is worth: the campaign whole, and with one part switched off at a time, same seeds.

Every run is a run directory of its own, `whole-<seed>` or `no-<part>-<seed>`: an interrupted ablation goes on.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from evoquant import api
from evoquant.campaign.config import CodeConfig, ModelsConfig, ReplayConfig, load_config
from evoquant.campaign.config_genome import DirectSpaceConfig, RuleSpaceConfig, TreeSpaceConfig
from evoquant.campaign.config_search import GeneticConfig, IslandsConfig, RandomConfig, SurrogateConfig
from evoquant.campaign.signals import profile_signals
from evoquant.campaign.storage import CHAMPION, REPORT, RESOLVED, RunDir
from evoquant.campaign.storage_url import folder_of
from evoquant.errors import CampaignError, InputError, Interrupted, RunDirError, quoted, suggestion
from evoquant.report.compare import comparison
from evoquant.report.compare_runs import Group, read_results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evoquant.campaign.config import CampaignConfig
    from evoquant.report.compare import Comparison

WHOLE, WITHOUT = "whole", "no-"


@dataclass(frozen=True)
class Component:
    """A part of a campaign that can be switched off.

    Attributes:
        off: what there is in its place, for people.
        applies: whether a config has it.
        overrides: `key.path=value` that switch it off.
    """

    off: str
    applies: Callable[[CampaignConfig], bool]
    overrides: Callable[[CampaignConfig], tuple[str, ...]]


def _breeding(config: CampaignConfig) -> Any:
    """The search's settings; of islands, each island's."""
    return config.search.genetic if isinstance(config.search, IslandsConfig) else config.search


def _has(key: str, off: Any, config: CampaignConfig) -> bool:
    return not isinstance(config.search, CodeConfig) and getattr(_breeding(config), key, off) != off


def _set(key: str, off: Any, config: CampaignConfig) -> tuple[str, ...]:
    if isinstance(config.search, IslandsConfig):  # whole: keys that the file leaves out have other defaults here
        island = config.search.genetic.model_dump(mode="json", exclude_defaults=True) | {key: off}
        return (f"search.genetic={json.dumps(island)}",)
    return (f"search.{key}={json.dumps(off)}",)


def _knob(key: str, off: Any, text: str) -> Component:
    """A setting of the search."""
    return Component(text, partial(_has, key, off), partial(_set, key, off))


def _key(key: str, off: Any, text: str, applies: Callable[[CampaignConfig], bool]) -> Component:
    """A key of the config."""
    return Component(text, applies, lambda config: (f"{key}={json.dumps(off)}",))


def _guided(config: CampaignConfig) -> bool:
    return not isinstance(config.search, (RandomConfig, ReplayConfig, CodeConfig))


def _random(config: CampaignConfig) -> tuple[str, ...]:
    """As many candidates at a time as the search has."""
    search: Any = config.search
    keys = ("batch", "population", "offspring")  # a surrogate's population is of its model
    size = next((getattr(search, key) for key in keys if getattr(search, key, None)), 16)
    if isinstance(search, IslandsConfig):
        size = search.islands * search.genetic.population
    return (f"search={json.dumps({'kind': 'random', 'population': size})}",)


def _evolution(config: CampaignConfig) -> tuple[str, ...]:
    start = [item if isinstance(item, str) else item.model_dump(mode="json") for item in _breeding(config).start]
    few = {"kind": "genetic", "population": max(10, len(start)), "elites": 2, "start": start}
    return (f"search={json.dumps(few)}",)


def _fisher_prior(config: CampaignConfig) -> bool:
    if config.task is None or not isinstance(config.search, SurrogateConfig):
        return False
    read = profile_signals(config)
    return isinstance(config.genome, DirectSpaceConfig) and "fisher" in read and "loss" not in read


def _chooses(config: CampaignConfig) -> bool:
    return config.task is not None or bool((config.models or ModelsConfig()).valid)


COMPONENTS: dict[str, Component] = {
    "search": Component("random search in its place", _guided, _random),
    "surrogate": Component(
        "plain evolution, ten at a time, in the place of the model",
        lambda config: isinstance(config.search, SurrogateConfig),
        _evolution,
    ),
    "fisher": _key("signals", ["loss"], "the model starts from measured losses, which cost passes", _fisher_prior),
    "crossover": _knob("crossover_rate", 0, "children of one parent"),
    "mutation": _knob("mutation_rate", 0, "children are not mutated"),
    "selection": _knob("tournament", 1, "parents drawn at random among the survivors"),
    "elites": _knob("elites", 0, "no survivor is carried over, nor tuned"),
    "elite-forms": _knob("elite_forms", False, "elites may differ in their numbers alone"),
    "immigrants": _knob("immigrant_rate", 0, "no random newcomers"),
    "tuning": _knob("tune_rate", 0, "no hill climb over the numbers of elites"),
    "parsimony": _knob("parsimony", 0, "selection does not mind parts"),
    "start": _knob("start", [], "a random first generation"),
    "initial": Component(
        "a first generation as large as the others",
        lambda config: isinstance(_breeding(config), GeneticConfig) and _has("initial", None, config),
        partial(_set, "initial", None),
    ),
    "migration": _key(
        "search.every",
        0,
        "islands never meet",
        lambda config: isinstance(config.search, IslandsConfig) and config.search.every > 0,
    ),
    "floor": _knob("floor", 0, "no retention matters more than another"),
    "steps": _knob("step_rate", 0, "switches alone, no single steps"),
    "switches": _knob("step_rate", 1, "single steps alone, no switches"),
    "moves": _knob("moves", 1, "one move an offspring"),
    "growth": _knob("growth", 1, "restarts do not grow"),
    "in-flight": _knob("in_flight", None, "whole generations"),
    "racing": _key(
        "racing.enabled",
        False,
        "every candidate is measured on all samples",
        lambda config: config.task is not None and config.resolved_racing.enabled,
    ),
    "ladder": _key(
        "genome.rungs",
        0,
        "rules of protected types and edges alone",
        lambda config: (
            isinstance(config.genome, RuleSpaceConfig)
            and config.genome.rungs > 0
            and not getattr(_breeding(config), "start", ())
        ),
    ),
    "types": _key(
        "genome.types",
        [],
        "formulas that cannot tell layer types",
        lambda config: isinstance(config.genome, TreeSpaceConfig) and config.genome.types != [],
    ),
    "finalists": _key(
        "finalists",
        1,
        "the search's best is the champion, whatever unseen data say",
        lambda config: config.finalists > 1 and _chooses(config),
    ),
    "finalists-by-form": _key(
        "finalists_by_form",
        False,
        "finalists may differ in their numbers alone",
        lambda config: config.finalists_by_form and config.finalists > 1 and _chooses(config),
    ),
    "relative": _key(
        "relative_to_optimum",
        False,
        "models count by their fitness, not by their share of their optimum",
        lambda config: config.relative_to_optimum,
    ),
}


def parts_of(config: CampaignConfig, source: str, only: Sequence[str] = ()) -> dict[str, Component]:
    """The components that a config has, in the order of `COMPONENTS`; of these, those named in `only`.

    Args:
        config: of the campaign.
        source: its file, for messages.
        only: names; empty for all.

    Raises:
        InputError: a name is unknown or does not apply, or nothing can be switched off.
    """
    if isinstance(config.search, ReplayConfig):
        raise InputError(f"{source}: a replay searches nothing; nothing can be switched off.")
    found = {name: part for name, part in COMPONENTS.items() if part.applies(config)}
    for name in only:
        if name not in COMPONENTS:
            raise InputError(f"--only {name}: no part has this name.{suggestion(name, COMPONENTS)}")
        if name not in found:
            raise InputError(f"--only {name}: this campaign has no such part. It has: {', '.join(found)}.")
    if not found:
        raise InputError(f"{source}: nothing of this campaign can be switched off.")
    return {name: part for name, part in found.items() if name in only or not only}


def jobs_of(
    path: Path, parts: Sequence[str], seeds: int, overrides: Sequence[str], out: Path
) -> dict[str, list[api.Job]]:
    """Group → its jobs, the whole campaign first; checked, so that nothing is found wrong after an hour.

    Raises:
        InputError: a config is wrong, or a run directory holds something else.
    """
    config, _ = load_config(path, overrides)
    jobs: dict[str, list[api.Job]] = {}
    for name in ("", *parts):
        group = f"{WITHOUT}{name}" if name else WHOLE
        changes = COMPONENTS[name].overrides(config) if name else ()
        jobs[group] = [
            api.Job(path, out / f"{group}-{seed}", (*overrides, *changes, f"name={group}", f"seed={seed}"))
            for seed in range(config.seed, config.seed + seeds)
        ]
    for job in (job for group in jobs.values() for job in group):
        _require_same(job)
    return jobs


def _require_same(job: api.Job) -> None:
    directory = RunDir(job.out)
    if not directory.has(RESOLVED):
        return
    expected, found = load_config(job.config, job.overrides)[0].hash(), directory.read(RESOLVED)
    if not isinstance(found, dict) or found.get("hash") != expected:
        raise RunDirError(
            f"{job.out}: holds a run of another config than this ablation's; choose another --out, or delete it."
        )


def is_done(job: api.Job) -> bool:
    """Whether its run is finished already."""
    directory = RunDir(job.out)
    return directory.has(CHAMPION) and directory.has(REPORT)


def run_jobs(jobs: Sequence[api.Job], done: Callable[[api.Job, int], None]) -> None:
    """Run what is not finished, one process a core; go on with what was interrupted.

    Args:
        jobs: of all groups.
        done: hears of each, in their order, and how many are left.

    Raises:
        EvoquantError: as `api.run`, for the first job that fails; what is finished is kept.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    left = [job for job in jobs if not is_done(job)]
    if not left:
        return
    if load_config(left[0].config, left[0].overrides)[0].task is not None:
        run_job(left[0])  # trains the network and measures its signals, which the others then find in the store
        done(left[0], len(left) - 1)
        left = left[1:]
    others = set(multiprocessing.active_children())
    # Forking a process that has started threads can hang; a fresh interpreter cannot.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for number, job in enumerate(pool.map(run_job, left), 1):
                done(job, len(left) - number)
        except BaseException as error:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # else the pool waits until what they run is finished, which may take hours
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise CampaignError("a worker was killed, perhaps for its memory; the same command goes on.") from None
            raise


def run_job(job: api.Job) -> api.Job:
    """Run one campaign in this process, or go on with it."""
    if RunDir(job.out).has(RESOLVED):
        named = load_config(job.config, job.overrides)[0].code()  # by the config that the user gives, not the directory
        api.resume(job.out, executor="local", allow_code=named)
    else:
        api.run(job.config, out=job.out, overrides=[*job.overrides, "executor.kind=local"])
    return job


def ablate(
    path: Path,
    *,
    seeds: int = 5,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    out: Path | None = None,
    split: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Run a campaign whole and without each of its parts, and compare them; the first group is the whole one.

    Args:
        path: the campaign's YAML file.
        seeds: how many, from the config's on.
        overrides: `key.path=value`, for all runs.
        only: names of parts; empty for all.
        out: folder of the runs; by default `runs/<name>-ablation`.
        split: see `evoquant.report.compare.compare`.
        say: hears how it goes.

    Raises:
        InputError: as `parts_of` and `jobs_of`.
        Interrupted: by the user; the same call goes on.
    """
    config, _ = load_config(path, overrides)
    parts = parts_of(config, str(path), only)
    folder = folder_of(out or f"runs/{config.name}-ablation", "the folder of an ablation")
    groups = jobs_of(path, list(parts), seeds, overrides, folder)
    everything = [job for jobs in groups.values() for job in jobs]
    ready = sum(map(is_done, everything))
    tell = say or (lambda text: None)
    tell(f"{len(everything)} runs of {seeds} seeds in {folder}; {ready} are finished already")
    try:
        run_jobs(everything, lambda job, left: tell(f"{quoted(str(job.out))} done, {left} to go"))
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(f"interrupted; what is finished stands in {folder}: the same command goes on") from None
    results = {label: read_results([job.out for job in jobs]) for label, jobs in groups.items()}
    return comparison([Group(label, tuple(found)) for label, found in results.items()], split=split)
