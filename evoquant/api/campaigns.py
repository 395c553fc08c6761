"""Campaigns run, resumed, and read back."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from evoquant.campaign.archive import read_archive
from evoquant.campaign.build import build_campaign, require_allowed
from evoquant.campaign.champion import Champion, load_champion
from evoquant.campaign.config import CampaignConfig, load_config
from evoquant.campaign.config_executor import instead
from evoquant.campaign.config_own import known_executor
from evoquant.campaign.environment import differences, environment_record
from evoquant.campaign.finished import resolved_config
from evoquant.campaign.gate_file import read_gate
from evoquant.campaign.in_memory import lent_executor
from evoquant.campaign.kept_tables import keep_tables
from evoquant.campaign.located import located, require_unchanged
from evoquant.campaign.loop import run_loop
from evoquant.campaign.observer import Observer, Progress
from evoquant.campaign.storage import CHAMPION, CONFIG, ENVIRONMENT, JOURNAL, PROFILE, REMEDY, REPORT, RESOLVED, RunDir
from evoquant.campaign.storage_url import place_of
from evoquant.errors import (
    CampaignError,
    EvoquantError,
    InputError,
    Interrupted,
    RunDirError,
    named_in,
    raised_by,
)
from evoquant.files import pretty_json
from evoquant.profiles.model import profile_to_json
from evoquant.report.data import RunData, load_run, report_data
from evoquant.report.trackers import tracked
from evoquant.scoring.compile_time import telling
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evoquant.campaign.config_executor import ExecutorConfig
    from evoquant.execution.protocol import Executor
    from evoquant.genomes.base import Space
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.protocol import CostMaker, RetentionModel
    from evoquant.search.base import Search

    Kept = TypeVar("Kept")
    Part: TypeAlias = Kept | Callable[..., Kept] | Mapping[str, Any] | str | None


class Silent:
    """An observer that says nothing."""

    def generation(self, progress: Progress) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Job:
    """One campaign of a study: a config file, the run directory, and `key.path=value` overrides."""

    config: Path
    out: Path
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A campaign's outcome.

    Attributes:
        path: the run directory.
        champion: None where the run is not finished (wall time).
        fresh: False where there was nothing left to do.
    """

    path: Path
    champion: Champion | None
    fresh: bool = True


def run(
    config: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    track: Sequence[str] = (),
    observer: Observer | None = None,
    search: Part[Search] = None,
    space: Part[Space] = None,
    objective: Part[Objective] = None,
    cost: Part[CostMaker] = None,
    estimator: Part[RetentionModel] = None,
    executor: Executor | Callable[..., Executor] | str | None = None,
) -> Run:
    """Run the campaign of a YAML file; `overrides` are `key.path=value` as with `--set`, `track` names trackers.

    Args:
        config: the file.
        out: the run directory; by default the config's, or runs/<name>-<seed>.
        overrides, track, observer: as above.
        search: instead of the config's: an object, or a class or function called as `(space, seed=seed)`; see
            `evoquant.search.protocol`. `functools.partial` gives it options.
        space: of genomes: an object, or what is called as `(problems)`; see `evoquant.genomes.protocol`.
        objective, cost, estimator: objects, or what is called without arguments; see `evoquant.scoring.protocol`.
        executor: local, ray, auto, `module:Class`, or an object or a class of `evoquant.execution.protocol`; it changes
            the time, never the result.

    With an object the same call goes on with a run that it began, and returns a finished one; without, `resume` does.

    Raises:
        InputError: the config, or what it names, is wrong; or the run directory holds a run already, or one that was
            begun with other objects.
        Interrupted: by the user; `resume` goes on.
        CampaignError: the campaign failed.
    """
    named = instead(executor) if isinstance(executor, str) else []
    checked, text = load_config(Path(config), [*overrides, *named])
    place = place_of(out or checked.out or Path("runs") / f"{checked.name}-{checked.seed}")
    given = (search, space, objective, cost, estimator)
    with lent_executor(executor):
        if all(part is None for part in given):
            return begin(checked, text, place, str(config), track=track, observer=observer)
        from evoquant.api.parts import run_parts

        return run_parts(checked, given, place, str(config), track=track, observer=observer)


