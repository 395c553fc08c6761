"""One measured campaign on several clusters of separate node processes: the same journal, times side by side."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.bench.nodes import Nodes, bare_python
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.storage import JOURNAL, TIMINGS
from evoquant.errors import CampaignError
from evoquant.files import canonical_json, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.bench.nodes import Node

CAMPAIGN: dict[str, Any] = {
    "name": "scale",
    "task": {"kind": "digits", "seed": 0},
    "menu": ["INT2-channel", "INT3-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"],
    "signals": ["fisher"],
    "genome": {"kind": "direct"},
    "search": {"kind": "genetic", "population": 96, "elites": 4},
    "stop": {"generations": 90},
}
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Case:
    """A cluster and what happens to it after half of the generations.

    Attributes:
        name: for the table.
        nodes: node processes at the beginning, beside a head without CPUs; 0 is no Ray at all.
        cpus: of each.
        workers: as the config says; None is as many as there is room for.
        lost, joined: nodes that are killed or added.
    """

    name: str
    nodes: int
    cpus: int = 1
    workers: int | None = None
    lost: int = 0
    joined: int = 0


CASES = (
    Case("in this process, no Ray", 0),
    Case("1 worker", 1, workers=1),
    Case("2 workers on one node", 1, cpus=2, workers=2),
    Case("2 nodes", 2),
    Case("2 nodes, one lost half-way", 2, lost=1),
    Case("1 node, another joins half-way", 1, joined=1),
    Case("2 nodes, one lost and another joins", 2, lost=1, joined=1),
)


def settings() -> str:
    """The campaign's hash: where it runs is no part of it."""
    return config_from_dict(CAMPAIGN, "scale").hash()


def measure(folder: Path) -> list[dict[str, Any]]:
    """A row for each case, in order.

    Raises:
        CampaignError: a node does not start, or a campaign fails.
    """
    from evoquant.models.tasks import load_task

    load_task("digits", 0, folder / "trained")  # once, so that no case trains
    config = folder / "scale.yaml"
    write_atomic(config, canonical_json(CAMPAIGN))
    python = bare_python(folder / "bare")
    return [run_case(case, config, folder / str(number), python) for number, case in enumerate(CASES)]


def run_case(case: Case, config: Path, folder: Path, python: str) -> dict[str, Any]:
    """Run the campaign by the command line; a cache of its own holds the trained network and no outcomes.

    Args:
        case: of `CASES`.
        config: the campaign.
        folder: for the run; beside it lies `trained`, the cache with the network.
        python: of the nodes.

    Raises:
        CampaignError: it fails.
    """
    shutil.copytree(folder.parent / "trained", folder / "cache")
    with Nodes() if case.nodes else nullcontext() as nodes:
        words = ["--executor", "local"]
        added: list[Node] = []
        if nodes is not None:
            nodes.add(cpus=0, python=python)
            added = [nodes.add(cpus=case.cpus, python=python) for _ in range(case.nodes)]
            words = ["--executor", "ray", "--address", nodes.address]
            words += [] if case.workers is None else ["--workers", str(case.workers)]
        began = time.perf_counter()
        process = _started(config, folder, words)
        try:
            if case.lost or case.joined:
                _wait_for_half(process, folder / "run")
            for node in added[: case.lost]:
                node.kill()
            for _ in range(case.joined):
                assert nodes is not None
                nodes.add(cpus=case.cpus, python=python)
            _, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        wall_s = time.perf_counter() - began
    if process.returncode:
        raise CampaignError(f"{case.name}: ended with exit code {process.returncode}: {errors[-2000:]}")
    return _row(case, folder / "run", wall_s)


def _started(config: Path, folder: Path, words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "evoquant.cli", "run", str(config), "--out", str(folder / "run"), *words]
    command += ["--set", f"cache={folder / 'cache'}", "--quiet"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines, none where it is not there yet."""
    found: list[dict[str, Any]] = []
    if path.exists():
        found = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    return found


def _wait_for_half(process: subprocess.Popen[str], run: Path) -> None:
    half, deadline = CAMPAIGN["stop"]["generations"] // 2, time.monotonic() + PATIENCE_S
    while len(_lines(run / JOURNAL)) < half:
        if process.poll() is not None or time.monotonic() > deadline:
            raise CampaignError("the campaign ended, or hangs, before half of its generations")
        time.sleep(0.02)


def _row(case: Case, run: Path, wall_s: float) -> dict[str, Any]:
    lines, timings = _lines(run / JOURNAL), [row for row in _lines(run / TIMINGS) if "seconds" in row]
    report: Mapping[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    joined = f", then {timings[-1]['workers']}" if timings[-1]["workers"] != timings[0]["workers"] else ""
    return {
        "case": case.name,
        "campaign": "digits, direct, genetic",
        "nodes": case.nodes,
        "workers": f"{timings[0]['workers']}{joined}",
        "generations": len(lines),
        "evaluations": report["evaluations"]["asked"],
        "journal": hashlib.sha256((run / JOURNAL).read_bytes()).hexdigest(),
        "champion": hashlib.sha256((run / "champion.json").read_bytes()).hexdigest(),
        "seconds": sum(row["seconds"] for row in timings),
        "wall_s": wall_s,
        "cpus": os.cpu_count() or 1,
        "load": os.getloadavg()[1],
    }
