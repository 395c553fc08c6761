"""Clusters of separate node processes whose Python has no evoquant: what travels, what is refused, who comes, goes."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import evoquant
from evoquant.bench.nodes import Nodes, bare_python
from evoquant.errors import InputError, MissingExtraError
from evoquant.execution.need import Need
from evoquant.execution.ray import RayExecutor
from evoquant.profiles.builtin import any_profile
from evoquant.profiles.model import profile_to_json

from .driving import files, one_message

pytest.importorskip("ray")

FACTORY = """
import os
import numpy as np, torch
from torch import nn
from evoquant.models.torch_task import classification
import beside

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x):
        self.scale.fill_(1.0)                 # a buffer may be written into
        return self.last(beside.squashed(self.first(x))) * self.scale

def factory():
    with np.load(os.environ["FAR_DATA"]) as data:      # which no node has
        x, y, *weights = (data[name] for name in ("x", "y", "a", "b", "c", "d"))
    network = Mixed()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return classification(network, calibration=(x, y), selection=(x[:20], y[:20]), test=(x[:20], y[:20]))
"""
CAMPAIGN = """
name: far
task: {kind: torch, factory: "far:factory", block: 20}
menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]
signals: [fisher]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2}
stop: {generations: 4}
"""
ON_PROFILES = ("task=null", "signals=null", "menu=null", "genome.kind=rule")
PROFILES = [word for change in ON_PROFILES for word in ("--set", change)]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Of nodes that have no copy of evoquant."""
    found = bare_python(tmp_path_factory.mktemp("bare") / "venv")
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [found, "-c", "import numpy, ray, evoquant"]
    done = subprocess.run(words, cwd="/", env=plain, capture_output=True, text=True)
    assert "No module named 'evoquant'" in done.stderr
    return found


@pytest.fixture(scope="module")
def nodes(python):
    """A head without CPUs, so that what runs does so on the node without evoquant: 2 CPUs, and as it says a GPU."""
    with pytest.MonkeyPatch.context() as patch, Nodes() as made:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        made.add(cpus=0, python=python)
        made.add(cpus=2, gpus=1, python=python, memory=10**9)
        yield made


@pytest.fixture
def command(tmp_path):
    """The command line in a folder of its own, with code and data that only it finds."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "far.py").write_text(FACTORY)
    (code / "beside.py").write_text("import torch\n\ndef squashed(x):\n    return torch.tanh(x)\n")
    (tmp_path / "far.yaml").write_text(CAMPAIGN)
    rng = np.random.default_rng(0)
    shapes = {"x": (60, 6), "a": (16, 6), "b": (16,), "c": (3, 16), "d": (3,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "data.npz", y=rng.integers(0, 3, 60), **arrays)

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(code), "FAR_DATA": str(tmp_path / "data.npz")}
        environment |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        words = [str(word) for word in (*words, "--set", f"cache={tmp_path / str(time.monotonic_ns())}")]
        command = [sys.executable, "-m", "evoquant.cli", "run", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)

    return run


WHERE = """
import os, sys, time
import evoquant

def where(payload):
    def work(batch):
        time.sleep(0.3)
        return evoquant.__file__, __file__, sys.prefix, os.environ.get("CUDA_VISIBLE_DEVICES")
    return work
"""


@pytest.fixture
def where(tmp_path, monkeypatch):
    """Factory, of a module that only this process finds: what a worker has and where it is."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "nearby.py").write_text(WHERE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)  # Ray's workers look in the driver's folder, too, which is here on the same disk
    monkeypatch.delitem(sys.modules, "nearby", raising=False)
    return importlib.import_module("nearby").where


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the torch extra")
def test_a_network_of_ones_own_is_measured_where_neither_its_code_nor_its_data_is(nodes, command, tmp_path):
    here = command("far.yaml", "--out", "here", "--executor", "local")
    assert here.returncode == 0, here.stderr
    there = command("far.yaml", "--out", "there", "--executor", "ray", "--address", nodes.address)
    assert there.returncode == 0, there.stderr
    assert files(tmp_path / "there") == files(tmp_path / "here")
    timings = (tmp_path / "there" / "timings.jsonl").read_text().splitlines()
    assert {json.loads(line)["workers"] for line in timings} == {2}


