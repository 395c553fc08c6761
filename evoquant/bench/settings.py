"""`config_hash`: where a row of results/ comes from. It is made here and nowhere else.

A row that reports one campaign has the hash of that campaign's resolved config, as its run directory states it. Any
other row (a baseline, an export, a runtime, a speed, a count of faults) has the same canonical hash of its settings:
the study, its protocol, and all else that determines the row: models with their profiles' digests, campaigns that it
rests on by their hashes, methods with their options, seeds, budgets, targets. A row that several cells measure a part
of has one hash, of the settings of them all.

Whoever measures writes it, whoever checks computes it again from the settings that the code has now, so that a setting
that was changed without measuring anew is found. Machine and versions are no settings: results/performance.jsonl and
results/reliability.jsonl have a row for them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evoquant.campaign.config import config_from_dict, load_config
from evoquant.errors import InputError
from evoquant.files import canonical_hash, read_bytes, read_text
from evoquant.profiles.builtin import any_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.scoring.objective import Objective

KEY = "config_hash"
Settings: TypeAlias = "str | Mapping[str, Any]"
"""The hash of the campaign that a row reports, or all that determines the row, as JSON."""


def settings_hash(study: str, settings: Settings, protocol: int = 1) -> str:
    """A row's `config_hash`.

    Args:
        study: that the row belongs to.
        settings: of the row.
        protocol: of the study; raised when it measures in another way that no setting shows.
    """
    if isinstance(settings, str):
        return settings
    return canonical_hash({"study": study, "protocol": protocol, **settings})


def with_hash(row: Mapping[str, Any], made: str, label: str) -> dict[str, Any]:
    """A row that was just measured, with its hash.

    Raises:
        InputError: it comes from a run with another config: one that was begun before the settings were changed.
    """
    if row.get(KEY, made) != made:
        raise InputError(
            f"{label}: comes from a run with config {row[KEY][:12]}, and its settings are now {made[:12]}; remove the "
            "run, which was begun with other settings, and measure it anew."
        )
    return {**row, KEY: made}


def campaign_hash(config: Path, changes: Sequence[str] = ()) -> str:
    """The hash of a campaign's resolved config.

    Args:
        config: YAML file.
        changes: overrides, `key.path=value`.

    Raises:
        ConfigError: as `load_config`.
    """
    about = config.stat()
    return _campaign_hash(config, tuple(changes), about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=4096)
def _campaign_hash(config: Path, changes: tuple[str, ...], changed: int, size: int) -> str:
    """Of a file as it was then; many rows rest on one campaign."""
    return load_config(config, changes)[0].hash()


def objective_settings(objective: Objective) -> dict[str, Any]:
    """An objective's kind and numbers; what it has none of is left out, as in a config."""
    numbers = dataclasses.asdict(objective)  # type: ignore[call-overload]
    return {"kind": type(objective).__name__, **{key: value for key, value in numbers.items() if value is not None}}


def search_settings(part: Mapping[str, Any]) -> dict[str, Any]:
    """A config's `search` with every default filled in, as the hash of a campaign has it.

    Raises:
        ConfigError: there is no such search.
    """
    found: dict[str, Any] = config_from_dict({"name": "search", "search": dict(part)}, "search").to_dict()["search"]
    return found


@functools.cache
def profile_digest(name: str) -> str:
    """Of a built-in model's profile.

    Raises:
        ProfileError: there is no such model.
    """
    return any_profile(name).digest


@functools.cache
def files_digest(*paths: Path) -> str:
    """sha256 of the files' bytes, one after the other.

    Raises:
        InputError: one is missing.
    """
    return hashlib.sha256(b"".join(read_bytes(path) for path in paths)).hexdigest()


def stated(path: Path, *, also: Sequence[str] = ()) -> dict[str, list[Any]]:
    """The settings that a module states: the literals of each constant at its top, in the order of its syntax tree.

    Read without importing. Of constants that it imports from modules beside it (`from .judging import BYTES`) those
    have theirs, too. Literals alone, for a path, a call or the layout of the text are no settings.

    Args:
        path: of the module.
        also: modules beside it of which all constants count.

    Raises:
        InputError: the file is missing or no Python.
    """
    own, imported = _constants(path)
    found = dict(own)
    for module, names in imported.items():
        beside = path.with_name(f"{module}.py")
        theirs = _constants(beside)[0] if beside.is_file() else {}
        found |= {name: theirs[name] for name in names if name in theirs}
    for module in also:
        found |= _constants(path.with_name(f"{module}.py"))[0]
    return found


def _constants(path: Path) -> tuple[dict[str, list[Any]], dict[str, list[str]]]:
    try:
        return _constants_in(read_text(path))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path}: is no Python: {error}") from None


@functools.lru_cache(maxsize=256)
def _constants_in(text: str) -> tuple[dict[str, list[Any]], dict[str, list[str]]]:
    """Constant → literals, those of several assignments to it together; module beside it → names imported from it."""
    found: dict[str, list[Any]] = {}
    imported: dict[str, list[str]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is not None:
            imported[node.module] = [name.name for name in node.names]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            if names and all(name.isupper() for name in names):
                literals = [_plain(part.value) for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                for name in names:
                    found[name] = found.get(name, []) + literals
    return found, imported


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
