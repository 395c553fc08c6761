"""The connection to Ray: a cluster of our own, or an existing one."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

REACH_S = 5.0
# Ray prints this to stdout, where results go, whatever its log level; a lost worker is in our own report.
# It reads the pattern while it is imported.
QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed while executing a task"}
# Ray's workers would be nice to the search that goes on while they start, and on a busy machine take minutes.
LOCAL_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}


def is_connected() -> bool:
    """Whether this process is connected to a cluster already."""
    return bool(imported().is_initialized())


def connect(address: str | None, cpus: int) -> None:
    """Join the cluster at `address`, or start one with `cpus` CPUs on this machine.

    Raises:
        InputError: Ray cannot be reached or started.
    """
    imported()
    if address is None:
        # "local" and not the default, which would join any cluster that happens to run on this machine.
        _initialise(address="local", num_cpus=cpus, include_dashboard=False)
    else:
        _require_listener(address)
        _initialise(address=address)


def cluster_cpus() -> int:
    """CPUs of the cluster, at least 1."""
    return max(1, int(imported().cluster_resources().get("CPU", 1)))


def free_cpus() -> int:
    """CPUs of the cluster that nobody uses."""
    return int(imported().available_resources().get("CPU", 0))


def imported() -> Any:
    """The `ray` module, kept from printing where results go."""
    with _environment({name: value for name, value in QUIET.items() if name not in os.environ}):
        import ray
    return ray


def _initialise(**where: Any) -> None:
    """`ray.init`, quietly.

    Raises:
        InputError: Ray cannot be reached or started.
    """
    import ray

    def init(**environment: str) -> None:
        with _environment(LOCAL_CLUSTER | environment), signals_kept():
            ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)

    try:
        try:
            init()
        except OSError as error:
            if where["address"] != "local" or isinstance(error, ConnectionError):
                raise
            # Ray keeps the token that guards its ports in the home directory; where that is read-only,
            # the cluster gets one of its own that lives as long as its processes.
            init(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        place = "here" if where["address"] == "local" else f"at {where['address']}"
        token = "" if place == "here" else " A cluster that asks for a token wants RAY_AUTH_MODE=token here too."
        raise InputError(f"Ray cannot be reached {place}: {first_line(error)}. Try --executor local.{token}") from None


@contextmanager
def signals_kept() -> Iterator[None]:
    """Give the signals that Ray takes over while it starts back to whoever had them before.

    With Ray's own handler a SIGTERM ends the process, and no checkpoint is written. A handler of C++ comes beneath
    Python's, too: where Ray starts in another thread, an empty `with` of this in the main thread removes it.
    """
    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if mine and handler is not None:  # None: was not set from Python
                signal.signal(number, handler)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while; processes that start meanwhile keep them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _require_listener(address: str) -> None:
    """Fail within seconds where nobody listens; Ray itself tries for ten minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # "auto", "local" or a name that Ray resolves
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster listens at {address} ({error.strerror or error}); check --address and RAY_ADDRESS, or use "
            f"--executor local."
        ) from None


def first_line(error: BaseException) -> str:
    """`Class: first line of the message`."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
