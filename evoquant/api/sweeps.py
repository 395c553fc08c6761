"""Many campaigns as one job: a sweep run, resumed and read back.

DIR/
  sweep.yaml              the file as given          resolved_sweep.json   what makes the same campaigns again
  <campaign>/             run directories            turns.jsonl           who worked when, for how long
  sweep.json              the table as data, once the sweep has ended

The campaigns take turns on the workers, in the order of a queue: whoever has had `turn_s` seconds goes to its end while
others wait. So each of n campaigns on w workers comes to its next turn after at most n / w turns of others, however
long any of them takes; once there are no more than workers, each keeps one until it is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evoquant.api.campaigns import require_known_cluster
from evoquant.api.sweep_driver import TURNS, Driver
from evoquant.campaign.config import ModelsConfig
from evoquant.campaign.config_measured import OnnxTaskConfig
from evoquant.campaign.config_sweep import Sweep, SweepExecutorConfig, load_sweep, sweep_from_dict
from evoquant.campaign.storage import RESOLVED, RunDir
from evoquant.campaign.storage_url import folder_of
from evoquant.errors import HeldError, InputError, RunDirError, describe_validation
from evoquant.files import is_file, pretty_json, read_json, read_text, write_atomic
from evoquant.models.code import imported
from evoquant.profiles.builtin import any_profile
from evoquant.report.sweep import is_finished, sweep_data, sweep_hash
from evoquant.report.sweep_progress import Nothing, SweepObserver
from evoquant.store import is_cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GIVEN, RECORD, RESULT, LOCK = "sweep.yaml", "resolved_sweep.json", "sweep.json", ".lock"


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep.

    Attributes:
        path: its directory.
        data: what sweep.json holds: a row for each combination.
        needed: distinct measured outcomes that the campaigns asked for, each by itself.
        measured: those that were measured; the others one campaign had from another.
    """

    path: Path
    data: Mapping[str, Any]
    needed: int = 0
    measured: int = 0

    @property
    def failed(self) -> list[str]:
        """Campaigns that failed."""
        return [failure["campaign"] for failure in self.data["failed"]]

    @property
    def runs(self) -> list[Path]:
        """Run directories of the sweep's campaigns, in its order."""
        return [self.path / cell.name for cell in opened_sweep(self.path).cells]


def is_sweep(path: Path) -> bool:
    """Whether a directory is a sweep's."""
    return is_file(Path(path) / RECORD)


def sweep(
    config: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    executor: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    observer: SweepObserver | None = None,
) -> SweepResult:
    """Run the campaigns of a sweep's YAML file, or go on with them: finished ones are kept.

    Args:
        config: the file.
        out: the sweep's directory; by default runs/<name>.
        overrides: `key.path=value`, changes to its base.
        executor: ray, local or `module:Class`; by default the file's, else ray.
        workers: so many campaigns run at once; by default one for each CPU.
        address: of an existing Ray cluster.
        observer: hears how it goes.

    Raises:
        InputError: the file, or one of its campaigns, is wrong; or the directory holds other campaigns.
        Interrupted: by the user; the same call goes on.
        CampaignError: no worker can be started, or the cluster is lost. A campaign that fails stands in the result.
    """
    path = Path(config)
    loaded = load_sweep(path, overrides)
    require_inputs(loaded, str(path))
    folder = folder_of(out or Path("runs") / loaded.config.name, "a sweep's directory")
    where = _where(loaded.config.executor, executor, workers, address)
    return _held(loaded, folder, where, observer, text=read_text(path))


def resume_sweep(
    path: str | Path,
    *,
    executor: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    allow_code: Sequence[str] = (),
    observer: SweepObserver | None = None,
) -> SweepResult:
    """Go on with a sweep by its directory; by default on the built-in executor, and as many workers with as much for
    each, that it was begun with.

    Raises:
        InputError: no sweep's directory, or it names code, a cluster or a runtime environment that is not allowed.
        Interrupted, CampaignError: as `sweep`.
    """
    folder = Path(path)
    loaded = opened_sweep(folder)
    missing = [name for name in loaded.code() if name not in allow_code]
    if missing:
        flags = " ".join(f"--allow-code {name}" for name in missing)
        raise InputError(f"{folder}: its campaigns name code ({', '.join(missing)}); to run it, repeat it: {flags}")
    begun = _begun(folder)
    require_known_cluster(begun, executor, address, allow_code, folder)
    return _held(loaded, folder, _where(begun, executor, workers, address), observer)


def read_sweep(path: str | Path) -> SweepResult:
    """A sweep's directory read back, finished or not; nothing in it is changed.

    Raises:
        InputError: it is none, or something in it is damaged.
    """
    folder = Path(path)
    loaded = opened_sweep(folder)
    failed: dict[str, str] = {}
    if is_file(folder / RESULT):
        told = read_json(folder / RESULT, error=RunDirError)
        with contextlib.suppress(KeyError, TypeError):
            failed = {str(one["campaign"]): str(one["message"]) for one in told["failed"]}
    failed = {name: why for name, why in failed.items() if not is_finished(folder / name)}
    return SweepResult(folder, sweep_data(folder, loaded, failed), *_spent(folder))


def opened_sweep(folder: Path) -> Sweep:
    """The sweep that a directory was begun with.

    Raises:
        RunDirError: it is none, or its record is damaged.
    """
    source = folder / RECORD
    if not is_file(source):
        raise RunDirError(f"{folder}: no sweep's directory: {RECORD} is missing. Was the sweep started at all?")
    data = read_json(source, error=RunDirError)
    if not isinstance(data, dict) or not isinstance(data.get("sweep"), dict):
        raise RunDirError(f"{source}: should hold `hash` and `sweep`; restore it, or give the sweep's file again.")
    given = data.get("folder")
    beside = Path(given) if isinstance(given, str) else folder
    found = sweep_from_dict(data["sweep"], str(source), beside, recorded=True)
    if sweep_hash(found) != data.get("hash"):
        raise RunDirError(
            f"{source}: the sweep does not give the hash it was started with; restore it, or give the sweep's file "
            f"again."
        )
    if found.config.cache is not None and not is_cache(found.config.cache):  # see `resolved_config`
        found = replace(found, config=found.config.model_copy(update={"cache": None}))
    return found


def _begun(folder: Path) -> SweepExecutorConfig:
    """Where a sweep was begun, by its record; the default where that was an executor of somebody's own.

    Raises:
        RunDirError: the record is damaged.
    """
    source = folder / RECORD
    try:
        found = SweepExecutorConfig.model_validate(read_json(source, error=RunDirError).get("executor"))
    except ValidationError as error:
        raise RunDirError(f"{describe_validation(error, f'{source}: executor')}") from None
    return found if found.own is None else SweepExecutorConfig()


def _where(
    config: SweepExecutorConfig, kind: str | None, workers: int | None, address: str | None
) -> SweepExecutorConfig:
    """Where a sweep runs: as configured, apart from what is given.

    Raises:
        InputError: no such executor.
    """
    given = {"kind": kind, "workers": workers, "address": address}
    plain = config.model_dump(mode="json") | {key: value for key, value in given.items() if value is not None}
    if plain["kind"] != config.kind:  # what belongs to the other one
        plain = {key: plain[key] for key in given}
    try:
        return SweepExecutorConfig.model_validate(plain)
    except ValidationError as error:
        raise InputError(describe_validation(error, "executor")) from None


def _held(
    loaded: Sweep,
    folder: Path,
    where: SweepExecutorConfig,
    observer: SweepObserver | None,
    text: str | None = None,
) -> SweepResult:
    """Run what is left, while no other process does."""
    for name in loaded.code():  # what is wrong with it is said now, and a cluster's nodes are sent what is imported
        imported(name, f"{loaded.config.name}: ")
    if RunDir(folder).has(RESOLVED):
        raise RunDirError(f"{folder}: holds the run of one campaign; choose another --out.")
    _require_same(loaded, folder, text is not None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunDirError(f"{folder}: cannot be made: {error.strerror or error}.") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldError(f"{folder}: another process is running this sweep; wait for it or stop it.") from None
        if text is not None:
            write_atomic(folder / GIVEN, text)
            record: dict[str, Any] = {"hash": sweep_hash(loaded), "folder": str(loaded.folder)}
            record |= {"executor": where.model_dump(mode="json"), "sweep": loaded.record()}
            write_atomic(folder / RECORD, pretty_json(record))
        data = Driver(loaded, folder, observer or Nothing()).run(where)
        write_atomic(folder / RESULT, pretty_json(data))
        return SweepResult(folder, data, *_spent(folder))
    finally:
        os.close(lock)


def require_inputs(loaded: Sweep, source: str) -> None:
    """Whether every profile and file that a campaign names is there, so that none is missed after an hour.

    Raises:
        InputError: naming the first campaign that lacks one.
    """
    known: set[str] = set()
    for cell in loaded.cells:
        config = cell.config
        if isinstance(config.task, OnnxTaskConfig):
            absent = [path for path in (config.task.model, config.task.data) if not is_file(Path(path))]
            if absent:
                raise InputError(f"{source}: campaign {cell.name}: {absent[0]}: does not exist.")
        models = (config.models or ModelsConfig()) if config.task is None else None
        for name in () if models is None else {*models.train, *models.valid, *models.test} - known:
            try:
                any_profile(name)
            except InputError as error:
                raise type(error)(f"{source}: campaign {cell.name}: {error}") from None
            known.add(name)


def _require_same(loaded: Sweep, folder: Path, begins: bool) -> None:
    again = f" What has begun there goes on with: evoquant resume {folder}"
    go_on = again if begins and is_file(folder / RECORD) else ""
    for cell in loaded.cells:
        directory = RunDir(folder / cell.name)
        if not directory.has(RESOLVED):
            continue
        found = directory.read(RESOLVED)
        if not isinstance(found, dict) or found.get("hash") != cell.config.hash():
            raise RunDirError(
                f"{folder / cell.name}: holds a run of another config than this sweep's; choose another --out, or "
                f"delete it.{go_on}"
            )


def _spent(folder: Path) -> tuple[int, int]:
    """Outcomes that the finished campaigns needed, and that all turns measured, as turns.jsonl has it."""
    needed: dict[str, int] = {}
    measured = 0
    if is_file(folder / TURNS):
        for line in read_text(folder / TURNS, error=RunDirError).splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a torn line, of a process that was killed
                record = json.loads(line)
                measured += int(record["measured"])
                needed[str(record["cell"])] = int(record["needed"])
    return sum(needed.values()), measured
