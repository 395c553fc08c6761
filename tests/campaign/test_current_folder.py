"""Code of one's own that lies in the current folder: found without PYTHONPATH, and nothing else there is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evoquant.errors import InputError
from evoquant.models.code import imported

CODE = """
from pathlib import Path
Path("ran-near").touch()
from dataclasses import replace
import near_helper


class Calls:
    def __init__(self, call=0):
        self.call = call

    def __call__(self, profile, menu, members):
        made = near_helper.bits_cost(profile, menu, members)
        return replace(made, name="calls", table=made.table + self.call, reference=made.reference + self.call)


class Flat:
    def retention(self, problem, allocations):
        import numpy as np
        return np.full(len(allocations), 0.99)
"""
HOSTILE = "from pathlib import Path\nPath(__file__).with_name('ran-hostile').touch()\nraise SystemExit(9)\n"
HOSTILE_NAMES = ("yaml", "json", "numpy", "typer", "evoquant", "sitecustomize", "pandas")
CONFIG = """
models: {train: [seed/train], valid: [seed/valid], test: [seed/test]}
search: {kind: genetic, population: 8}
stop: {generations: 2}
executor: {kind: local}
cost: {kind: "near:Calls", options: {call: 7}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with code beside the config, and files by the names of modules that evoquant imports."""
    (tmp_path / "near.py").write_text(CODE)
    (tmp_path / "near_helper.py").write_text("from evoquant.scoring.cost import bits_cost\n")
    (tmp_path / "own.yaml").write_text(CONFIG)
    for name in HOSTILE_NAMES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(folder, *arguments):
    """The command as it is installed: its own folder, not the current one, comes first on the path."""
    code = "import sys; sys.path = [p for p in sys.path if p]; from evoquant.cli import main; main()"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=clean,
    )  # fmt: skip


def test_a_module_in_the_current_folder_is_found_when_it_is_named(folder):
    done = command(folder, "run", "own.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert (folder / "ran-near").exists() and not (folder / "ran-hostile").exists()
    (folder / "ran-near").unlink()
    refused = command(folder, "resume", "run")
    assert refused.returncode == 2 and "--allow-code near:Calls" in refused.stderr
    assert not (folder / "ran-near").exists()
    shown = command(folder, "report", "run", "--json", "--allow-code", "near:Calls")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["generations"] == 2
    assert not (folder / "ran-hostile").exists()


@pytest.fixture
def path(monkeypatch):
    """The path of an installed command, as it was afterwards."""
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one and Path(one) != Path.cwd()])


def test_the_folder_comes_last_and_only_when_it_is_needed(folder, path):
    before = list(sys.path)
    assert imported("json:loads") is json.loads
    assert sys.path == before
    with pytest.raises(InputError, match=rf"^rounding: nowhere:f: cannot be .* current folder, {folder}\.$"):
        imported("nowhere:f", "rounding: ")
    assert sys.path == before
    try:
        assert imported("near:Calls").__module__ == "near"
    finally:
        for name in ("near", "near_helper"):
            sys.modules.pop(name, None)
    assert sys.path == [*before, str(folder)]


def test_what_is_wrong_with_a_module_is_said_with_its_place(folder, path):
    (folder / "near_broken.py").write_text("import no_such_thing\n")
    with pytest.raises(
        InputError, match=r"No module named 'no_such_thing', which is neither installed, nor on PYTHONPATH"
    ):
        imported("near_broken:f")
    (folder / "near_raises.py").write_text("\n{}['x']\n")
    with pytest.raises(InputError, match=r"importing near_raises raised KeyError: 'x' \(.*near_raises.py, line 2\)"):
        imported("near_raises:f")
    with pytest.raises(InputError, match=r"the module 'json' \(.*json.__init__.py\) has no attribute 'Calls'"):
        imported("json:Calls")  # the library's, whatever lies here


@pytest.mark.long
def test_rays_workers_find_it_too(folder):
    (folder / "own.yaml").write_text(CONFIG + 'estimator: {kind: "near:Flat"}\n')
    done = command(folder, "run", "own.yaml", "--out", "ray", "--executor", "ray", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert not (folder / "ran-hostile").exists()
    assert command(folder, "run", "own.yaml", "--out", "local").returncode == 0
    assert (folder / "ray/journal.jsonl").read_bytes() == (folder / "local/journal.jsonl").read_bytes()
