"""Files of a campaign where they lie now: a run goes on in another folder, clone or job.

One that is gone from its place is looked for below the current folder, and taken where it holds the same.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_cost import TableCostConfig
from evoquant.campaign.config_files import file_digest
from evoquant.errors import InputError
from evoquant.files import is_file

if TYPE_CHECKING:
    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.config_cost import AnyCostConfig


def digests(config: CampaignConfig) -> dict[str, str]:
    """Path → sha256 of all files that a config names, tables of costs included."""
    tables = (cost for cost in (config.cost, *config.costs.values()) if isinstance(cost, TableCostConfig))
    return {**config.files, **{cost.file: str(cost.sha256) for cost in tables}}


def located(config: CampaignConfig) -> CampaignConfig:
    """The config with its files where they lie now, so far as they are found; its hash is the same."""
    known = digests(config)
    moved = {path: _place_of(path, digest, _is_model(config, path)) for path, digest in known.items()}
    if all(path == place for path, place in moved.items()):
        return config
    changed: dict[str, Any] = {"files": {moved[path]: digest for path, digest in config.files.items()}}
    if config.models is not None:
        splits = {split: getattr(config.models, split) for split in type(config.models).model_fields}
        names = {split: [moved.get(name, name) for name in given] for split, given in splits.items()}
        changed["models"] = config.models.model_copy(update=names)
    if config.task is not None:
        keys = {key: getattr(config.task, key, None) for key in ("model", "data")}
        found = {key: moved[path] for key, path in keys.items() if path in moved}
        changed["task"] = config.task.model_copy(update=found)

    def moved_table(cost: AnyCostConfig | None) -> AnyCostConfig | None:
        return cost.model_copy(update={"file": moved[cost.file]}) if isinstance(cost, TableCostConfig) else cost

    changed["cost"] = moved_table(config.cost)
    changed["costs"] = {name: moved_table(cost) for name, cost in config.costs.items()}
    return config.model_copy(update=changed)


def require_unchanged(config: CampaignConfig) -> None:
    """Begin with what was read when the config was checked.

    Raises:
        InputError: a file is another one by now, or cannot be read.
    """
    for path, digest in config.files.items():
        if (now := file_digest(path, _is_model(config, path))) != digest:
            raise InputError(
                f"{path}: has become another file: sha256 {digest[:12]}… when the campaign was made, {now[:12]}… now; "
                f"restore it, or make the campaign anew."
            )


def input_name(config: CampaignConfig, name: str) -> str:
    """What a run calls a profile that it reads: a built-in name; a file's name and what it holds, not its place."""
    return f"{Path(name).name} {config.files[name][:12]}" if name in config.files else name


def _is_model(config: CampaignConfig, path: str) -> bool:
    return path == getattr(config.task, "model", None)


def _place_of(path: str, digest: str, model: bool) -> str:
    """The path, where a file is; else the same file below the current folder, by the last parts of the path."""
    if is_file(Path(path)):
        return path
    parts = Path(path).parts[1:]
    if ".." in parts:  # of no config that was read from a file; it would lead out of the current folder
        return path
    for first in range(len(parts)):
        with contextlib.suppress(InputError):
            place = _here().joinpath(*parts[first:])
            if is_file(place) and file_digest(str(place), model) == digest:
                return str(place)
    return path


def _here() -> Path:
    """The current folder; by its name where it was removed and made again, as Ray does a job's on a shared machine."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.environ.get("PWD", "/"))
