"""A process that is killed at a write to a run directory: what it leaves, and what it does not let go of."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

from evoquant.campaign.storage import JOURNAL, RunDir
from evoquant.campaign.storage_remote import RemoteRunDir
from evoquant.campaign.storage_url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FAULTS = ("before", "within", "after")  # the write at which the process is killed


class Killed(Exception):
    """Stands for the end of the process."""


@contextlib.contextmanager
def killing(at: int | None, fault: str) -> Iterator[Iterator[int]]:
    """Within, the process ends at its `at`-th write: before it, within it, or after it, and lets go of nothing.

    Yields:
        How many writes there were, once they were made.
    """
    made = itertools.count()
    lock, dead = threading.Lock(), threading.Event()

    def killed(method: Callable[..., None], tear: Callable[..., None]) -> Callable[..., None]:
        def write(run: RunDir, name: str, data: Any, **options: Any) -> None:
            with lock:
                number = next(made) + 1
                if at is not None and number >= at:
                    if not dead.is_set() and fault == "within":
                        tear(run, name, data)
                    elif not dead.is_set() and fault == "after":
                        method(run, name, data, **options)
                    dead.set()
                    raise Killed
            method(run, name, data, **options)

        return write

    def let_go(method: Callable[..., None]) -> Callable[..., None]:
        def release(run: RunDir) -> None:
            if dead.is_set() and isinstance(run, RemoteRunDir):  # the object stays as it is
                if run._lease is not None:
                    run._lease._ended.set()
                run._lease = None
            else:
                method(run)  # a lock of the system goes with the process

        return release

    with contextlib.ExitStack() as stack:
        for kind in (RunDir, RemoteRunDir):
            for name, tear in (("put", _half_put), ("append_line", _half_line)):
                stack.enter_context(mock.patch.object(kind, name, killed(getattr(kind, name), tear)))
            stack.enter_context(mock.patch.object(kind, "release", let_go(kind.release)))
        yield made


def _half_put(run: RunDir, name: str, data: str | bytes) -> None:
    """What a kill leaves of a file: in a folder half a temporary one; a PUT is whole or nothing."""
    if not isinstance(run.path, Url):
        (run.path / f".{name}.abcd1234.tmp").write_bytes((data.encode() if isinstance(data, str) else data)[:99])


def _half_line(run: RunDir, name: str, line: str) -> None:
    if name == JOURNAL:
        append_raw(run.path, line.encode()[: len(line) // 2])


def append_raw(place: Path, data: bytes) -> None:
    """Bytes behind the journal as a store would leave them that writes a part."""
    if isinstance(place, Url):
        objects = place.objects()
        number = len(objects.names("journal"))
        objects.write(f"journal/{number:06}.jsonl", data)
    else:
        with (place / JOURNAL).open("ab") as stream:
            stream.write(data)