def begin(
    config: CampaignConfig,
    text: str,
    place: Path,
    source: str,
    *,
    cache: Path | None = None,
    track: Sequence[str] = (),
    observer: Observer | None = None,
) -> Run:
    """Run a campaign in a new run directory.

    Args:
        config: as checked.
        text: what is kept as the run's config.yaml.
        place: the run directory.
        source: what messages about the config begin with.
        cache: folder for outcomes; None for the config's.
        track, observer: see `run`.

    Raises:
        EvoquantError: as `run`.
    """
    config = located(config)
    with RunDir.create(place) as directory:
        directory.put(CONFIG, text)
        directory.put(RESOLVED, pretty_json({"hash": config.hash(), "config": config.to_dict()}))
        copies: list[str] = []
        try:
            require_unchanged(config)
            copies = keep_tables(directory, config)
            with tracked(config, directory, observer or Silent(), track) as watching:
                return _go(config, directory, watching, cache)
        except InputError as error:
            if directory.has(JOURNAL):
                raise
            directory.abandon((CONFIG, RESOLVED, ENVIRONMENT, *copies))  # leaves the place free for a corrected config
            if isinstance(error, RunDirError):  # names the directory
                raise
            raise named_in(error, source) from None


def run_all(jobs: Sequence[Job]) -> list[RunData]:
    """Run the campaigns of a study side by side, one process a core; their results in the order of `jobs`.

    Raises:
        EvoquantError: as `run`, for the first job that fails.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Forking a process that has started threads can hang; a fresh interpreter cannot.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return [load_run(path) for path in pool.map(_run_job, jobs)]


def _run_job(job: Job) -> Path:
    return run(job.config, out=job.out, overrides=[*job.overrides, "executor.kind=local"]).path


def resume(
    path: str | Path,
    *,
    executor: Executor | Callable[..., Executor] | str | None = None,
    workers: int | None = None,
    address: str | None = None,
    allow_code: Sequence[str] = (),
    cache: Path | None = None,
    track: Sequence[str] = (),
    observer: Observer | None = None,
) -> Run:
    """Go on with an interrupted campaign; a finished one is returned as it is.

    `executor` is local, ray, auto, `module:Class`, or an object or a class of `evoquant.execution.protocol`; `cache` is
    a folder for outcomes. By default both are the config's.

    Raises:
        InputError: no run directory, another config than it was started with, or code that is not allowed.
        Interrupted: by the user.
        CampaignError: the campaign failed.
    """
    with RunDir.open(place_of(path)) as directory:
        config = resolved_config(directory)
        require_allowed(config, allow_code, directory.path)
        finished = _finished(directory, observer or Silent())
        if finished is not None:
            with tracked(config, directory, observer or Silent(), track, resumed=True):
                return Run(directory.path, finished, fresh=False)
        changed = _other_executor(config, executor, workers, address, allow_code, directory.path)
        try:
            with (
                lent_executor(executor),
                tracked(config, directory, observer or Silent(), track, resumed=True) as watching,
            ):
                return _go(changed, directory, watching, cache)
        except InputError as error:
            raise named_in(error, str(directory.path)) from None


def _other_executor(
    config: CampaignConfig,
    executor: Executor | Callable[..., Executor] | str | None,
    workers: int | None,
    address: str | None,
    allow_code: Sequence[str],
    source: Path,
) -> CampaignConfig:
    """The config with the executor that a run goes on with.

    Raises:
        InputError: no such executor, or it would run code, here or on a cluster, that the user has not named.
    """
    given: dict[str, Any] = {"workers": workers, "address": address}
    named = executor if isinstance(executor, str) or executor is None else "local"  # an object, in the place of any
    if named is not None and named != config.executor.kind:
        try:
            given |= {"kind": known_executor(named), "options": {}}
        except ValueError as error:
            raise InputError(f"executor: {error}.") from None
    own = config.executor.own
    if own is not None and executor is None and own not in allow_code:
        raise InputError(
            f"{source}: its config names code for its executor ({own}); to run it, repeat it: --allow-code {own}; or "
            f"go on with --executor local."
        )
    require_known_cluster(config.executor, named, address, allow_code, source)
    kept = {key: value for key, value in given.items() if value is not None}
    return config.model_copy(update={"executor": config.executor.model_copy(update=kept)})


def require_known_cluster(
    config: ExecutorConfig, executor: str | None, address: str | None, allow_code: Sequence[str], source: Path
) -> None:
    """Join no cluster that only a directory names: what comes from one is unpickled, which runs code.

    Args:
        config: what the directory says.
        executor, address, allow_code: what the user does.
        source: the directory.

    Raises:
        InputError: the user has to name it, too.
    """
    if (executor or config.kind) == "local":
        return
    if address is None and config.address not in (None, os.environ.get("RAY_ADDRESS")):
        raise InputError(
            f"{source}: its config names a Ray cluster, and a cluster can run code here; to join it, repeat it: "
            f"--address {config.address}; or go on with --executor local."
        )
    if config.runtime_env and "runtime_env" not in allow_code:
        raise InputError(
            f"{source}: its config names a runtime environment for workers ({', '.join(config.runtime_env)}), "
            f"which can install and run code; to use it, allow it: --allow-code runtime_env; or go on with --executor "
            f"local."
        )


def pick(
    path: str | Path,
    *,
    parts: int | None = None,
    bits: float | None = None,
    retention: float | None = None,
    at_most: Mapping[str, str | float] | str | Sequence[str] = (),
) -> Champion:
    """The best entry within limits of the archive that some searches keep (`map_elites`, `nsga2`).

    The fittest; where costs are limited the one that keeps most, or with `retention` too the one of least cost.

    Args:
        path: a finished run directory.
        parts: at most so many parts of the heuristic.
        bits: at most so many effective bits per weight.
        retention: at least this retention.
        at_most: name of a cost of the campaign, `bytes` or `effective_bits` → the most of it, on every model, such as
            `{"latency": "3ms"}`; or texts, `20MB` for bytes and `latency=3ms`.

    Raises:
        InputError: no finished run, no archive, an amount that is none, or nothing in it keeps the limits.
    """
    from evoquant.campaign.pick import Limits, asked_amounts, pick_from

    limits = Limits(parts, bits, retention, asked_amounts(at_most))
    directory = RunDir.open(place_of(path), hold=False)
    if not directory.has(CHAMPION):
        raise InputError(f"{path}: the run is not finished; continue with: evoquant resume {path}")
    return pick_from(directory, load_champion(directory.path / CHAMPION), limits)


def _go(config: CampaignConfig, directory: RunDir, observer: Observer, cache: Path | None = None) -> Run:
    try:
        campaign = build_campaign(config, cache or cache_folder(config.cache, directory.path))
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted before the first generation; start with: evoquant resume {directory.path}"
        ) from None
    try:
        _check_inputs(directory, campaign.inputs)
        if campaign.profile is not None:
            directory.put(PROFILE, profile_to_json(campaign.profile))
        with telling(observer.message):
            champion = run_loop(campaign, directory, observer)
    except Interrupted:
        with suppress(KeyboardInterrupt):  # again, while it closes: how to go on has still to be said
            campaign.close()
        raise
    except BaseException as error:
        campaign.close()
        code = [*config.code(), *filter(None, [config.executor.own])]
        if isinstance(error, Exception) and not isinstance(error, EvoquantError) and code:
            raise CampaignError(
                f"{directory.path}: {', '.join(code)}: raised {raised_by(error)}. What is journalled is kept."
            ) from error
        raise
    campaign.close()
    if champion is not None:
        directory.put(REPORT, pretty_json(report_data(load_run(directory.path))))
    return Run(directory.path, champion)


def _finished(directory: RunDir, observer: Observer) -> Champion | None:
    """The champion of a finished run, or None where there is something left to do: a damaged result is found again."""
    if not (directory.has(CHAMPION) and directory.has(REPORT)):
        return None
    try:
        champion = load_champion(directory.path / CHAMPION)
        read_archive(directory)
        read_gate(directory)
        report = directory.read(REPORT)
        if not isinstance(report, dict) or not report.get("finished"):
            raise RunDirError(f"{directory.path / REPORT}: not the report of a finished run.")
    except InputError as error:
        observer.message(f"{error} The search's results are written again.")
        return None
    return champion


def _check_inputs(directory: RunDir, inputs: dict[str, str]) -> None:
    """Note what the run reads at its start; refuse to go on with anything else."""
    if not directory.has(ENVIRONMENT):
        directory.put(ENVIRONMENT, pretty_json(environment_record(inputs=inputs)))
        return
    then = directory.read(ENVIRONMENT)
    if not isinstance(then, dict) or "inputs" not in then:
        raise RunDirError(f"{directory.path / ENVIRONMENT}: should hold `inputs`; {REMEDY[ENVIRONMENT]}.")
    if then.get("inputs") != inputs:
        now = environment_record(inputs=inputs)
        raise RunDirError(
            f"{directory.path}: what the run reads has changed since it was started: {differences(then, now)}. "
            f"Restore it, or start a new run."
        )