def test_what_workers_take_is_honoured_and_the_code_comes_along(nodes, python, where):
    with RayExecutor(address=nodes.address, need=Need(gpus=0.5, memory_bytes=4 * 10**8)) as executor:
        executor.start(where, None)
        assert executor.workers == 2
        found = set(executor.map(range(4)))
        assert {devices for *_, devices in found} == {"0"}, "both on the one GPU"
        assert all(prefix in python for _, _, prefix, _ in found)
        assert all("runtime_resources" in file for ours, own, _, _ in found for file in (ours, own))
    with RayExecutor(address=nodes.address, need=Need(gpus=1)) as executor:
        executor.start(where, None)
        assert executor.workers == 1


def test_what_no_node_can_hold_is_refused_within_seconds(nodes, command, where):
    began = time.monotonic()
    with (
        RayExecutor(address=nodes.address, need=Need(2, gpus=2, memory_bytes=8 * 10**9)) as executor,
        pytest.raises(InputError, match=r"2 CPUs, 2 GPUs and 8 GB of memory, and no node .*: 2 CPUs, 1 GPU, 1 GB"),
    ):
        executor.start(where, None)
    assert time.monotonic() - began < 10
    words = ("--executor", "ray", "--address", nodes.address, "--set", "executor.resources={cpus: 64}")
    done = command("far.yaml", *PROFILES, *words)
    assert done.returncode == 2
    assert "executor.resources: a worker takes 64 CPUs" in one_message(done.stderr)


@pytest.mark.long
def test_a_node_that_joins_gets_work(nodes, python, where):
    with RayExecutor(address=nodes.address) as executor:
        executor.start(where, None)
        assert executor.workers == 2
        third = nodes.add(cpus=1, python=python)
        deadline = time.monotonic() + 60
        while executor.workers < 3 and time.monotonic() < deadline:
            assert len(list(executor.map(range(6)))) == 6
        assert executor.workers == 3
        third.kill()
        assert len(list(executor.map(range(30)))) == 30


