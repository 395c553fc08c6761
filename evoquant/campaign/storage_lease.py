"""One writer for a run in an object store: an object that its holder renews, and others take over when it expires.

Taking it is a conditional PUT (If-None-Match, or If-Match of an expired one), and so is every renewal: who was
overtaken hears of it at the next one. Between renewals the holder goes by its own clock: it writes nothing any more
when the last one is older than `SAFE_S`, well before anybody else may take over.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.files import canonical_json

if TYPE_CHECKING:
    from evoquant.campaign.storage_objects import Objects

LEASE = "lease.json"
RENEW_S = 10.0
SAFE_S = 40.0  # since the last renewal, by the holder's own clock, and it writes no more
EXPIRES_S = 60.0  # since the last renewal, by the clocks of two machines: they may differ by 20 s
TRIES = 3  # where somebody lets go while another takes


class Held(Exception):
    """Somebody else holds it; the text says since when it was not renewed."""


class Lease:
    """Of one run directory; `take` before the first write, `release` after the last."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._owner = secrets.token_hex(16)
        self._tag = ""
        self._count = 0
        self._renewed = 0.0
        self._lost = False
        self._renewing = threading.Lock()
        self._ended = threading.Event()

    def take(self) -> None:
        """Hold it, and renew it from now on.

        Raises:
            Held: by somebody else.
            OSError: of the store.
        """
        for _ in range(TRIES):
            began, data = _clock(), self._stated()
            tag = self._objects.create(LEASE, data)
            if tag is None:
                found = self._objects.tagged(LEASE)
                if found is None:
                    continue
                if found[0] == data:  # the answer to the first try was lost
                    tag = found[1]
                elif not _is_over(found[0]):
                    raise Held(_since(found[0]))
                else:
                    tag = self._objects.replace(LEASE, data, found[1])
            if tag is not None:
                self._tag, self._renewed = tag, began
                threading.Thread(target=self._keep, name="renew the lease", daemon=True).start()
                return
        raise Held("Several are trying to take it at once.")

    @property
    def lost(self) -> bool:
        """Whether somebody else has taken it over, or could have by now: nothing may be written any more."""
        if not self._lost and _clock() - self._renewed > SAFE_S:  # this process was stopped, or the store not reached
            with suppress(OSError):
                self.renew()
            if _clock() - self._renewed > SAFE_S:
                self._lost = True
        return self._lost

    def renew(self) -> None:
        """State that it is held still; whoever was overtaken has lost it.

        Raises:
            OSError: of the store.
        """
        with self._renewing:
            if self._lost or self._ended.is_set():
                return
            began = _clock()
            self._put(self._stated(), began)

    def release(self) -> None:
        """Let go, so that another may begin at once."""
        self._ended.set()
        with self._renewing, suppress(OSError):
            if not self._lost and self._tag:
                self._put(self._stated(released=True), _clock())
        self._tag = ""

    def _put(self, data: bytes, began: float) -> None:
        tag = self._objects.replace(LEASE, data, self._tag)
        if tag is None:
            found = self._objects.tagged(LEASE)
            if found is None or found[0] != data:  # else only the answer was lost
                self._lost = True
                return
            tag = found[1]
        self._tag, self._renewed = tag, began

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S) and not self._lost:
            with suppress(OSError):  # the next may reach the store; `lost` says when it is too late
                self.renew()

    def _stated(self, *, released: bool = False) -> bytes:
        """What the object says; no two are alike."""
        self._count += 1
        record = {
            "owner": self._owner,
            "count": self._count,
            "host": socket.gethostname(),
            "process": _process(os.getpid()),
            "renewed": round(time.time(), 3),
            "released": released,
        }
        return canonical_json(record).encode() + b"\n"


def _is_over(data: bytes) -> bool:
    """Whether nobody holds it any more: let go, not renewed for long, or its process ended on this machine."""
    record = _record(data)
    process = record.get("process")
    if record.get("released") is True or _age_s(record) > EXPIRES_S:
        return True
    mine = _process(os.getpid())
    if not (isinstance(process, dict) and mine is not None and process.get("machine") == mine["machine"]):
        return False
    number = process.get("pid")
    return not isinstance(number, int) or _process(number) != process


def _since(data: bytes) -> str:
    record = _record(data)
    host = record.get("host")
    on = f" by {host[:60]}" if isinstance(host, str) and host.isprintable() else ""
    return (
        f"Its lease ({LEASE}) was renewed {max(_age_s(record), 0):.0f} s ago{on}; a writer that was killed has it for "
        f"{EXPIRES_S:.0f} s at most."
    )


def _age_s(record: dict[str, Any]) -> float:
    """Seconds since the renewal; without end where no time is stated: no writer's lease is without."""
    renewed = record.get("renewed")
    if isinstance(renewed, bool) or not isinstance(renewed, (int, float)):
        return float("inf")
    return time.time() - renewed


def _record(data: bytes) -> dict[str, Any]:
    """What the object says; nothing where it is not what we write."""
    try:
        record = json.loads(data.decode())
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _process(number: int) -> dict[str, Any] | None:
    """What tells a process of this machine from any other; None where the system does not say."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        began = None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        began = None
    return {"machine": f"{machine} {space}", "pid": number, "began": began}


def _clock() -> float:
    """Seconds, counting those in which the machine slept, where the system can say."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
