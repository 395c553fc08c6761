"""A finished run read back: the config that it was started with, and what its gate lets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.campaign.champion import Champion, load_champion
from evoquant.campaign.config import CampaignConfig, config_from_dict
from evoquant.campaign.gate_file import gated as gated_champion
from evoquant.campaign.kept_tables import with_kept_tables
from evoquant.campaign.located import located
from evoquant.campaign.storage import CHAMPION, PROFILE, REMEDY, RESOLVED, RunDir
from evoquant.campaign.storage_url import place_of
from evoquant.errors import InputError, RunDirError
from evoquant.profiles.model import load_profile
from evoquant.store import is_cache

if TYPE_CHECKING:
    from pathlib import Path

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def gated(path: str | Path, *, ungated: bool = False) -> tuple[Champion, ModelProfile, Menu] | None:
    """What a measured run's gate recommends, with the network's profile and menu; None for runs on profiles.

    Args:
        path: a finished run directory.
        ungated: the champion instead, whatever the gate says; its provenance says so.

    Raises:
        InputError: the run is not finished.
        RunDirError: it has no gate.json.
    """
    directory = RunDir.open(place_of(path), hold=False)
    config = resolved_config(directory)
    if config.task is None:
        return None
    if not directory.has(CHAMPION):
        raise InputError(f"{path}: the run is not finished; continue with: evoquant resume {path}")
    found = load_profile(directory.path / PROFILE)
    champion = gated_champion(directory, load_champion(directory.path / CHAMPION), found.name, ungated=ungated)
    return champion, found, config.resolved_menu


def resolved_config(directory: RunDir) -> CampaignConfig:
    """The config that a run directory was started with.

    Raises:
        RunDirError: resolved.json is damaged, or was changed after the start.
    """
    source = str(directory.path / RESOLVED)
    data = directory.read(RESOLVED)
    if not isinstance(data, dict) or "config" not in data or "hash" not in data:
        raise RunDirError(f"{source}: should hold `hash` and `config`; {REMEDY[RESOLVED]}.")
    config = config_from_dict(data["config"], source)
    if config.hash() != data["hash"]:
        raise RunDirError(
            f"{source}: the config does not give the hash it was started with ({str(data['hash'])[:12]}…); "
            f"restore the file, or start a new run for a changed config."
        )
    if config.cache is not None and not is_cache(config.cache):
        # The hash leaves it out, and so may be anybody's: nothing is made wherever a run directory says.
        config = config.model_copy(update={"cache": None})
    return with_kept_tables(located(config), directory)
