"""A sweep of 100 campaigns on Ray, undisturbed and killed at random moments: the same journals, and the time lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.api.sweep_driver import TURNS
from evoquant.campaign.config_sweep import load_sweep
from evoquant.campaign.storage import JOURNAL, REPORT
from evoquant.errors import CampaignError
from evoquant.files import canonical_json, write_atomic
from evoquant.report.sweep import sweep_hash
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SWEEP: dict[str, Any] = {
    "name": "hundred",
    "base": {"genome": {"kind": "rule", "rungs": 3}, "stop": {"generations": 120}},
    "over": {
        "search": [
            {"kind": "genetic", "population": 50},
            {"kind": "islands", "islands": 5, "genetic": {"population": 10, "elites": 1}},
            {"kind": "nsga2", "population": 50},
            {"kind": "map_elites", "batch": 50},
            {"kind": "random", "population": 50},
        ],
        "seed": "0-19",
    },
    "turn_s": 0.5,
}
WORKERS = 2
KILLS = 6
PATIENCE_S = 900.0
LOOK_S = 0.02


def settings() -> dict[str, Any]:
    """The sweep as it is given, and how often it is killed."""
    return {"sweep": SWEEP, "kills": KILLS, "workers": WORKERS}


def measure(folder: Path) -> list[dict[str, Any]]:
    """A row undisturbed, one killed and restarted, one in turn without Ray.

    Raises:
        CampaignError: a sweep does not end with exit code 0.
    """
    file = folder / "hundred.yaml"
    write_atomic(file, canonical_json(SWEEP))
    whole = _session(file, folder / "calm", "ray")
    calm = _row("undisturbed", file, folder / "calm", [whole])
    killed = _row("killed, started again", file, folder / "killed", _killed(file, folder / "killed", whole["seconds"]))
    local = _row("in turn, no Ray", file, folder / "local", [_session(file, folder / "local", "local")])
    for row, place in ((calm, "calm"), (killed, "killed"), (local, "local")):
        row["same"] = _same(folder / "calm", folder / place)
    return [calm, killed, local]


def _session(file: Path, out: Path, executor: str) -> dict[str, float]:
    """Seconds of a whole command, and of these until its first turn was over.

    Raises:
        CampaignError: it fails.
    """
    began = time.perf_counter()
    process = _started(file, out, executor)
    try:
        _wait_for_work(process, out)
        start_s = time.perf_counter() - began
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    if process.returncode:
        raise CampaignError(f"{out.name}: ended with exit code {process.returncode}: {errors[-2000:]}")
    return {"seconds": time.perf_counter() - began, "start_s": start_s}


def _started(file: Path, out: Path, executor: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "evoquant.cli", "sweep", str(file), "--out", str(out), "--executor", executor]
    command += ["--workers", str(WORKERS), "--quiet"]
    return subprocess.Popen(
        command,
        cwd=file.parent,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _killed(file: Path, out: Path, calm_s: float) -> list[dict[str, Any]]:
    """Sessions of the same command, each but the last ended by SIGKILL at a random moment.

    The first kill comes while it starts; the others when it is at work, so that a session gets somewhere, then at any
    moment within its share of the time that the whole takes.

    Raises:
        CampaignError: it fails.
    """
    sessions: list[dict[str, Any]] = []
    for number in range(KILLS):
        rng = generator_for(number, 0, "kills of the sweep")
        began = time.perf_counter()
        process = _started(file, out, "ray")
        start_s = None
        if number:
            _wait_for_work(process, out)
            start_s = time.perf_counter() - began
        wait_s = float(rng.uniform(0.0, calm_s / KILLS if number else 3.0))
        try:
            process.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)  # the command alone: what it started has to end by itself
            process.communicate()
        else:
            raise CampaignError("the sweep ended before it could be killed; make its campaigns longer")
        sessions.append({"seconds": time.perf_counter() - began, "start_s": start_s, "finished": _finished(out)})
    return [*sessions, _session(file, out, "ray")]


def _wait_for_work(process: subprocess.Popen[str], out: Path) -> None:
    """Until the first turn of this session is over; what the last one left behind may still write a journal."""
    before, deadline = _noted(out), time.monotonic() + PATIENCE_S
    while _noted(out) == before:
        if process.poll() is not None or time.monotonic() > deadline:
            raise CampaignError("the sweep ended, or hangs, before a generation")
        time.sleep(LOOK_S)


def _noted(out: Path) -> int:
    """Bytes of turns.jsonl."""
    path = out / TURNS
    return path.stat().st_size if path.exists() else 0


def _finished(out: Path) -> int:
    return sum(1 for _ in out.glob(f"*/{REPORT}"))


def _same(out: Path, other: Path) -> int:
    """How many campaigns have equal journals and champions in both."""
    names = ("journal.jsonl", "champion.json")
    return sum(
        all((other / run.name / name).read_bytes() == (run / name).read_bytes() for name in names)
        for run in (path.parent for path in out.glob(f"*/{REPORT}"))
    )


def _row(case: str, file: Path, out: Path, sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    loaded = load_sweep(file)
    digest = hashlib.sha256()
    for cell in loaded.cells:
        digest.update((out / cell.name / JOURNAL).read_bytes())
    turns = [json.loads(line) for line in (out / TURNS).read_text(encoding="utf-8").splitlines()]
    told = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    return {
        "case": case,
        "sweep": sweep_hash(loaded),
        "campaigns": told["campaigns"],
        "finished": told["finished"],
        "kills": len(sessions) - 1,
        "finished_at_kill": [session["finished"] for session in sessions[:-1]],
        "journals": digest.hexdigest(),
        "table": hashlib.sha256((out / "sweep.json").read_bytes()).hexdigest(),
        "turns": len(turns),
        "suspended": sum(turn["state"] == "suspended" for turn in turns),
        "workers": WORKERS if case != "in turn, no Ray" else 1,
        "wall_s": sum(session["seconds"] for session in sessions),
        "sessions_s": [session["seconds"] for session in sessions],
        "load": os.getloadavg()[1],
        "starts_s": [session["start_s"] for session in sessions],
    }
