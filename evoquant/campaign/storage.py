"""All access to a run directory: put atomically, append a record, list, lease."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

from evoquant.campaign.storage_url import Url
from evoquant.errors import HeldError, RunDirError
from evoquant.files import (
    canonical_json,
    clear_leftovers,
    is_file,
    is_folder,
    parse_json,
    read_bytes,
    read_text,
    sync_folder,
    write_atomic,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

JOURNAL = "journal.jsonl"
TIMINGS = "timings.jsonl"
CHECKPOINT = "checkpoint.json"
CHAMPION = "champion.json"
CONFIG = "config.yaml"
RESOLVED = "resolved.json"
ENVIRONMENT = "environment.json"
REPORT = "report.json"
PROFILE = "profile.json"
ARCHIVE = "archive.json"
GATE = "gate.json"
WHOLE = (CHECKPOINT, CHAMPION, CONFIG, RESOLVED, ENVIRONMENT, REPORT, PROFILE, ARCHIVE, GATE)  # written by `put`

REMEDY = {  # of a damaged file; the others are named by whoever reads them
    RESOLVED: "restore it, or start a new run",
    ENVIRONMENT: "delete it; resume writes it again, and cannot say what has changed since the start",
}


class RunDir:
    """One run directory, held by at most one writing process at a time (a context manager)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._place: tuple[int, int] | None = None  # of the directory that is held
        self._grown: set[str] = set()  # files that lines were appended to

    @staticmethod
    def at(path: Path) -> RunDir:
        """The run directory of a place, a folder's path or a `Url`, whether there is one or not; not held."""
        if isinstance(path, Url):
            from evoquant.campaign.storage_remote import RemoteRunDir

            return RemoteRunDir(path)
        return RunDir(path)

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make a new run directory and hold it.

        Raises:
            RunDirError: it holds a run already, or cannot be written to.
        """
        run = cls.at(path)
        run._require_unused()
        run._make()
        run._hold()
        try:
            run._require_unused()  # another process may have had it in between
        except BaseException:
            run.release()
            raise
        return run

    @classmethod
    def open(cls, path: Path, *, hold: bool = True) -> RunDir:
        """Open an existing run directory.

        Raises:
            RunDirError: it is none, or another process holds it.
        """
        run = cls.at(path)
        if not run._is_there():
            raise RunDirError(f"{path}: no such run directory.")
        if not run.has(RESOLVED):
            raise RunDirError(f"{path}: no run directory: {RESOLVED} is missing. Was the campaign started at all?")
        if hold:
            run._hold()
        return run

    def _is_there(self) -> bool:
        return is_folder(self.path)

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirError(f"{self.path}: cannot be made: {error.strerror or error}.") from None

    def _require_unused(self) -> None:
        if self.has(JOURNAL) or self.has(RESOLVED):
            raise RunDirError(
                f"{self.path}: holds a run already; continue it with `evoquant resume {self.path}` or choose another "
                f"--out."
            )

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _hold(self) -> None:
        """Take the lease; the operating system drops it with the process, so a killed run can be resumed at once."""
        try:
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._place = _identity(self.path)
            self._tidy()
        except BlockingIOError:
            self.release()
            raise HeldError(f"{self.path}: another process is running this campaign; wait for it or stop it.") from None
        except OSError as error:
            self.release()
            raise RunDirError(f"{self.path}: cannot be written to: {error.strerror or error}.") from None

    def _tidy(self) -> None:
        """What a killed process left: temporary files, and a torn line that the next one would be appended to."""
        for name in WHOLE:
            clear_leftovers(self.path / name)
        if self.has(TIMINGS):
            data = (self.path / TIMINGS).read_bytes()
            if data and not data.endswith(b"\n"):
                os.truncate(self.path / TIMINGS, data.rfind(b"\n") + 1)

    def _require_same(self, missing: bool = False) -> None:
        """Whether the directory is still the one that is held; a new one would get the rest of a run, and no more."""
        if self._lock is not None and (missing or _identity(self.path) != self._place):
            raise RunDirError(
                f"{self.path}: the run directory, or its journal, was removed or replaced while the campaign ran; "
                f"restore it and resume, or start a new run."
            )

    def release(self) -> None:
        """Give the lease back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def abandon(self, names: Iterable[str]) -> None:
        """Take back a run that never began: these files, the lease, and the directory where nothing else is in it."""
        for name in (*names, ".lock"):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def has(self, name: str) -> bool:
        """Whether the file exists."""
        return is_file(self.path / name)

    def put(self, name: str, text: str | bytes) -> None:
        """Write a whole file atomically.

        Raises:
            RunDirError: the directory that is held is gone.
            InputError: the disk refuses.
        """
        self._require_same()
        write_atomic(self.path / name, text)

    def text(self, name: str) -> str:
        """The text of a file.

        Raises:
            RunDirError: missing or unreadable.
        """
        return read_text(self.path / name, error=RunDirError)

    def read(self, name: str) -> Any:
        """The JSON value of a file.

        Raises:
            RunDirError: missing, unreadable or damaged.
        """
        try:
            return parse_json(self.text(name), str(self.path / name), error=RunDirError)
        except RunDirError as error:
            if name not in REMEDY:
                raise
            raise RunDirError(f"{str(error).removesuffix('.')}; {REMEDY[name]}.") from None

    def append(self, name: str, record: Any, *, durable: bool = True) -> None:
        """Append one line of canonical JSON.

        Raises:
            RunDirError: the disk refuses; a torn line is dropped by the next resume.
        """
        self.append_line(name, canonical_json(record), durable=durable)

    def append_line(self, name: str, line: str, *, durable: bool = True) -> None:
        """Append one line of text, flushed to disk where `durable`.

        Raises:
            RunDirError: the disk refuses, or the directory that is held, or the file, is gone.
        """
        path = self.path / name
        fresh = not path.exists()
        self._require_same(missing=fresh and name in self._grown)
        if not fresh and not is_file(path):  # a pipe would wait for a reader for ever
            raise RunDirError(f"{path}: is no file; move it away and resume.")
        try:
            with path.open("ab") as stream:
                stream.write(line.encode() + b"\n")
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            if fresh and durable:
                sync_folder(self.path)
            self._grown.add(name)
        except OSError as error:
            raise RunDirError(f"{path}: cannot be appended to: {error.strerror or error}.") from None

    def journal(self, *, repair: bool = False) -> list[str]:
        """The complete lines of the journal, oldest first.

        A last line without its newline, or that is no JSON, is the trace of a crash: it is left out and, with
        `repair`, cut off the file.

        Raises:
            RunDirError: a line before the last is damaged.
        """
        path = self.path / JOURNAL
        if not path.exists():
            return []
        lines, whole, torn = complete_lines(read_bytes(path, limit=2**40, error=RunDirError), path)
        if repair:
            self._grown.add(JOURNAL)
            if torn:
                self._cut(path, whole)
        return lines

    def _cut(self, path: Path, size: int) -> None:
        """Take off what follows so many bytes: in place, so that a full disk has room for it."""
        try:
            with path.open("r+b") as stream:
                stream.truncate(size)
                os.fsync(stream.fileno())
        except OSError as error:
            raise RunDirError(f"{path}: cannot be written: {error.strerror or error}.") from None


def complete_lines(data: bytes, source: Path) -> tuple[list[str], int, bool]:
    """The complete lines of a journal's bytes, how many bytes they take, and whether something torn follows them.

    Raises:
        RunDirError: a line before the last is damaged; the message names `source`.
    """
    pieces = data.split(b"\n")
    pieces.pop()
    if pieces and _record(pieces[-1]) is None:
        pieces.pop()
    lines = []
    for number, raw in enumerate(pieces, 1):
        record = _record(raw)
        if record is None or record.get("generation") != number - 1:
            raise RunDirError(
                f"{source}: line {number} is damaged; restore the file, or delete that line and all after it: "
                f"resume evaluates them again."
            )
        lines.append(raw.decode())
    whole = sum(len(raw) + 1 for raw in pieces)
    return lines, whole, whole < len(data)


def _record(raw: bytes) -> dict[str, Any] | None:
    """What a line of the journal holds, or None where it is none."""
    try:
        record = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a directory from another of its name; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
