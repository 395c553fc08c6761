"""All access to a run directory: put atomically, append a record, list, lease."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.errors import RunDirError
from evoquant.files import canonical_json, parse_json, read_text, sync_folder, write_atomic

if TYPE_CHECKING:
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


class RunDir:
    """One run directory, held by at most one writing process at a time (a context manager)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make a new run directory and hold it.

        Raises:
            RunDirError: it holds a run already, or cannot be written to.
        """
        run = cls(path)
        if run.has(JOURNAL) or run.has(RESOLVED):
            raise RunDirError(
                f"{path}: holds a run already; continue it with `evoquant resume {path}` or choose another --out."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirError(f"{path}: cannot be made: {error.strerror or error}.") from None
        run._hold()
        return run

    @classmethod
    def open(cls, path: Path, *, hold: bool = True) -> RunDir:
        """Open an existing run directory.

        Raises:
            RunDirError: it is none, or another process holds it.
        """
        run = cls(path)
        if not path.is_dir():
            raise RunDirError(f"{path}: no such run directory.")
        if not run.has(RESOLVED):
            raise RunDirError(f"{path}: no run directory: {RESOLVED} is missing. Was the campaign started at all?")
        if hold:
            run._hold()
        return run

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
        except BlockingIOError:
            self.release()
            raise RunDirError(
                f"{self.path}: another process is running this campaign; wait for it or stop it."
            ) from None
        except OSError as error:
            raise RunDirError(f"{self.path}: cannot be written to: {error.strerror or error}.") from None

    def release(self) -> None:
        """Give the lease back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has(self, name: str) -> bool:
        """Whether the file exists."""
        return (self.path / name).is_file()

    def put(self, name: str, text: str) -> None:
        """Write a whole file atomically."""
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
        return parse_json(self.text(name), str(self.path / name), error=RunDirError)

    def append(self, name: str, record: Any, *, durable: bool = True) -> None:
        """Append one line of canonical JSON.

        Raises:
            RunDirError: the disk refuses; a torn line is dropped by the next resume.
        """
        self.append_line(name, canonical_json(record), durable=durable)

    def append_line(self, name: str, line: str, *, durable: bool = True) -> None:
        """Append one line of text, flushed to disk where `durable`."""
        path = self.path / name
        fresh = not path.exists()
        try:
            with path.open("ab") as stream:
                stream.write(line.encode() + b"\n")
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            if fresh and durable:
                sync_folder(self.path)
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
        text = read_text(path, limit=2**40, error=RunDirError)
        lines = text.split("\n")
        torn = lines.pop()
        if lines and not _is_json(lines[-1]):
            torn = lines.pop()
        for number, line in enumerate(lines, 1):
            if not _is_json(line):
                raise RunDirError(
                    f"{path}: line {number} is damaged; restore the file, or delete that line and all after it: "
                    f"resume evaluates them again."
                )
        if torn and repair:
            write_atomic(path, "".join(line + "\n" for line in lines))
        return lines


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
