"""Code only where the user names it, paths out of a folder, private temporary files, names on terminals."""

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evoquant import api, files
from evoquant.campaign.config import config_from_dict
from evoquant.errors import InputError
from evoquant.files import parse_json, pretty_json
from evoquant.models.arrays import unpack_arrays
from evoquant.models.onnx_data import read_npz
from evoquant.report.drawn import draw
from evoquant.report.progress import Plain
from evoquant.report.table import Table
from evoquant.report.terminal import plain

CONFIGS = Path(__file__).parents[2] / "configs"
SCRIPT = Path(sys.executable).with_name("evoquant")
STEERING = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\r\x08\u202e\x9b31m"
EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nGoal = None\n"


def evoquant(*words, cwd, **environment):
    """The command as it is installed, in a folder that somebody else may have filled."""
    program = [SCRIPT] if SCRIPT.exists() else [sys.executable, "-P", "-m", "evoquant.cli"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([*program, *map(str, words)], cwd=cwd, env=surroundings, capture_output=True)


@pytest.fixture
def run(tmp_path):
    config = CONFIGS / "map_elites.yaml"
    return api.run(config, out=tmp_path / "run", overrides=["stop.generations=2", "executor.kind=local"]).path


def resolve(run, **changes):
    """Another config in a run directory, with its own hash, as whoever made the directory could write it."""
    path = run / "resolved.json"
    config = {**json.loads(path.read_text())["config"], **changes}
    path.write_text(json.dumps({"hash": config_from_dict(config, "").hash(), "config": config}))


@pytest.mark.parametrize("finished", [True, False])
def test_code_that_a_run_names_runs_only_where_the_user_names_it_too(run, finished):
    resolve(run, objective={"kind": "evil:Goal", "options": {}}, report_test_by_generation=True)
    (run / "evil.py").write_text(EVIL)
    words_of = [["resume", run], ["report", run], ["export", run, "--to", "rust"], ["lint", run, "--for", "onnx"]]
    if not finished:
        (run / "report.json").unlink()
        words_of = words_of[:1]
    for words in words_of:
        done = evoquant(*words, cwd=run, PYTHONPATH=str(run))
        assert done.returncode == 2, done
        assert b"--allow-code evil:Goal" in done.stderr
    assert evoquant("pick", run, cwd=run, PYTHONPATH=str(run)).returncode == 0  # which needs none of it
    assert not (run / "ran").exists()
    evoquant("report", run, "--allow-code", "evil:Goal", cwd=run, PYTHONPATH=str(run))
    assert (run / "ran").exists()


def test_a_cluster_that_only_the_run_names_is_not_joined(run):
    resolve(run, executor={"kind": "ray", "address": "ray://192.0.2.1:10001"})
    (run / "champion.json").unlink()
    done = evoquant("resume", run, cwd=run)
    assert done.returncode == 2
    assert b"to join it, repeat it: --address ray://192.0.2.1:10001" in done.stderr
    assert evoquant("resume", run, "--executor", "local", cwd=run).returncode == 0


def test_modules_that_lie_about_are_not_imported(run):
    for name in ("json", "yaml", "random", "secrets", "numpy", "rich", "sitecustomize", "ray", "evoquant_plugin"):
        (run / f"{name}.py").write_text(EVIL)
    (run / "champion.json").unlink()
    for words in (["resume", ".", "--executor", "local"], ["report", "."]):
        done = evoquant(*words, cwd=run)
        assert done.returncode == 0, done.stderr
    assert not (run / "ran").exists()


def test_external_data_stays_in_its_folder(tmp_path):
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    from evoquant.models.onnx_file import read_model

    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(64, dtype=np.float32).tobytes())
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    for location in ("../secret", str(secret), "link", "folder/secret", "./../secret", "/etc/passwd", "x/../../secret"):
        weight = numpy_helper.from_array(np.zeros((8, 8), dtype=np.float32), "a")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8])] for name in "xy"]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "a"], ["y"])], "g", *ends, [weight])
        (folder / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
        with pytest.raises(InputError, match=r"m\.onnx: "):
            read_model(folder / "m.onnx", str(folder / "m.onnx"))


def test_numbers_of_a_recipe_with_a_strange_header(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    from evoquant.export.recipe import _read_tensors

    whole = {"a:values": np.zeros((2, 2), dtype=np.float32)}
    good = safetensors.save(whole)
    length = int.from_bytes(good[:8], "little")

    def headed(entry):
        text = json.dumps({"a:values": entry}).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + length :]

    entries = [{"dtype": "F32", "shape": [2, 2], "data_offsets": offsets} for offsets in ([0, 2**62], [16, 0], [8, 24])]
    entries += [{"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 16]}]
    entries += [{"dtype": "OBJECT", "shape": [2, 2], "data_offsets": [0, 16]}, "x", None]
    contents = [good[:4], good[:20], b"", (2**63).to_bytes(8, "little") + good[8:], *map(headed, entries)]
    path = tmp_path / "r.safetensors"
    for content in contents:
        path.write_bytes(content)

        class File:
            tensors_sha256 = hashlib.sha256(content).hexdigest()
            layers = ()

        with pytest.raises(InputError, match=r"r\.safetensors: "):
            _read_tensors(path, File)


def zipped(content, count=1, claimed=None):
    """An .npz of equal members; each says that it is `claimed` bytes long."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"x{number}.npy", content)
    data = bytearray(stream.getvalue())
    where = data.find(b"PK\x01\x02")
    while claimed is not None and where >= 0:
        data[where + 24 : where + 28] = claimed.to_bytes(4, "little")
        where = data.find(b"PK\x01\x02", where + 1)
    return bytes(data)


def headed(text):
    """An .npy file with such a header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


ARRAYS = {
    "larger than it may be": zipped(headed("{}"), 9, 2**32 - 2),
    "longer than it is": zipped(headed("{'descr': '<f4', 'fortran_order': False, 'shape': (99,)}\n"), 1, 2**31),
    "a huge shape": zipped(headed("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,)}\n")),
    "a negative shape": zipped(headed("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n")),
    "objects": zipped(headed("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n")),
    "a call": zipped(headed("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}\n")),
    "a deep literal": zipped(headed("(" * 3000 + ")" * 3000)),
    "an unended literal": zipped(headed("{'descr': '")),
    "no arrays": zipped(b"text"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_that_are_none(tmp_path, what):
    path = tmp_path / "d.npz"
    path.write_bytes(ARRAYS[what])
    with pytest.raises(InputError, match=r"d\.npz: "):
        read_npz(path)
    with pytest.raises(InputError, match="cached: "):
        unpack_arrays(ARRAYS[what], "cached")


@pytest.mark.parametrize("mask", [0, 0o077])
def test_files_are_private_until_they_have_their_names(tmp_path, monkeypatch, mask):
    seen, sync = {}, os.fsync

    def noted(handle):
        name = str(Path(f"/proc/self/fd/{handle}").readlink())
        seen[name] = stat.S_IMODE(os.fstat(handle).st_mode)
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    before = os.umask(mask)
    try:
        small = ["stop.generations=2", "executor.kind=local", "search.population=20"]
        run = api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=small).path
    finally:
        os.umask(before)
    temporary = {name: mode for name, mode in seen.items() if name.endswith(".tmp")}
    assert len(temporary) >= 5
    assert set(temporary.values()) == {0o600}, temporary
    assert all(Path(name).parent == run for name in temporary)
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()} == {0o666 & ~mask}


def test_the_umask_is_read_without_being_changed(monkeypatch):
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux")
    monkeypatch.setattr(os, "umask", None)  # another thread would make files meanwhile
    assert 0 <= files.umask() <= 0o777


def test_text_for_a_terminal_cannot_steer_it(capsys):
    table = Table(f"t{STEERING}", (f"c{STEERING}",), [(f"x{STEERING}[red]y[/red]",)], (f"n{STEERING}",))
    draw([table])
    Plain().message(f"m{STEERING}")
    said = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in said.out + said.err)
    assert "[red]y[/red]" in said.out
    assert "\\x1b]52" in said.err
    assert plain("größe 量\n\t🦀 √") == "größe 量\n\t🦀 √"


def test_names_in_markdown_are_no_markup():
    hostile = "a|b\n| c | `d` <img src=x onerror=y> [e](javascript:f) *g* &lt;"
    rows = Table(hostile, ("x",), [(hostile,)], (hostile,)).to_markdown().splitlines()
    assert len(rows) == 7
    for row in (rows[0], rows[4]):
        for mark in "|`<[*&":
            inner = row.removeprefix("| ").removesuffix(" |")
            assert inner.count(mark) == inner.count(f"\\{mark}") > 0


def test_json_shows_what_nobody_would_see():
    data = {STEERING: ["\ud800", "größe 🦀", "\u2028"]}
    text = pretty_json(data)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "größe 🦀" in text
    assert json.loads(text) == data
    assert parse_json(pretty_json({"a": "\u202e"}), "x") == {"a": "\u202e"}


def test_messages_about_files_with_strange_names(tmp_path):
    for name in (f"x{STEERING.replace('/', '')}.json", "a\udcff.json"):
        path = tmp_path / name
        for words in (["report", path], ["run", path]):
            done = evoquant(*words, cwd=tmp_path)
            text = done.stderr.decode()
            assert done.returncode == 2
            assert text.count("\n") == 1
            assert all(c.isprintable() or c == "\n" for c in text), text
