"""Files that a campaign's config names, in its plain data: found beside it, and counted in its hash by what they hold.

A config's `files` says what they held when it was read, so that where they lie is no part of the hash.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_cost import table_digest
from evoquant.errors import InputError, MissingExtraError
from evoquant.files import canonical_hash, read_bytes, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_FILE = 64 * 2**30  # bytes
LARGEST_MODEL = 2**31 - 1  # of an ONNX file itself; see `evoquant.models.onnx_file`
_IN_ANOTHER_FILE = b"location"  # stands in an ONNX file whose weights are in others


def resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Paths of files are relative to the config file; built-in names stay as they are."""
    for holder, key in _named(data):
        holder[key] = str((folder / holder[key]).resolve())
    for cost in _tables(data):
        cost["file"] = str((folder / cost["file"]).resolve())


def with_table_digests(data: dict[str, Any]) -> None:
    """Say in a config's plain data what its tables hold now, so that the files are not needed to check it again.

    A file that cannot be read is left to whoever checks the config.
    """
    for cost in _tables(data):
        with contextlib.suppress(InputError):
            cost.setdefault("sha256", table_digest(Path(cost["file"])))


def with_files(data: dict[str, Any], recorded: bool = False) -> None:
    """Say in a config's plain data, whose paths are absolute, what its files hold, where `files` does not say it yet.

    A file that cannot be read is left to whoever reads it. `recorded` data, of a sweep that has begun, says all that it
    said then: nothing in a sweep of before, whose hashes stay.
    """
    known = data.get("files") or {}
    if not isinstance(known, dict):  # left to whoever checks the config
        return
    found = {}
    for holder, key in _named(data):
        path = holder[key]
        if path in known:
            found[path] = known[path]
        elif not recorded:
            with contextlib.suppress(InputError):
                found[path] = file_digest(path, key == "model")
    for cost in _tables(data):
        if cost["file"] in known:  # by a sweep's record
            cost.setdefault("sha256", known[cost["file"]])
    data.pop("files", None)
    if found:
        data["files"] = found


def without_places(plain: dict[str, Any]) -> dict[str, Any]:
    """A config's plain data without where its files lie, which their sha256 makes up for; the same object."""
    files = plain.pop("files", {})
    for holder, key in _named(plain):
        if holder[key] in files:  # else a config of before, whose hash stays
            holder[key] = f"sha256:{files[holder[key]]}"
    for cost in _tables(plain):
        del cost["file"]
    return plain


def _named(data: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where a file's path stands in a config's plain data: the mapping or list, and the key in it."""
    task = data.get("task")
    if isinstance(task, dict) and task.get("kind") == "onnx":
        for key in ("model", "data"):
            if isinstance(task.get(key), str):
                yield task, key
    models = data.get("models")
    for names in models.values() if isinstance(models, dict) else ():
        for i, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name.endswith(".json"):
                yield names, i


def _tables(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables of costs in a config's plain data."""
    named = data.get("costs")
    for cost in (data.get("cost"), *(named.values() if isinstance(named, dict) else ())):
        if isinstance(cost, dict) and cost.get("kind") == "table" and isinstance(cost.get("file"), str):
            yield cost


def file_digest(path: str, model: bool) -> str:
    """sha256 of a file; of an ONNX model with weights in other files, of all of them.

    Raises:
        InputError: one cannot be read, or is too large.
    """
    own, others = _digest_now(Path(path)), _others(path, *_stamp(Path(path))) if model else ()
    return canonical_hash([own, [[other.name, _digest_now(other)] for other in others]]) if others else own


def _digest_now(path: Path) -> str:
    return _digest_then(path, *_stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file: the campaigns of a sweep name the same ones, which are read once."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        raise InputError(f"{shown(path)}: does not exist.") from None
    if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_FILE:
        raise InputError(f"{shown(path)}: is no file, or has more than {LARGEST_FILE} bytes.")
    return about.st_mtime_ns, about.st_size


@functools.lru_cache(maxsize=4096)
def _digest_then(path: Path, changed: int, size: int) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise InputError(f"{shown(path)}: cannot be read: {fault.strerror or fault}.") from None


@functools.lru_cache(maxsize=4096)
def _others(path: str, changed: int, size: int) -> tuple[Path, ...]:
    """Files that hold weights of an ONNX model."""
    if _IN_ANOTHER_FILE not in read_bytes(Path(path), limit=LARGEST_MODEL):
        return ()
    try:
        from evoquant.models.onnx_file import external_files
    except ImportError:
        raise MissingExtraError("ONNX files", "onnx", "onnx") from None
    return external_files(Path(path))
