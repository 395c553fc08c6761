"""Ray in trouble: workers, nodes and heads that die in the midst of whole campaigns, and what is left afterwards."""

import http.server
import importlib.util
import json
import os
import signal
import threading
import time

import pytest

from .driving import MEASURED, RAY, SUITE, Driver, files, lines, one_message

pytest.importorskip("ray")
SMALL = ("--set", "stop.generations=40", "--set", "search.population=60")
SERVERS = ("gcs_server", "raylet", "dashboard", "log_monitor", "runtime_env", "monitor.py", "ray::")


@pytest.fixture
def start(tmp_path):
    """Start the command line; what is still running at the end is killed."""
    (tmp_path / "faults.yaml").write_text(MEASURED)
    started = []

    def begin(verb, *words, suite=False, mood="", cache="cache", **environment):
        what = [] if verb != "run" else [SUITE, *SMALL] if suite else [tmp_path / "faults.yaml"]
        started.append(Driver([verb, *what, *words], tmp_path / cache, mood, **environment))
        return started[-1]

    yield begin
    for driver in started:
        driver.clear()


@pytest.fixture
def undisturbed(start, tmp_path):
    """The files of the same campaign in one process."""

    def of(suite):
        code, errors = start("run", "--out", tmp_path / "whole", "--executor", "local", suite=suite, cache="own").end()
        assert code == 0, errors
        return files(tmp_path / "whole")

    return of


@pytest.mark.parametrize("suite", [pytest.param(True, marks=pytest.mark.long, id="suite"), False])
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_worker_that_is_killed_changes_nothing(start, tmp_path, record, suite, kills):
    """Whoever works at that moment; never the same batch so often that it would be called deadly."""
    out = tmp_path / "run"
    nap = {} if suite else {"MISBEHAVE_NAP": "0.3"}
    generations = () if suite else ("--set", f"stop.generations={2 * kills}")
    driver = start("run", "--out", out, *RAY, *generations, suite=suite, **nap)
    driver.wait_until(lambda: lines(out))
    hit, seen = 0, 0
    while driver.process.poll() is None and hit < kills:
        if len(lines(out)) > seen and (workers := [p for p, c in driver.others().items() if "ray::Worker" in c]):
            seen = len(lines(out))
            os.kill(workers[hit % len(workers)], signal.SIGKILL)
            hit += 1
        time.sleep(0.01)
    code, errors = driver.end()
    assert code == 0, errors
    assert hit > 0
    expected_of = start("run", "--out", tmp_path / "whole", *generations, "--executor", "local", suite=suite, cache="w")
    code, errors = expected_of.end()
    assert code == 0, errors
    assert files(out) == files(tmp_path / "whole")
    if kills > 2:
        record("cluster", f"workers killed, {'suite' if suite else 'measured'}", tried=hit, held=hit)


@pytest.mark.long  # half a minute, which Ray takes to notice
@pytest.mark.parametrize("lost", [SERVERS, ("gcs_server",), ("raylet/raylet",)])
def test_a_cluster_that_is_lost_ends_the_campaign_in_a_message_and_resume_finishes(
    start, tmp_path, undisturbed, record, lost
):
    out = tmp_path / "run"
    driver = start("run", "--out", out, *RAY, MISBEHAVE_NAP="1")
    driver.wait_until(lambda: lines(out))
    began = time.monotonic()
    assert sum(driver.kill(word) for word in lost) > 0
    code, errors = driver.end()
    seconds = time.monotonic() - began
    assert code == 1, errors
    assert "is lost" in one_message(errors)
    driver.gone()
    code, errors = start("resume", out, "--executor", "local").end()
    assert code == 0, errors
    assert files(out) == undisturbed(suite=False)
    if len(lost) == 1:
        record("cluster", f"{lost[0].split('/')[0]} killed", tried=1, held=1, seconds=round(seconds, 1))


