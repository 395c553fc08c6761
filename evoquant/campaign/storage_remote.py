"""A run directory in an object store: the same files as objects, logs as numbered segments, a lease that is renewed.

    s3://bucket/runs/mine/resolved.json          a whole object, as any but these:
    s3://bucket/runs/mine/journal/000000.jsonl   the journal, in pieces that are each written once
    s3://bucket/runs/mine/timings/000000.jsonl
    s3://bucket/runs/mine/lease.json             who writes

The segments one behind the other are the bytes that a local run's journal has.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from evoquant.campaign.storage import JOURNAL, TIMINGS, RunDir, complete_lines
from evoquant.campaign.storage_lease import LEASE, SAFE_S, Held, Lease
from evoquant.errors import HeldError, RunDirError
from evoquant.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from evoquant.campaign.storage_objects import Objects
    from evoquant.campaign.storage_url import Url

SEGMENTED = (JOURNAL, TIMINGS)
DIGITS = 6  # of a segment's number; more where that is not enough
AT_ONCE = 16  # segments that are read side by side
FLUSH_EVERY_S = 2.0  # lines that need not be durable wait so long at most


class RemoteRunDir(RunDir):
    """One run directory below a `Url`, held by at most one writing process at a time."""

    def __init__(self, path: Url, objects: Objects | None = None) -> None:
        """A place, and what is there: by default what the URL says.

        Raises:
            InputError: the package for it is not installed.
        """
        super().__init__(path)
        self._objects = path.objects() if objects is None else objects
        self._lease: Lease | None = None
        self._next: dict[str, int] = {}  # file → number of its next segment
        self._waiting: list[str] = []  # timings
        self._flushed = time.monotonic()
        self._appending = {name: threading.Lock() for name in SEGMENTED}

    def _is_there(self) -> bool:
        try:
            return bool(self._objects.names())
        except OSError as error:
            self._refused("cannot be read", error)

    def _make(self) -> None:
        """Nothing: a store has no folders."""

    def _hold(self) -> None:
        lease = Lease(self._objects)
        try:
            lease.take()
        except Held as error:
            raise HeldError(
                f"{self.path}: another process is running this campaign; wait for it or stop it. {error}"
            ) from None
        except OSError as error:
            self._refused("cannot be written to", error)
        self._lease = lease

    def _require_same(self, missing: bool = False) -> None:
        """Whether this process is still the one that may write."""
        if self._lease is not None and self._lease.lost:
            raise RunDirError(
                f"{self.path}: another process has taken the run over, or the store could not be reached for "
                f"{SAFE_S:.0f} s; nothing more is written. When no other runs it: evoquant resume {self.path}"
            )

    def release(self) -> None:
        """Write the timings that wait, where that is still allowed, and give the lease back."""
        if self._lease is not None:
            with suppress(RunDirError):
                self._flush()
            self._lease.release()
            self._lease = None

    def abandon(self, names: Iterable[str]) -> None:
        """Take back a run that never began; not where another process has it by now."""
        if self._lease is None or self._lease.lost:
            return
        with suppress(OSError):
            for name in names:
                self._objects.remove(name)
            for segment in self._objects.names(_folder(TIMINGS)):
                self._objects.remove(segment)
        self._waiting.clear()
        self.release()
        with suppress(OSError):
            self._objects.remove(LEASE)

    def has(self, name: str) -> bool:
        """Whether the object exists, or a segment of it.

        Raises:
            RunDirError: the store cannot be reached.
        """
        try:
            if name in SEGMENTED:
                return bool(self._objects.names(_folder(name)))
            return self._objects.size(name) is not None
        except OSError as error:
            self._refused("cannot be read", error)

    def put(self, name: str, text: str | bytes) -> None:
        """Write a whole object.

        Raises:
            RunDirError: another process has taken over, or the store refuses.
        """
        self._require_same()
        try:
            self._objects.write(name, text.encode() if isinstance(text, str) else text)
        except OSError as error:
            self._refused(f"{name} cannot be written", error)

    def text(self, name: str) -> str:
        """The text of an object, or of all segments.

        Raises:
            RunDirError: missing or unreadable.
        """
        return self._segments(name).decode("utf-8", errors="replace") if name in SEGMENTED else super().text(name)

    def append_line(self, name: str, line: str, *, durable: bool = True) -> None:
        """Append a line as a new segment; those that need not be durable wait for others.

        Raises:
            RunDirError: another process has taken over, or the store refuses.
        """
        if name == TIMINGS:
            self._waiting.append(line)
            if durable or time.monotonic() - self._flushed > FLUSH_EVERY_S:
                self._flush()
        else:
            self._add(name, line)

    def journal(self, *, repair: bool = False) -> list[str]:
        """The complete lines of the journal, oldest first; see `RunDir.journal`.

        What is torn, which no store that writes objects whole leaves behind, is taken away with `repair`.

        Raises:
            RunDirError: a line before the last is damaged, or the store cannot be read.
        """
        segments = self._read_segments(JOURNAL)
        lines, whole, torn = complete_lines(b"".join(segments.values()), self.path / JOURNAL)
        if repair:
            # One that a killed writer's last PUT makes from here on is found in the place of the next one.
            self._next[JOURNAL] = max(map(_number, segments), default=-1) + 1
            if torn:
                self._require_same()
                self._cut_segments(segments, whole)
        return lines

    def _cut_segments(self, segments: Mapping[str, bytes], left: int) -> None:
        """Keep so many bytes of the journal."""
        try:
            for name, data in segments.items():
                if left <= 0:
                    self._objects.remove(name)
                elif left < len(data):
                    self._objects.write(name, data[:left])
                left -= len(data)
        except OSError as error:
            self._refused(f"{JOURNAL} cannot be written", error)

    def _segments(self, name: str) -> bytes:
        return b"".join(self._read_segments(name).values())

    def _read_segments(self, name: str) -> dict[str, bytes]:
        """Segment → what it holds, in order."""
        try:
            names = sorted(self._objects.names(_folder(name)), key=_number)
            if len(names) <= 1:
                return {name: self._objects.read(name) for name in names}
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return dict(zip(names, pool.map(self._objects.read, names), strict=True))
        except OSError as error:
            self._refused(f"{name} cannot be read", error)

    def _flush(self) -> None:
        if self._waiting:
            lines, self._waiting = self._waiting, []
            self._add(TIMINGS, "\n".join(lines))
        self._flushed = time.monotonic()

    def _add(self, name: str, text: str) -> None:
        """One more segment, created only where nobody else has."""
        data = text.encode() + b"\n"
        with self._appending[name]:
            self._require_same()
            try:
                if name not in self._next:
                    there = self._objects.names(_folder(name))
                    self._next[name] = max(map(_number, there), default=-1) + 1
                segment = f"{_folder(name)}/{self._next[name]:0{DIGITS}}.jsonl"
                if self._objects.create(segment, data) is None:
                    found = self._objects.tagged(segment)
                    if found is None or found[0] != data:  # else only the answer was lost
                        raise RunDirError(
                            f"{self.path}: {segment} was written by another process; nothing more is written. When no "
                            f"other runs it: evoquant resume {self.path}"
                        )
            except OSError as error:
                self._refused(f"{name} cannot be appended to", error)
            self._next[name] += 1

    def _refused(self, what: str, error: OSError) -> NoReturn:
        text = " ".join(str(error.strerror or error).split()) or type(error).__name__
        raise RunDirError(f"{self.path}: {what}: {text.removesuffix('.')[:300]}.") from None


def download(path: Url, folder: Path) -> None:
    """Write a run as a folder of this machine has it, the logs whole: it reads, resumes and exports like any.

    Raises:
        RunDirError: the store cannot be read.
        InputError: the folder cannot be written to.
    """
    run = RemoteRunDir(path)
    try:
        names = [name for name in run._objects.names() if "/" not in name and name != LEASE]
        for name in names:
            write_atomic(folder / name, run._objects.read(name))
    except OSError as error:
        run._refused("cannot be read", error)
    for name in SEGMENTED:
        if run.has(name):
            write_atomic(folder / name, run._segments(name))


def _folder(name: str) -> str:
    """Of the segments of a file."""
    return PurePosixPath(name).stem


def _number(segment: str) -> int:
    """Of a segment; -1 of what is none."""
    stem = PurePosixPath(segment).stem
    return int(stem) if stem.isascii() and stem.isdigit() else -1