@pytest.mark.long
def test_a_job_is_submitted_to_a_cluster_without_evoquant(python, command, tmp_path):
    """By our command, and by Ray's own."""
    pytest.importorskip("aiohttp")
    here = command("far.yaml", "--out", "here", *PROFILES, "--executor", "local")
    assert here.returncode == 0, here.stderr
    path = f"{os.path.dirname(python)}{os.pathsep}{os.environ['PATH']}"  # noqa: PTH120
    with Nodes(dashboard=True, environment={"PATH": path}) as nodes:
        nodes.add(cpus=0, python=python)
        for _ in range(2):
            nodes.add(cpus=1, python=python)
        out = tmp_path / "there"
        submit = [sys.executable, "-m", "evoquant.cli", "submit", "far.yaml", "--address", nodes.dashboard]
        done = subprocess.run([*submit, "--out", out, *PROFILES], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert files(out) == files(tmp_path / "here")
        again = subprocess.run([*submit, "--out", out, *PROFILES], cwd=tmp_path, capture_output=True, text=True)
        assert again.returncode == 1
        assert "exit code 2" in one_message(again.stderr)
        resumed = subprocess.run(
            [*submit, "--out", out, "--resume", *PROFILES], cwd=tmp_path, capture_output=True, text=True
        )
        assert resumed.returncode == 0, resumed.stderr
        assert "finished already" in resumed.stdout
        other = tmp_path / "rays"
        code = json.dumps({"py_modules": evoquant.__path__[:1]})
        theirs = ["job", "submit", "--address", nodes.dashboard, "--working-dir", ".", "--runtime-env-json", code, "--"]
        ours = ["python", "-m", "evoquant.cli", "run", "far.yaml", "--executor", "ray", "--out", str(other), *PROFILES]
        ray = [sys.executable, "-m", "ray.scripts.scripts", *theirs, *ours]
        done = subprocess.run(ray, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert files(other) == files(tmp_path / "here")


@pytest.mark.long
def test_a_submitted_sweep_goes_on_in_another_job_whose_folder_lies_elsewhere(python, tmp_path):
    """Its base and its profiles lie in the folder that is sent along; the first job's folder is gone by then."""
    pytest.importorskip("aiohttp")
    folder, out = tmp_path / "job", tmp_path / "shared"
    (folder / "models").mkdir(parents=True)
    for split in ("train", "valid"):
        (folder / "models" / f"{split}.json").write_text(profile_to_json(any_profile(f"seed/{split}")))
    (folder / "base.yaml").write_text("models: {train: [models/train.json]}\nstop: {generations: 4}\n")
    one, other = "[models/train.json]", "[models/valid.json]"
    (folder / "many.yaml").write_text(f"base: base.yaml\nover: {{models.train: [{one}, {other}], seed: 0-1}}\n")
    path = f"{os.path.dirname(python)}{os.pathsep}{os.environ['PATH']}"  # noqa: PTH120

    def submitted(*words):
        """On a cluster of its own, whose folders are gone with it."""
        with Nodes(dashboard=True, environment={"PATH": path}) as nodes:
            head = nodes.add(cpus=0, python=python)
            nodes.add(cpus=1, python=python)
            submit = [sys.executable, "-m", "evoquant.cli", "submit", "many.yaml", "--address", nodes.dashboard]
            done = subprocess.run([*submit, "--out", out, *words], cwd=folder, capture_output=True, text=True)
        for session in Path("/tmp/ray").glob(f"session_*_{head.process.pid}"):
            shutil.rmtree(session)
        assert done.returncode == 0, done.stdout + done.stderr

    submitted()
    runs = sorted(place.parent for place in out.glob("*/journal.jsonl"))
    then = {run.name: files(run) for run in runs}
    assert len(runs) == 4
    shutil.rmtree(runs[0])  # as if it had not begun
    (runs[1] / "champion.json").unlink()  # as if it had not ended
    submitted("--resume")
    assert {run.name: files(run) for run in runs} == then


def test_a_sweep_is_a_job_too_and_a_cluster_that_is_lost_ends_in_a_message(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import evoquant.execution.submitting as submitting
    from evoquant.cli import app
    from evoquant.errors import CampaignError

    asked = []
    monkeypatch.setattr(submitting.Job, "__init__", lambda job, *given: asked.append(given))
    monkeypatch.setattr(submitting.Job, "name", "job", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many.yaml").write_text("base: {search: {kind: random}}\nover: {seed: 0-1}\n")
    words = ["submit", "many.yaml", "--address", "http://h:1", "--workers", "4", "--detach", "--out"]
    assert CliRunner().invoke(app, [*words, "/shared/many"], catch_exceptions=False).exit_code == 0
    _, command, folder = asked.pop()
    ours = "sweep many.yaml --out /shared/many --executor ray --address auto --progress plain --workers 4"
    assert command == ["python", "-m", "evoquant.cli", *ours.split()] and folder == tmp_path
    with pytest.raises(InputError, match="a sweep's directory is a folder"):
        CliRunner().invoke(app, [*words, "s3://bucket/many"], catch_exceptions=False)

    class Gone:
        def get_job_status(self, name):
            raise ConnectionError("refused")

    monkeypatch.setattr(submitting, "TOLD_S", 0.0)
    job = submitting.Job("http://h:1", [], tmp_path)
    job.address, job._client = "http://h:1", Gone()
    with pytest.raises(CampaignError, match=r"job job: the cluster at http://h:1 does not answer: ConnectionError"):
        job.follow(print)


def test_a_job_without_the_extra_without_a_cluster_or_a_place_is_refused(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import evoquant.execution.submitting as submitting
    from evoquant.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "far.yaml").write_text("name: far\n")
    words = ["submit", "far.yaml", "--address", "http://127.0.0.1:1", "--out"]
    with pytest.raises(InputError, match="the job's own folder is gone"):
        CliRunner().invoke(app, [*words, "runs/far"], catch_exceptions=False)
    with pytest.raises(InputError, match="takes no job: ConnectionError"):
        submitting.Job("http://127.0.0.1:1", ["true"], tmp_path)
    with pytest.raises(InputError, match="write it as http://HOST:8265"):
        submitting.Job("127.0.0.1:1", ["true"], tmp_path)
    monkeypatch.setattr(submitting, "NEEDED", ("not_installed_here",))
    with pytest.raises(MissingExtraError, match=r"evoquant\[cluster\]"):
        CliRunner().invoke(app, [*words, "/runs/far"], catch_exceptions=False)
