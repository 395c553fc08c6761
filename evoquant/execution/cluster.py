"""The connection to Ray: a cluster of our own, or an existing one."""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import secrets
import signal
import socket
import sys
import sysconfig
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError, InputError
from evoquant.execution.luggage import environment
from evoquant.execution.need import Need, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_log = logging.getLogger(__name__)

AUTH = "RAY_AUTH_MODE"
REACH_S = 5.0
LOST_S = 3.0  # so long has a cluster to be silent
# Ray prints this to stdout, where results go, whatever its log level; a lost worker is in our own report.
# It reads the pattern while it is imported.
QUIET = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed while executing a task|Raylet is terminated|"
    "has been marked dead because the detector|killed due to memory pressure"
}
# Ray's workers would be nice to the search that goes on while they start, and on a busy machine take minutes.
LOCAL_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    # What a busy machine starts slowly would be given up: a worker for another, which is no faster, the rest for good.
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_gcs_server_port_wait_time_s": "180",
}
START_S = 180.0  # patience with a machine that is busy, where Ray itself has 30 s
SAY_S = 20.0


def is_connected() -> bool:
    """Whether this process is connected to a cluster already."""
    return bool(imported().is_initialized())


def connect(address: str | None, cpus: int, runtime_env: Mapping[str, Any] | None = None) -> str | None:
    """Join the cluster at `address`, or start one with `cpus` CPUs on this machine.

    Another cluster's nodes are sent evoquant and the user's code; see `evoquant.execution.luggage`.

    Returns:
        what `disconnect` takes.

    Raises:
        InputError: Ray cannot be reached or started.
    """
    imported()
    mode = os.environ.get(AUTH)
    _read_settings()
    given = {} if runtime_env is None else {"runtime_env": dict(runtime_env)}
    if address is None:
        # "local" and not the default, which would join any cluster that happens to run on this machine.
        _initialise(address="local", num_cpus=cpus, include_dashboard=False, **given)
    else:
        _require_listener(address)
        _initialise(address=address, runtime_env=environment(runtime_env))
    return mode


def disconnect(mode: str | None) -> None:
    """Leave the cluster, and take back what Ray did to RAY_AUTH_MODE for one of its own: the next may want no token.

    Args:
        mode: what `connect` returned.
    """
    imported().shutdown()
    if mode is None:
        os.environ.pop(AUTH, None)
    else:
        os.environ[AUTH] = mode
    _read_settings()


def _read_settings() -> None:
    """Let Ray read the environment again: it does once in a process, and whenever it changes RAY_AUTH_MODE itself."""
    inner: Any = importlib.import_module("ray._raylet")
    inner.Config.initialize("")
    if hasattr(inner, "AuthenticationTokenLoader"):  # an older Ray knows no tokens
        inner.AuthenticationTokenLoader.instance().reset_cache()


def nodes() -> list[tuple[str, dict[str, float]]]:
    """Name and resources, used or not, of each node of the cluster that lives."""
    return [(node["NodeName"], node["Resources"]) for node in imported().nodes() if node["Alive"]]


def room(need: Need) -> int:
    """How many workers the cluster's nodes can hold, if nobody else used them."""
    return sum(need.copies(resources) for _, resources in nodes())


def grows() -> bool:
    """Whether the cluster may start nodes when they are needed: whether it has said which."""
    imported()
    from ray._private.state import state

    try:
        return bool(state.get_max_resources_from_cluster_config())
    except Exception:  # a client of a cluster behind a gate cannot ask; nor can an older Ray
        return False


def require_room(need: Need) -> None:
    """Fail at once where a worker would be waited for without end.

    Raises:
        InputError: no node of the cluster is large enough, and it starts none; the message says what they have.
    """
    if room(need) == 0 and not grows():
        raise InputError(
            f"executor.resources: a worker takes {need}, and no node of the Ray cluster has that ({told(nodes())}). "
            f"Ask for less, or add a node that has it."
        )


def cluster_cpus() -> tuple[float, float]:
    """CPUs of the cluster, and how many of them nobody uses."""
    ray = imported()
    return ray.cluster_resources().get("CPU", 0.0), ray.available_resources().get("CPU", 0.0)


