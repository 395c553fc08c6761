"""Files at the boundary: bounded reads, strict JSON, atomic writes.

Everything that a user may hand us goes through here, so that a damaged, huge or hostile file
ends in one clear message, and nothing on disk is ever half-written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES = 256 * 2**20
MAX_DEPTH = 64
MAX_VALUES = 2**23
LONGEST_PATH = 4096
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MAY_OVERFLOW = re.compile(r"[eE]\+?\d{3}|\d{200}")  # what may be too large for a float
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
STALE_S = 3600.0  # a temporary file of that age is nobody's any more
# What steers a terminal or turns the direction of writing, and halves of characters, which UTF-8 cannot hold.
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


def read_text(path: Path, *, limit: int = MAX_BYTES, error: type[InputError] = InputError) -> str:
    """Return the UTF-8 text of `path`, at most `limit` bytes.

    Raises:
        InputError: (or the given subclass) the file is missing, no regular file, too large or not UTF-8.
    """
    try:
        return read_bytes(path, limit=limit, error=error).decode("utf-8")
    except UnicodeDecodeError as fault:
        remedy = "it looks like UTF-16: save it as UTF-8." if fault.object[:2] in _UTF16 else "is this the right file?"
        raise error(f"{shown(path)}: not UTF-8 text (byte {fault.start}); {remedy}") from None


def read_bytes(path: Path, *, limit: int = MAX_BYTES, error: type[InputError] = InputError) -> bytes:
    """Return the content of `path`, at most `limit` bytes.

    Raises:
        InputError: (or the given subclass) the file is missing, no regular file or too large.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # who opens a pipe waits for its other end
            kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
            raise error(f"{shown(path)}: is {kind}, not a file.")
        if found.st_size > limit:
            raise error(f"{shown(path)}: {found.st_size} bytes; the limit for such a file is {limit} bytes.")
        return path.read_bytes()
    except FileNotFoundError:
        raise error(f"{shown(path)}: does not exist.") from None
    except OSError as fault:
        raise error(f"{shown(path)}: cannot be read: {fault.strerror or fault}.") from None
    except ValueError:  # a NUL byte, half a character
        raise error(f"{shown(path)}: is no name that a file can have.") from None


def is_file(path: Path) -> bool:
    """Whether a regular file is there that one can get at; False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a directory is there that one can get at; False for a name that none can have."""
    try:
        return path.is_dir()
    except OSError:
        return False


def shown(path: Path) -> str:
    """A path for a message: as it is, or with escapes and an end where it could not stand on a line."""
    text = str(path)
    return text if text.isprintable() and len(text) <= LONGEST_PATH else quoted(text)


def parse_json(text: str, source: str, *, error: type[InputError] = InputError) -> Any:
    """Parse strict JSON: no NaN or infinity, no repeated keys, no half characters, nesting at most 64 deep.

    Raises:
        InputError: (or the given subclass) naming `source` and the place.
    """

    text = text.removeprefix("\ufeff")  # some editors begin a file with it
    # Each value follows a comma or a bracket. As objects they take some eighty bytes each.
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise error(f"{source}: more than {MAX_VALUES} values.")

    def no_constant(name: str) -> Any:
        raise error(f"{source}: {name} is not a JSON number; a value that failed is null.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise error(f"{source}: the key {quoted(key)} stands twice; keep one of them.")
            result[key] = value
        return result

    def finite(token: str) -> float:
        value = float(token)
        if not math.isfinite(value):
            raise error(f"{source}: the number {token[:40]} is too large for a float.")
        return value

    to_float = finite if _MAY_OVERFLOW.search(text) else None  # else no call for every number
    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=unique, parse_float=to_float)
    except json.JSONDecodeError as fault:
        raise error(f"{source}: not JSON: {fault.msg} at line {fault.lineno}, column {fault.colno}.") from None
    except RecursionError:
        raise error(f"{source}: nested more than {MAX_DEPTH} deep.") from None
    except ValueError as fault:  # an integer with thousands of digits
        raise error(f"{source}: {fault}.") from None
    if _deeper_than(value, MAX_DEPTH):
        raise error(f"{source}: nested more than {MAX_DEPTH} deep.")
    if _HALF.search(text) and (broken := first_lone_surrogate(value)) is not None:
        raise error(f"{source}: {quoted(broken, 60)} holds half a character, which is no text; correct it.")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def first_lone_surrogate(value: Any) -> str | None:
    """The first text in plain data that UTF-8 cannot hold, keys included; None where all is well."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                return item
        elif isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            stack += item
    return None


def read_json(path: Path, *, limit: int = MAX_BYTES, error: type[InputError] = InputError) -> Any:
    """`parse_json` of the file `path`."""
    return parse_json(read_text(path, limit=limit, error=error), str(path), error=error)


def canonical_json(value: Any) -> str:
    """One line of JSON with sorted keys and shortest round-trip floats: equal values give equal text."""
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_hash(value: Any) -> str:
    """sha256 of the canonical JSON, as hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def pretty_json(value: Any) -> str:
    """Indented JSON for files that people read, with escapes for what they would not see; ends with a newline."""
    text = json.dumps(value, allow_nan=False, indent=2, ensure_ascii=False)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    A temporary file that a killed process left behind here goes with the next write, an hour later.

    Raises:
        InputError: the folder cannot be written to.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path, older_s=STALE_S)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as fault:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if not isinstance(fault, OSError):
            raise
        raise InputError(f"{path}: cannot be written: {fault.strerror or fault}.") from None


def clear_leftovers(path: Path, *, older_s: float = 0.0) -> None:
    """Remove the temporary files that killed writers of `path` left behind, so far as the disk lets us."""
    named = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.tmp")  # as mkstemp names them
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if named.fullmatch(entry.name) and time.time() - entry.stat().st_mtime >= older_s:
                os.unlink(entry.path)


def write_together(path: Path, content: bytes | str, beside: Mapping[Path, bytes | str]) -> None:
    """Write a file and those that lie beside it, the file last: where it is new, all are there.

    Args:
        path: of the main file.
        content: of it.
        beside: path → content of the others; where anything fails, those that were not there before go again.

    Raises:
        InputError: one cannot be written.
    """
    made = [other for other in beside if not other.exists()]
    try:
        for other, text in beside.items():
            write_atomic(other, text)
        write_atomic(path, content)
    except BaseException:
        for other in made:
            with contextlib.suppress(OSError):
                other.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Within, no other process is that asks by the same path, a file that is there meanwhile; the others wait.

    The operating system lets the next one in where a process is killed. Where no such file can be made nobody waits.
    """
    handle = None
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """The permissions that this process withholds from new files."""
    with contextlib.suppress(OSError):  # Linux says it; to ask by changing it lets other threads make open files
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask
