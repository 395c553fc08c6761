"""Measured outcomes on disk: nothing is measured twice, whichever genome, campaign or budget asks.

A cache: safe to delete, and rebuilt by measuring again. Only the driver writes to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

# The number is the table's version: another layout takes another file. 3: those of 2 may be of networks in which a
# module that came twice in an `nn.Sequential` ran once, and their digests do not cover the key.
FILE = "outcomes-3.sqlite"
WAIT_S = 60.0
COLUMNS = 2  # of an outcome: score and divergence
_DAMAGED = (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
_KEYS_PER_QUERY = 500  # below SQLite's oldest limit of variables in a statement
CLAIMS = "claims"  # folder of a file for each process that measures for others, too
LOOK_S = (0.01, 0.2)  # from, to: between looks at what others measure
_SHARING: list[bool] = []


def outcome_key(
    allocation: Sequence[str], model_digest: str, block_digest: str, quantizer_version: str, numeric_environment: str
) -> str:
    """sha256 hex of everything that decides the outcomes of a measurement.

    Args:
        allocation: one precision name per layer, in layer order.
        model_digest: of architecture and weights.
        block_digest: of inputs and labels.
        quantizer_version: the quantizer's.
        numeric_environment: versions, CPU features and batch size.
    """
    content = {
        "allocation": list(allocation),
        "model": model_digest,
        "block": block_digest,
        "quantizer": quantizer_version,
        "environment": numeric_environment,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


class Store:
    """Outcomes by key, in one SQLite file in WAL mode; several campaigns may share it. A context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, folder: Path) -> Store:
        """The store in `folder`, made where there is none; a damaged one is moved aside and started anew.

        Raises:
            InputError: the folder cannot be written to.
        """
        path = folder / FILE
        kind = SharedStore if _SHARING else cls
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                return kind(path, _connect(path))
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not _is_damage(error):
                    raise
                _move_aside(path)
                return kind(path, _connect(path))
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{path}: the store of outcomes cannot be used: {error}; set another `cache:`.") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Key → `(samples, 2)` float32 outcomes, read-only, for those keys that are known.

        An outcome that does not match its digest is forgotten, so that it can be put again.

        Raises:
            InputError: the file cannot be read.
        """
        wanted = list(dict.fromkeys(keys))
        rows: list[tuple[str, Any, Any]] = self._guarded(lambda: self._select(wanted), otherwise=[])
        found: dict[str, NDArray[np.float32]] = {}
        damaged: list[str] = []
        for key, value, digest in rows:
            if isinstance(key, str) and isinstance(value, bytes) and _digest(key, value) == digest:
                found[key] = np.frombuffer(value, dtype="<f4").reshape(-1, COLUMNS)
            else:
                damaged.append(key)
        if damaged:
            self._guarded(lambda: self._write("DELETE FROM outcomes WHERE key = ?", [(key,) for key in damaged]))
        return found

    def put(self, items: Mapping[str, NDArray[np.float32]]) -> None:
        """Add outcomes in one transaction; keys that are known keep theirs.

        Raises:
            InputError: the file cannot be written.
        """
        rows = []
        for key, outcome in items.items():
            value = np.ascontiguousarray(outcome, dtype="<f4").tobytes()
            rows.append((key, value, _digest(key, value)))
        statement = "INSERT OR IGNORE INTO outcomes (key, value, digest) VALUES (?, ?, ?)"
        self._guarded(lambda: self._write(statement, rows), again=True)

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Within, those of the keys that are this caller's to measure; here all: others may measure the same."""
        yield list(keys)

    def wait(self, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """What others have measured of keys that `claim` did not give; returns as soon as there is something to do."""
        return self.get(keys)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._connection.close()

    def _select(self, keys: list[str]) -> list[tuple[str, Any, Any]]:
        rows: list[tuple[str, Any, Any]] = []
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            rows += self._connection.execute(f"SELECT key, value, digest FROM outcomes WHERE key IN ({marks})", part)
        return rows

    def _write(self, statement: str, rows: list[Any]) -> None:
        if not rows:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _guarded(self, action: Callable[[], Any], *, otherwise: Any = None, again: bool = False) -> Any:
        """`action`; where the file turns out damaged, begin a new one and act `again` on it or return `otherwise`."""
        try:
            try:
                return action()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not _is_damage(error):
                    raise
                self._connection.close()
                _move_aside(self.path)
                self._connection = _connect(self.path)
                return action() if again else otherwise
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path}: the store of outcomes failed: {error}; set another `cache:`.") from None


class SharedStore(Store):
    """A store whose users leave to each other what one of them is measuring just now; all on one machine.

    Who measures keys has them in the table `claims` under its own name, which is that of a file that it holds locked.
    The operating system drops the lock with the process: claims of one that was killed count no more.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        folder = path.parent / CLAIMS
        folder.mkdir(exist_ok=True)
        self._me = folder / f"{os.getpid()}-{secrets.token_hex(8)}.lock"
        self._held = os.open(self._me, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Within, those of the keys that are this caller's to measure: not known, and nobody's who lives.

        Nobody waits while he holds a claim, so that no two wait for each other.

        Raises:
            InputError: the file cannot be written.
        """
        mine: list[str] = self._guarded(lambda: self._claimed(list(keys)), otherwise=list(keys))
        try:
            yield mine
        finally:
            rows = [(key, self._me.name) for key in mine]
            self._guarded(lambda: self._write("DELETE FROM claims WHERE key = ? AND owner = ?", rows))

    def wait(self, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """What others have measured of the keys, as soon as there is any, or one of them is nobody's any more.

        Raises:
            InputError: the file cannot be read.
        """
        pause = LOOK_S[0]
        while True:
            found = self.get(keys)
            owners: dict[str, str] = self._guarded(lambda: self._owners(list(keys)), otherwise={})
            if found or any(key not in owners or not self._lives(owners[key]) for key in keys):
                return found or self.get(keys)  # it may have come between the two looks
            time.sleep(pause)
            pause = min(2 * pause, LOOK_S[1])

    def close(self) -> None:
        """Close the file, and give up all claims."""
        super().close()
        self._me.unlink(missing_ok=True)
        os.close(self._held)

    def _claimed(self, keys: list[str]) -> list[str]:
        """Take those that are free, in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            known = {key for key, _, _ in self._select(keys)}
            owners = self._owners(keys)
            living = {owner: self._lives(owner) for owner in set(owners.values())}
            mine = [key for key in keys if key not in known and not living.get(owners.get(key, ""), False)]
            rows = [(key, self._me.name) for key in mine]
            self._connection.executemany("INSERT OR REPLACE INTO claims (key, owner) VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        return mine

    def _owners(self, keys: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            found.update(self._connection.execute(f"SELECT key, owner FROM claims WHERE key IN ({marks})", part))
        return found

    def _lives(self, owner: str) -> bool:
        """Whether the process that has this name is there: it holds its file locked; else the file goes."""
        path = self._me.with_name(Path(owner).name)
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        path.unlink(missing_ok=True)
        return False


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Within, stores that are opened leave to each other what one of them is measuring just now."""
    _SHARING.append(True)
    try:
        yield
    finally:
        _SHARING.pop()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a crash may lose the last outcomes, never the file
        connection.execute(
            "CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL)"
        )
        connection.execute("CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL)")
        connection.execute("SELECT key, value, digest FROM outcomes LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _digest(key: str, value: bytes) -> bytes:
    """Of both: a damaged index may lead to another key's outcome."""
    return hashlib.sha256(key.encode() + b"\0" + value).digest()


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is at fault, rather than a lock, a full disk or its permissions.

    Statements here are fixed and right: that one is refused (ERROR), or that there is text in the file that is none (no
    code; also where SQLite's message quotes it), is the file's fault.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _move_aside(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, part.with_name(part.name + ".damaged"))


def is_cache(folder: str) -> bool:
    """Whether there is a cache of ours in a folder already."""
    try:
        place = Path(folder).expanduser()
        return (place / FILE).is_file() or (place / "networks").is_dir()
    except (OSError, RuntimeError, ValueError):  # no name that a folder can have
        return False


def cache_folder(configured: str | None, run_dir: Path) -> Path:
    """The folder for outcomes and trained networks, created: the first of these that can be written to.

    `configured`, the environment's EVOQUANT_CACHE, ~/.cache/evoquant, RUN_DIR/cache.

    Raises:
        InputError: none can.
    """
    named = [text for text in (configured, os.environ.get("EVOQUANT_CACHE")) if text]
    candidates = [*(Path(text) for text in named), Path("~/.cache/evoquant"), run_dir / "cache"]
    for candidate in candidates:
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home directory
            folder = candidate.expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    shown = ", ".join(str(candidate) for candidate in candidates)
    raise InputError(f"no folder for the cache: none of {shown} can be written to; set `cache:` to one that can.")
