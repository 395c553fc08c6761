"""What `import evoquant` offers: run, resume and load campaigns, and profiles.

The command line is a thin layer over these functions.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.apply import load_any_champion
from evoquant.campaign.archive import Limits
from evoquant.campaign.archive import pick as pick_from
from evoquant.campaign.build import any_profile as profile
from evoquant.campaign.build import build_campaign, require_allowed
from evoquant.campaign.champion import Champion, load_champion
from evoquant.campaign.config import CampaignConfig, config_from_dict, load_config
from evoquant.campaign.environment import differences, environment_record
from evoquant.campaign.loop import Observer, Progress, run_loop
from evoquant.campaign.storage import CHAMPION, CONFIG, ENVIRONMENT, JOURNAL, PROFILE, REPORT, RESOLVED, RunDir
from evoquant.errors import InputError, RunDirError
from evoquant.files import pretty_json
from evoquant.profiles.model import profile_to_json
from evoquant.report.data import RunData, load_run, report_data
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Job", "Run", "load", "pick", "profile", "resume", "run", "run_all"]


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
    observer: Observer | None = None,
) -> Run:
    """Run the campaign of a YAML file; `overrides` are `key.path=value` as with `--set`.

    Raises:
        InputError: the config, or what it names, is wrong; or the run directory holds a run already.
        Interrupted: by the user; `resume` goes on.
        CampaignError: the campaign failed.
    """
    checked, text = load_config(Path(config), overrides)
    chosen = out or checked.out or Path("runs") / f"{checked.name}-{checked.seed}"
    with RunDir.create(Path(chosen)) as directory:
        directory.put(CONFIG, text)
        directory.put(RESOLVED, pretty_json({"hash": checked.hash(), "config": checked.to_dict()}))
        try:
            return _go(checked, directory, observer or Silent())
        except InputError:
            if not directory.has(JOURNAL):  # nothing was run: leave the place free for a corrected config
                for name in (CONFIG, RESOLVED, ENVIRONMENT):
                    (directory.path / name).unlink(missing_ok=True)
            raise


def run_all(jobs: Sequence[Job]) -> list[RunData]:
    """Run the campaigns of a study side by side, one process a core; their results in the order of `jobs`.

    Raises:
        EvoquantError: as `run`, for the first job that fails.
    """
    # Forking a process that has started threads can hang; a fresh interpreter cannot.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return [load_run(path) for path in pool.map(_run_job, jobs)]


def _run_job(job: Job) -> Path:
    return run(job.config, out=job.out, overrides=[*job.overrides, "executor.kind=local"]).path


def resume(
    path: str | Path,
    *,
    executor: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    allow_code: Sequence[str] = (),
    observer: Observer | None = None,
) -> Run:
    """Go on with an interrupted campaign; a finished one is returned as it is.

    Raises:
        InputError: no run directory, another config than it was started with, or code that is not allowed.
        Interrupted: by the user.
        CampaignError: the campaign failed.
    """
    with RunDir.open(Path(path)) as directory:
        config = resolved_config(directory)
        if directory.has(CHAMPION) and directory.has(REPORT):
            return Run(directory.path, load_champion(directory.path / CHAMPION), fresh=False)
        require_allowed(config, allow_code, directory.path)
        given = {"kind": executor, "workers": workers, "address": address}
        changed = config.executor.model_copy(update={key: value for key, value in given.items() if value is not None})
        return _go(config.model_copy(update={"executor": changed}), directory, observer or Silent())


def load(path: str | Path) -> Champion:
    """The champion of a finished run directory, or of a champion file.

    Raises:
        InputError: there is none.
    """
    return load_any_champion(Path(path))


def pick(
    path: str | Path, *, parts: int | None = None, bits: float | None = None, retention: float | None = None
) -> Champion:
    """The fittest entry within limits of the archive that some searches keep (`map_elites`, `nsga2`).

    Args:
        path: a finished run directory.
        parts: at most so many parts of the heuristic.
        bits: at most so many effective bits per weight.
        retention: at least this retention.

    Raises:
        InputError: no finished run, no archive, or nothing in it keeps the limits.
    """
    directory = RunDir.open(Path(path), hold=False)
    if not directory.has(CHAMPION):
        raise InputError(f"{path}: the run is not finished; continue with: evoquant resume {path}")
    return pick_from(directory, load_champion(directory.path / CHAMPION), Limits(parts, bits, retention))


def resolved_config(directory: RunDir) -> CampaignConfig:
    """The config that a run directory was started with.

    Raises:
        RunDirError: resolved.json is damaged, or was changed after the start.
    """
    source = str(directory.path / RESOLVED)
    data = directory.read(RESOLVED)
    if not isinstance(data, dict) or "config" not in data or "hash" not in data:
        raise RunDirError(f"{source}: should hold `hash` and `config`.")
    config = config_from_dict(data["config"], source)
    if config.hash() != data["hash"]:
        raise RunDirError(
            f"{source}: the config does not give the hash it was started with ({str(data['hash'])[:12]}…); "
            f"restore the file, or start a new run for a changed config."
        )
    return config


def _go(config: CampaignConfig, directory: RunDir, observer: Observer) -> Run:
    from evoquant.errors import Interrupted

    try:
        campaign = build_campaign(config, cache_folder(config.cache, directory.path))
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted before the first generation; start with: evoquant resume {directory.path}"
        ) from None
    try:
        _check_inputs(directory, campaign.inputs)
        if campaign.profile is not None:
            directory.put(PROFILE, profile_to_json(campaign.profile))
        champion = run_loop(campaign, directory, observer)
    finally:
        campaign.close()
    if champion is not None:
        directory.put(REPORT, pretty_json(report_data(load_run(directory.path))))
    return Run(directory.path, champion)


def _check_inputs(directory: RunDir, inputs: dict[str, str]) -> None:
    """Note what the run reads at its start; refuse to go on with anything else."""
    if not directory.has(ENVIRONMENT):
        directory.put(ENVIRONMENT, pretty_json(environment_record(inputs=inputs)))
        return
    then: dict[str, Any] = directory.read(ENVIRONMENT)
    if then.get("inputs") != inputs:
        now = environment_record(inputs=inputs)
        raise RunDirError(
            f"{directory.path}: what the run reads has changed since it was started: {differences(then, now)}. "
            f"Restore it, or start a new run."
        )
