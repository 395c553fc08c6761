"""A search that goes on for thousands of generations needs no more memory, files or threads than one of hundreds."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
MIB = 2**20

# Goes on with a run, or starts it, and notes now and then what it holds of the machine.
WATCHED = """
import json, os, sys
from pathlib import Path
from evoquant import api
from evoquant.campaign import journal
from evoquant.search import base

config, out, overrides, every, small = json.loads(sys.argv[1])
if small:  # what has a limit is full before memory is looked at, so that only what has none is left to grow
    base.REMEMBERED = journal.NUMBERS_KEPT = 2000
rows = []

class Watch:
    def generation(self, progress):
        done = progress.generation + 1
        if done % every == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            rows.append([done, resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))])

    def message(self, text):
        pass

if config is None:
    api.resume(out, observer=Watch())
else:
    api.run(config, out=out, overrides=overrides, observer=Watch())
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"rows": rows, "peak": int(peak.split()[1]) * 1024}))
"""
SEARCHES = {
    "rules": ("evolve.yaml", ["search.population=20"]),
    "trees": ("tree.yaml", ["search.population=40"]),
    "many rules": ("evolve.yaml", ["search.population=5000"]),
    "front": ("nsga2.yaml", ["search.population=20"]),
    "archive": ("map_elites.yaml", []),
}


def watched(config, out, overrides=(), every=20, small=True):
    command = [
        sys.executable,
        "-c",
        WATCHED,
        json.dumps([config and str(config), str(out), list(overrides), every, small]),
    ]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **one})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    generations, resident, files, threads = np.array(found["rows"] or np.empty((0, 4), dtype=int)).T
    return {
        "generations": generations,
        "resident": resident,
        "files": files,
        "threads": threads,
        "peak": found["peak"],
        "seconds": time.monotonic() - began,
    }


def slope_of(found, warm):
    """Bytes of memory a generation, after the first `warm`: least squares."""
    late = found["generations"] > warm
    return float(np.polyfit(found["generations"][late], found["resident"][late], 1)[0])


def growth_of(found, warm):
    """Bytes between the median of the fifth after `warm` and that of the last: single peaks do not count."""
    late = found["resident"][found["generations"] > warm]
    part = max(1, len(late) // 5)
    return float(np.median(late[-part:]) - np.median(late[:part]))


@pytest.mark.parametrize(
    ("search", "generations", "small", "allowed"),
    [
        ("rules", 300, True, 2 * MIB),
        pytest.param("rules", 10_000, True, 4 * MIB, marks=pytest.mark.long),
        pytest.param("rules", 10_000, False, 48 * MIB, marks=pytest.mark.long),
        pytest.param("trees", 2_000, True, 8 * MIB, marks=pytest.mark.long),
        pytest.param("many rules", 2_000, True, 4 * MIB, marks=pytest.mark.long),
        pytest.param("front", 2_000, True, 8 * MIB, marks=pytest.mark.long),  # its own archive grows up to 1000 points
        pytest.param("archive", 2_000, True, 8 * MIB, marks=pytest.mark.long),
    ],
)
def test_memory_files_and_threads_stay(tmp_path, record, search, generations, small, allowed):
    out = tmp_path / "run"
    config, overrides = SEARCHES[search]
    fixed = [f"stop.generations={generations}", "executor.kind=local"]
    found = watched(CONFIGS / config, out, [*overrides, *fixed], every=max(1, generations // 100), small=small)
    warm = max(50, generations // 5)
    journal = (out / "journal.jsonl").stat().st_size
    growth = growth_of(found, warm)
    assert found["generations"][-1] == generations
    assert growth <= allowed, found["resident"].tolist()
    late = found["generations"] > warm
    assert np.ptp(found["files"][late]) <= 2, found["files"].tolist()  # the file that is just written comes and goes
    assert np.ptp(found["threads"][late]) <= 2, found["threads"].tolist()  # as does the thread that hashes a batch
    (out / "champion.json").unlink()
    (out / "report.json").unlink()
    again = watched(None, out)
    assert (out / "champion.json").exists()
    assert again["seconds"] < 60 + found["seconds"] / 2
    held = again["peak"] - found["peak"]
    assert held < 64 * MIB + 3 * journal
    record(
        "soak",
        f"{search}: generations after {warm} of {generations}, {'small' if small else 'usual'} memories",
        tried=generations - warm,
        held=generations - warm,
        memory_bytes_a_generation=slope_of(found, warm),
        growth_MiB=growth / MIB,
        peak_MiB=found["peak"] / MIB,
        journal_bytes_a_generation=journal // generations,
        run_seconds=found["seconds"],
        resume_seconds=again["seconds"],
        resume_peak_MiB=again["peak"] / MIB,
    )