class Lifelines:
    """The two processes without which a cluster is lost to this one: its head's, and this machine's.

    Ray itself ends the whole process, without a word to its user, some time after either is gone.
    """

    def __init__(self) -> None:
        ray = imported()
        context = ray.get_runtime_context()
        here = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
        places = [f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" for node in here]
        self.address: str = context.gcs_address
        # A client of a cluster behind a gate cannot see them: nothing is said about those.
        self._places = [place for place in (self.address, *places) if _refusal(place) is None]
        self._silent_since: float | None = None

    def require(self, *, wait: bool = False) -> None:
        """To be called about every second while nothing comes.

        Args:
            wait: if there is no answer, wait for one: calls to Ray would hang.

        Raises:
            CampaignError: the cluster is lost.
        """
        while any(_refusal(place) is not None for place in self._places):
            now = time.monotonic()
            self._silent_since = now if self._silent_since is None else self._silent_since
            if now - self._silent_since >= LOST_S:
                raise CampaignError(
                    f"the Ray cluster at {self.address} is lost: its head, or its process on this machine, does not "
                    f"answer any more. What is journalled is kept: continue with evoquant resume, on a cluster that is "
                    f"up or with --executor local."
                )
            if not wait:
                return
            time.sleep(LOST_S / 10)
        self._silent_since = None


def imported() -> Any:
    """The `ray` module, kept from printing where results go."""
    with environment_variables({name: value for name, value in QUIET.items() if name not in os.environ}):
        import ray
    return ray


def _initialise(**where: Any) -> None:
    """`ray.init`, quietly.

    Raises:
        InputError: Ray cannot be reached or started.
    """
    ray = imported()

    def init(**environment: str) -> None:
        before = signal_handlers()
        with environment_variables(LOCAL_CLUSTER | environment), _patience():
            try:
                ray.init(**where, **_searching(where["address"]), logging_level=logging.ERROR, log_to_driver=False)
            finally:
                take_signals_back(before)

    try:
        try:
            init()
        except OSError as error:
            if where["address"] != "local" or isinstance(error, ConnectionError):
                raise
            # Ray keeps the token that guards its ports in the home directory; where that is read-only,
            # the cluster gets one of its own that lives as long as its processes.
            init(**{AUTH: "token"}, RAY_AUTH_TOKEN=secrets.token_hex(32))
    except Exception as error:  # a start that takes too long is nothing more special
        place = "here" if where["address"] == "local" else f"at {where['address']}"
        token = "" if place == "here" else " A cluster that asks for a token wants RAY_AUTH_MODE=token here too."
        raise InputError(f"Ray cannot be reached {place}: {first_line(error)}. Try --executor local.{token}") from None


class _Searched(list[str]):
    """Folders that workers search before all others: of those that Ray adds, the ones that are so here, too.

    It adds the current folder, in which a file may be called like a package that a worker imports.
    """

    def extend(self, folders: Iterable[str]) -> None:
        """Add those of them that stand before Python's own library."""
        library = sysconfig.get_path("stdlib")
        first = {os.path.realpath(path) for path in itertools.takewhile(lambda path: path != library, sys.path)}
        super().extend(folder for folder in folders if os.path.realpath(folder) in first)


def _searching(address: str) -> dict[str, Any]:
    """For `ray.init`: see `_Searched`. A client of a cluster behind a gate has no folder there."""
    if address.startswith("ray://"):
        return {}
    config = imported().job_config.JobConfig()
    config._py_driver_sys_path = _Searched()
    return {"job_config": config}


@contextmanager
def _patience() -> Iterator[None]:
    """Let a cluster that starts slowly start, for `START_S`: Ray would end the campaign before its first generation."""
    from ray._private import services

    quick: Callable[..., Any] = services.get_node
    began, said = time.monotonic(), False

    def get_node(*arguments: Any, **options: Any) -> Any:
        nonlocal said
        while True:
            try:
                return quick(*arguments, **options)
            except RuntimeError:
                waited = time.monotonic() - began
                if waited > START_S:
                    raise
                if waited > SAY_S and not said:
                    _log.warning("This machine is busy, and Ray slow to start: still waiting for it.")
                    said = True
                time.sleep(0.1)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = quick


def signal_handlers() -> dict[int, Any]:
    """Signal → its handler of Python's, None where it was not set from there, for those that Ray takes over."""
    return {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}


def take_signals_back(handlers: dict[int, Any]) -> None:
    """Set handlers again after Ray has started: with its own a SIGTERM ends the process, without a checkpoint.

    A handler of C++ comes beneath Python's, too, which this removes. Only the main thread can.
    """
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def environment_variables(values: dict[str, str]) -> Iterator[None]:
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
    refusal = _refusal(f"{host}:{port}")
    if refusal is not None:
        raise InputError(
            f"no Ray cluster listens at {address} ({refusal.strerror or refusal}); check --address and RAY_ADDRESS, or "
            f"use --executor local."
        )


def _refusal(place: str) -> OSError | None:
    """Why nobody can be reached at `host:port`; None where somebody is."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        return error
    return None


def first_line(error: BaseException) -> str:
    """`Class: first line of the message`."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
