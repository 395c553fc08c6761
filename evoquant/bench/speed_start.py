"""How long it takes to start: importing the package, its help, and the published journey without Ray.

Every run is a fresh process with no bytecode of evoquant's and no compiled kernels. In `as installed` the libraries
have the bytecode that pip writes; in `all cold` nothing has, the standard library included.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeAlias

from evoquant.bench.contest import ROUNDS, Measure
from evoquant.errors import CampaignError

PACKAGE = Path(__file__).parents[1]
JOURNEY = PACKAGE.parent / "configs" / "journey.yaml"  # in a checkout; an installation has none
LIMIT_S = 300.0

CONDITIONS = ("as installed", "all cold")
NOTHING, LIBRARIES = "python -c pass", "typer, pydantic, numpy and yaml imported"
# what is run → the arguments of Python, and the seconds that are wanted
CALLS: dict[str, tuple[tuple[str, ...], float | None]] = {
    NOTHING: (("-c", "pass"), None),
    LIBRARIES: (("-c", "import typer, numpy, yaml, pydantic; pydantic.TypeAdapter(int)"), None),
    "import evoquant": (("-c", "import evoquant"), 0.3),
    "evoquant --help": (("-m", "evoquant.cli", "--help"), 0.5),
    "evoquant run configs/journey.yaml --executor local": (
        ("-m", "evoquant.cli", "run", str(JOURNEY), "--executor", "local", "--out", "run"),
        2.0,
    ),
}


# condition, what is run → wall and processor seconds of each round
Spent: TypeAlias = dict[tuple[str, str], list[tuple[float, float]]]


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Seconds of wall time of each start under both conditions, by turns.

    Raises:
        CampaignError: a start failed.
    """
    calls = {what: words for what, (words, _) in CALLS.items() if JOURNEY.is_file() or str(JOURNEY) not in words}
    spent: Spent = {(condition, what): [] for condition in CONDITIONS for what in calls}
    with tempfile.TemporaryDirectory(prefix="evoquant-start-") as name:
        folder = Path(name)
        for words in calls.values():  # whatever has no bytecode of the libraries yet has it now, as after pip
            _seconds(words, folder, {})
        shutil.copytree(PACKAGE, folder / "package" / "evoquant", ignore=shutil.ignore_patterns("__pycache__", "data"))
        for turn in range(rounds):
            order = list(spent)
            for condition, what in order if turn % 2 == 0 else reversed(order):
                spent[condition, what].append(_seconds(calls[what], folder, _environment(condition, folder)))
    return [
        Measure(
            "start",
            f"{what}, {condition}",
            tuple(wall for wall, _ in seconds),
            "s",
            CALLS[what][1],
            remark=_remark(condition, what, spent),
        )
        for (condition, what), seconds in spent.items()
        if CALLS[what][1] is not None
    ]


def _environment(condition: str, folder: Path) -> dict[str, str]:
    """A copy of the package that never had bytecode; for `all cold` an empty place for everyone's."""
    own = {"PYTHONPATH": str(folder / "package"), "NUMBA_CACHE_DIR": str(folder / "kernels")}
    if condition == "as installed":
        return {**own, "PYTHONDONTWRITEBYTECODE": "1"}
    return {**own, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def _seconds(words: tuple[str, ...], folder: Path, changed: dict[str, str]) -> tuple[float, float]:
    """Wall and processor time of one fresh process; the latter says what the former is on a machine with time."""
    for leftover in ("kernels", "bytecode", "run"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NUMBA_"))}
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=bare | changed,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode != 0:
        raise CampaignError(f"python {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, worked


def _remark(condition: str, what: str, spent: Spent) -> str:
    """Processor time: of the start, and of what it cannot go below, the interpreter and the libraries of any run."""

    def worked(name: str) -> str:
        return f"{statistics.median(own for _, own in spent[condition, name]):.2f} s"

    said = f"processor time {worked(what)}; of {NOTHING} {worked(NOTHING)}, with {LIBRARIES} {worked(LIBRARIES)}"
    return said + ("" if JOURNEY.is_file() else "; no configs/journey.yaml here, so the journey is left out")
