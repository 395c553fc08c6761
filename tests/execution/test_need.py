"""What a worker takes, what travels to it; without a cluster."""

import importlib
import json
import sys

import pytest

from evoquant.execution.luggage import JOB, code_paths, environment
from evoquant.execution.need import Need, told


def test_as_many_copies_as_the_scarcest_resource_holds():
    node = {"CPU": 8.0, "GPU": 2.0, "memory": 16e9}
    assert Need().copies(node) == 8
    assert Need(gpus=0.5).copies(node) == 4
    assert Need(0.1, 0.1).copies(node) == 20, "sums of tenths are no whole numbers"
    assert Need(2, 0.5, 7 * 10**9).copies(node) == 2
    assert Need(2, 3).copies(node) == 0
    assert Need().copies({}) == 0


def test_what_is_told_to_ray_and_to_people():
    assert Need().options == {"num_cpus": 1.0}
    assert Need(2, 0.5, 4 * 10**9).options == {"num_cpus": 2, "num_gpus": 0.5, "memory": 4 * 10**9}
    assert [str(need) for need in (Need(), Need(2, 0.5), Need(2, 1, 5 * 10**8))] == [
        "1 CPU",
        "2 CPUs and 0.5 GPUs",
        "2 CPUs, 1 GPU and 500 MB of memory",
    ]
    assert told([("a", {"CPU": 1.0, "memory": 2.5e9})] * 10).endswith("a: 1 CPU, 0 GPUs, 2.5 GB; and 2 more")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module, a package and a package without __init__ that this process has imported from a folder."""
    for name in ("mine_alone.py", "mine_package/__init__.py", "mine_package/part.py", "mine_bare/part.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("mine_alone", "mine_package.part", "mine_bare.part")
    for name in names:
        importlib.import_module(name)
    yield [str(tmp_path / name) for name in ("mine_alone.py", "mine_bare", "mine_package")]
    for name in {*names, "mine_package", "mine_bare"}:
        sys.modules.pop(name)


def test_evoquant_and_ones_own_code_travel_and_no_installed_package(mine):
    import numpy
    import yaml

    import evoquant

    found = code_paths()
    assert evoquant.__path__[0] == found[0]
    assert [path for path in found if "mine_" in path] == mine
    assert not [path for path in found if path in (numpy.__path__[0], yaml.__path__[0])]


def test_what_a_job_was_submitted_with_is_not_sent_again(monkeypatch):
    given = {"env_vars": {"A": "1"}, "py_modules": ["more"]}
    assert environment(given)["py_modules"][-1] == "more"
    assert environment(given)["env_vars"] == {"A": "1"}
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"working_dir": "gcs://a.zip"}}))
    assert len(environment(None)["py_modules"]) >= 1
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"py_modules": ["gcs://b.zip"]}}))
    assert environment({"env_vars": {}}) == {"env_vars": {}}
    monkeypatch.setenv(JOB, "not JSON")
    assert "py_modules" in environment(None)
