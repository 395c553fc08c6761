"""All access to a run directory: put atomically, append a record, list, lease."""

from __future__ import annotations

import fcntl
import json
import os
import threading
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

WAITING_BYTES = 2**26  # of lines that wait to be written, before whoever adds more waits, too


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

    def put(self, name: str, text: str | bytes) -> None:
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


class Appender:
    """Appends lines to a file of a run in a thread of its own, in order; lines that come together are flushed together.

    What is added is durable after `drain`; a kill before that loses the last lines, never one in between.
    """

    def __init__(self, run: RunDir, name: str) -> None:
        self._run = run
        self._name = name
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._bytes = 0
        self._writing = False
        self._closed = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def add(self, line: str) -> None:
        """One more line.

        Raises:
            RunDirError: the disk refused an earlier one.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._write, name=f"append to {self._name}", daemon=True)
            thread.start()
            self._thread = thread
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < WAITING_BYTES or self._error is not None)
            self._check()
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until all that was added is durable.

        Raises:
            RunDirError: the disk refused it.
        """
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._writing) or self._error is not None)
            self._check()

    def close(self) -> None:
        """Write what is left, and end; a line that the disk refuses is lost, which the next resume makes good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                lines, self._lines, self._bytes, self._writing = self._lines, [], 0, True
            try:
                if lines:
                    self._run.append_line(self._name, "\n".join(lines))
            except Exception as error:  # whatever it is, who waits for this thread has to hear of it
                self._error = error
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                if self._error is not None or (self._closed and not self._lines):
                    return


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
