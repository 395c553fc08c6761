"""A Ray cluster of separate node processes on this machine, as `ray start` makes them; also nodes without evoquant.

with Nodes() as nodes:
    nodes.add(cpus=1)           # the head
    second = nodes.add(cpus=1)
    ...                         # at nodes.address
    second.kill()               # as a machine that fails
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from evoquant.errors import CampaignError
from evoquant.execution.cluster import LOCAL_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Sequence

START_S = 180.0
OBJECT_STORE = 256 * 2**20  # bytes of shared memory of each node, at least what its workers share


class Node:
    """A running `ray start --block` and everything it has started."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self._log = folder / f"node-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL to the node and all its processes, as when its machine is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, as an administrator does; killed where it does not within seconds."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.kill()


class Nodes:
    """Nodes of one cluster; the first is its head.

    Args:
        dashboard: whether the head takes submitted jobs, at `dashboard`; needs the extra `cluster`.
        environment: of all nodes, in addition.
    """

    def __init__(self, *, dashboard: bool = False, environment: dict[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="evoquant-nodes-"))
        self._environment = {
            **_plain_environment(),
            **LOCAL_CLUSTER,
            "RAY_AUTH_MODE": "disabled",
            **(environment or {}),
        }
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._dashboard = free_port() if dashboard else None
        self.nodes: list[Node] = []

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self._dashboard}"

    def add(
        self, cpus: int = 1, *, gpus: int = 0, python: str = sys.executable, store: int = OBJECT_STORE, memory: int = 0
    ) -> Node:
        """Start a node and wait until the cluster has it.

        Args:
            cpus, gpus, memory: that it says it has.
            python: that runs it and its workers; see `bare_python`.
            store: bytes of its object store.

        Raises:
            CampaignError: it does not start.
        """
        words = [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={store}", "--block"]
        words += [f"--memory={memory}"] if memory else []
        # Its default is one port for all nodes of a machine, of which only the first would take jobs.
        words += [f"--dashboard-agent-listen-port={free_port()}"]
        if self.nodes:
            words += [f"--address={self.address}", "--node-ip-address=127.0.0.1"]
        else:
            words += ["--head", f"--port={self._port}", "--node-ip-address=127.0.0.1"]
            words += [f"--include-dashboard={self._dashboard is not None}", f"--dashboard-port={self._dashboard or 0}"]
        command = [python, "-m", "ray.scripts.scripts", "start", *words]
        node = Node(command, self._environment, self._folder)
        self.nodes.append(node)
        self._wait_for(node)
        return node

    def _wait_for(self, node: Node) -> None:
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in node.log:
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise CampaignError(f"a Ray node does not start: {node.log[-2000:]}")
            time.sleep(0.05)

    def close(self) -> None:
        """Kill all nodes, the head last."""
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def bare_python(folder: Path) -> str:
    """An interpreter with this one's packages but evoquant: a node's that holds no copy of the project.

    Args:
        folder: for its environment; small, for the packages stay where they are.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    paths = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    # What stands in a .pth that stands in another's folder is not read: an editable evoquant stays unknown.
    Path(place.stdout.strip(), "others.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    return str(python)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _plain_environment() -> dict[str, str]:
    """This process's, without what would lead a node's workers to this project, its caches or its data."""
    dropped = ("PYTHONPATH", "EVOQUANT_CACHE", "EVOQUANT_DATA", "RAY_ADDRESS", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in dropped}
