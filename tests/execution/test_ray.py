"""Ray clusters as users have them: none, one that happens to run, one by address, one that is not there."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evoquant.errors import InputError
from evoquant.execution.cluster import QUIET
from evoquant.execution.ray import RayExecutor

CONFIG = Path(__file__).parents[2] / "configs" / "evolve.yaml"
SMALL = ["--executor", "ray", "--workers", "2", "--set", "stop.generations=3", "--set", "search.population=20"]


def run(out, *words, env=None):
    command = [sys.executable, "-m", "evoquant.cli", "run", str(CONFIG), "--out", str(out), *SMALL, *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=120)


def test_an_address_where_nobody_listens_is_named_within_seconds(tmp_path):
    before = time.monotonic()
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1\b.*--executor local"):
        RayExecutor(address="127.0.0.1:1").start(lambda payload: None, None)
    done = run(tmp_path / "run", "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert time.monotonic() - before < 15


@pytest.mark.parametrize(
    "text",
    [
        "A worker died or was killed while executing a task by an unexpected system error.",
        "The node with node id: 5f0c and address: 127.0.0.1 and node name: 127.0.0.1 has been marked dead because the "
        "detector has missed too many heartbeats from it. This can happen when a \t(1) raylet crashes unexpectedly",
        "2 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to other reasons",
    ],
)
def test_ray_prints_nothing_of_what_is_lost_to_where_results_go(text):
    assert re.search(QUIET["RAY_DEDUP_LOGS_SKIP_REGEX"], text)


def test_no_home_directory_is_needed(tmp_path):
    done = run(tmp_path / "run", env={"HOME": "/proc/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_an_existing_cluster_by_address_and_one_that_only_happens_to_run(tmp_path):
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    port_file = tmp_path / "port"
    script = (
        "import os, ray; ray.init(address='local', num_cpus=2, include_dashboard=False, log_to_driver=False);"
        f"open({str(port_file)!r} + '.new', 'w').write(ray.get_runtime_context().gcs_address);"
        f"os.rename({str(port_file)!r} + '.new', {str(port_file)!r}); import time; time.sleep(120)"
    )
    cluster = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        address = port_file.read_text()
        joined = run(tmp_path / "joined", "--address", address, env={"RAY_AUTH_MODE": "disabled"})
        assert joined.returncode == 0, joined.stderr
        named = run(tmp_path / "named", env={"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"})
        assert named.returncode == 0, named.stderr
        own = run(tmp_path / "own")
        assert own.returncode == 0, own.stderr
        assert cluster.poll() is None, "a joined cluster is left running"
    finally:
        cluster.kill()
        cluster.wait()
    journals = {(tmp_path / name / "journal.jsonl").read_bytes() for name in ("joined", "named", "own")}
    assert len(journals) == 1
