"""All access to a run directory: put atomically, append a record, list, lease."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

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
WAITING_CHARACTERS = 2**26  # of lines that wait to be written, before whoever adds more waits, too


class RunDir:
    """One run directory, held by at most one writing process at a time (a context manager)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._place: tuple[int, int] | None = None  # of the directory that is held
        self._grown: set[str] = set()  # files that lines were appended to

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make a new run directory and hold it.

        Raises:
            RunDirError: it holds a run already, or cannot be written to.
        """
        run = cls(path)
        run._require_unused()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirError(f"{path}: cannot be made: {error.strerror or error}.") from None
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
        run = cls(path)
        if not is_folder(path):
            raise RunDirError(f"{path}: no such run directory.")
        if not run.has(RESOLVED):
            raise RunDirError(f"{path}: no run directory: {RESOLVED} is missing. Was the campaign started at all?")
        if hold:
            run._hold()
        return run

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
        data = read_bytes(path, limit=2**40, error=RunDirError).split(b"\n")
        torn = data.pop()
        if data and _record(data[-1]) is None:
            torn = data.pop()
        lines = []
        for number, raw in enumerate(data, 1):
            record = _record(raw)
            if record is None or record.get("generation") != number - 1:
                raise RunDirError(
                    f"{path}: line {number} is damaged; restore the file, or delete that line and all after it: "
                    f"resume evaluates them again."
                )
            lines.append(raw.decode())
        if repair:
            self._grown.add(JOURNAL)
            if torn:
                self._cut(path, sum(len(raw) + 1 for raw in data))
        return lines

    def _cut(self, path: Path, size: int) -> None:
        """Take off what follows so many bytes: in place, so that a full disk has room for it."""
        try:
            with path.open("r+b") as stream:
                stream.truncate(size)
                os.fsync(stream.fileno())
        except OSError as error:
            raise RunDirError(f"{path}: cannot be written: {error.strerror or error}.") from None


class Appender:
    """Appends lines to a file of a run in a thread of its own, in order; lines that come together are flushed together.

    What is added is durable after `drain`; a kill before that loses the last lines, never one in between.

    An interrupt may come at any place. Whoever waits does so for a queue that is written in C: it would leave the lock
    of a condition taken where it comes just behind it, and the thread that needs it waiting for ever.
    """

    def __init__(self, run: RunDir, name: str) -> None:
        self._run = run
        self._name = name
        self._waiting: SimpleQueue[str | SimpleQueue[None] | None] = SimpleQueue()  # a line, who waits for it, the end
        self._added = 0  # characters; of the one thread
        self._written = 0  # of the other
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
        self._check()
        if self._added - self._written > WAITING_CHARACTERS:
            self.drain()
        self._added += len(line)
        self._waiting.put(line)

    def drain(self) -> None:
        """Wait until all that was added is durable.

        Raises:
            RunDirError: the disk refused it.
        """
        self._wait()
        self._check()

    def close(self) -> None:
        """Write what is left, and end; a line that the disk refuses is lost, which the next resume makes good."""
        self._wait()
        if self._thread is not None:
            self._thread = None
            self._waiting.put(None)

    def _wait(self) -> None:
        if self._thread is not None:
            done: SimpleQueue[None] = SimpleQueue()
            self._waiting.put(done)
            done.get()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        ends = False
        while not ends:
            lines, told = [], []
            item = self._waiting.get()
            while True:
                if isinstance(item, str):
                    lines.append(item)
                elif item is None:
                    ends = True
                else:
                    told.append(item)
                if self._waiting.empty():  # nobody else takes from it
                    break
                item = self._waiting.get()
            try:
                if lines and self._error is None:
                    self._run.append_line(self._name, "\n".join(lines))
            except Exception as error:  # whatever it is, who waits for this thread has to hear of it
                self._error = error
            self._written += sum(map(len, lines))
            for done in told:
                done.put(None)


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