class Nodes:
    """A cluster of two nodes on this machine; the driver's is the head."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1})
        self.second = self.cluster.add_node(num_cpus=1)
        self.cluster.wait_for_nodes()


@pytest.mark.long
@pytest.mark.parametrize("added", [False, True])
def test_a_node_that_is_removed_and_one_that_is_added(start, tmp_path, undisturbed, record, monkeypatch, added):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes, out = Nodes(), tmp_path / "run"
    try:
        driver = start("run", "--out", out, *RAY, "--address", nodes.cluster.address, MISBEHAVE_NAP="0.7")
        driver.wait_until(lambda: lines(out))
        nodes.cluster.remove_node(nodes.second, allow_graceful=False)
        if added:
            nodes.cluster.add_node(num_cpus=1)
        code, errors = driver.end()
    finally:
        nodes.cluster.shutdown()
    assert code == 0, errors
    assert files(out) == undisturbed(suite=False)
    record("cluster", f"node removed{', another added' if added else ''}", tried=1, held=1)


class Collector(http.server.BaseHTTPRequestHandler):
    """Where statistics would be sent to."""

    def do_POST(self):
        self.server.heard.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.heard = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_no_statistics_are_sent_even_where_the_environment_asks_for_it(start, tmp_path, collector):
    environment = {
        "RAY_USAGE_STATS_ENABLED": "1",
        "RAY_USAGE_STATS_REPORT_URL": f"http://127.0.0.1:{collector.server_port}",
        "RAY_USAGE_STATS_REPORT_INTERVAL_S": "1",
    }
    out = tmp_path / "run"
    driver = start("run", "--out", out, *RAY, MISBEHAVE_NAP="0.5", **environment)
    driver.wait_until(lambda: lines(out))
    told = {}
    for pid, command in driver.others().items():
        if any(word in command for word in SERVERS):
            for entry in _environment(pid):
                if entry.startswith("RAY_USAGE_STATS_ENABLED="):
                    told[command.split("/")[-1][:40]] = entry
    code, errors = driver.end()
    assert code == 0, errors
    assert told and set(told.values()) == {"RAY_USAGE_STATS_ENABLED=0"}
    assert collector.heard == []


def _environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:  # noqa: PTH123
            return stream.read().decode(errors="replace").split("\0")
    except OSError:
        return []


@pytest.mark.long  # the same of Ray's workers, without a network: execution/test_ray.py
@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the torch extra")
def test_no_home_directory_is_needed_by_a_network(start, tmp_path, executor):
    """Not even root can write to a file as to a folder."""
    (tmp_path / "home").write_text("a file")
    out = tmp_path / "run"
    task = (
        "--set",
        "task={kind: torch, factory: 'misbehaving:torch_network', block: 100}",
        "--set",
        "signals=[fisher]",
    )
    words = ("run", "--out", out, *task, "--executor", executor, "--workers", "2")
    code, errors = start(*words, HOME=str(tmp_path / "home"), EVOQUANT_CACHE="", NETWORK="nan").end()
    assert code == 0, errors
    assert "Traceback" not in errors
    assert list((out / "cache").iterdir()), "the cache falls back to the run directory"
    assert json.loads((out / "report.json").read_text())["finished"]


@pytest.mark.long
def test_a_driver_that_is_killed_takes_its_cluster_along(start, tmp_path, record):
    """Ray's agents, if they were only starting, wait a minute for their cluster."""
    out = tmp_path / "run"
    driver = start("run", "--out", out, *RAY, MISBEHAVE_NAP="0.5")
    driver.wait_until(lambda: lines(out))
    driver.process.kill()
    driver.process.wait()
    seconds = driver.gone()
    record("processes", "driver killed on Ray", tried=1, held=1, seconds=round(seconds, 1))


@pytest.mark.long
def test_ray_starts_on_a_busy_machine(start, tmp_path, record):
    import subprocess
    import sys

    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        began = time.monotonic()
        code, errors = start("run", "--out", tmp_path / "run", *RAY).end()
        seconds = time.monotonic() - began
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert code == 0, errors
    record("cluster", "Ray started beside 6 busy processes", tried=1, held=1, seconds=round(seconds, 1))
