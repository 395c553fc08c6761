"""What is no file at all, and files that would take all memory or all day, are refused by name."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evoquant import api
from evoquant.campaign.build_search import require_room
from evoquant.campaign.config import config_from_dict
from evoquant.errors import ConfigError

from .judging import PROFILE, cli, input_folder, state, tiny_task, tried_cli

folder = pytest.fixture(input_folder)
measured_task = pytest.fixture(scope="module")(tiny_task)


def no_files(folder):
    """Name → something that stands where a file should."""
    made = {"directory": folder / "directory.json", "missing": folder / "missing.json", "pipe": folder / "pipe.json"}
    made["directory"].mkdir()
    os.mkfifo(made["pipe"])
    made |= {name: folder / f"{name}.json" for name in ("loop", "zero", "dangling", "socket", "empty", "binary")}
    made["loop"].symlink_to(made["loop"])
    made["zero"].symlink_to("/dev/zero")
    made["dangling"].symlink_to(folder / "nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(folder)  # the name of a socket is short
        try:
            server.bind("socket.json")
        finally:
            os.chdir(before)
    made["empty"].write_bytes(b"")
    made["binary"].write_bytes(bytes(range(256)) * 20)
    made |= {"long": folder / ("x" * 300 + ".json"), "deeper": folder / "missing.json" / "x.json"}
    made["half"] = f"{folder}/\udc80.json"
    return made


def commands(path):
    yield from (["run", path, "--out", "out"], ["profile", path], ["bound", path], ["apply", path, "seed/test"])
    yield from (["apply", "hybrid", path], ["export", path, "--to", "python"], ["lint", path, "--for", "onnx"])
    yield from (["score", path, "--task", "tiny"], ["resume", path], ["report", path], ["pick", path])
    yield ["export", path, "--to", "csv", "--profile", path]


def test_what_is_no_file_is_refused_and_not_waited_for(folder, measured_task, record, monkeypatch):
    monkeypatch.chdir(folder)
    found = no_files(folder)
    before = sorted(folder.rglob("*"))
    tried_here = 0
    for kind, path in found.items():
        for words in commands(path):
            names = [Path(path).name[:100], repr(str(path))[1:-1][:60]]
            assert not tried_cli(names, *words), (kind, words)
            tried_here += 1
    assert sorted(folder.rglob("*")) == before
    record("input", "pipes, devices, sockets, loops in place of files", tried=tried_here, held=tried_here)


def test_unreadable_files_are_named(folder):
    path = folder / "secret.json"
    path.write_bytes(PROFILE)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    for words in commands(path):
        assert not tried_cli(["secret.json"], *words)


def aliases(end):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    return "\n".join([*lines, end])


PREFIX = '{"schema": "evoquant.champion", "version": 1, "scores": {}, "provenance": {}, "genome": '
ABSURD = {
    "aliases.yaml": (lambda: aliases(""), "aliases count in full"),
    "aliases as a key.yaml": (lambda: aliases("? *a8\n: 1"), "is no text"),
    "merged.yaml": (lambda: "a: &a {kind: random}\nsearch: {<<: [*a, *a]}", "merge keys"),
    "cyclic.yaml": (lambda: "models: &a [*a]", "aliases count in full"),
    "python.yaml": (lambda: "name: !!python/object/apply:os.system [ls]", "not valid YAML at line 1"),
    "brackets.yaml": (lambda: "[" * 500_000, "nested too deep"),
    "blocks.yaml": (lambda: "".join(" " * i + "a:\n" for i in range(1000)), "nested too deep"),
    "list.yaml": (lambda: "a: [" + "1," * 400_000 + "1]", "more than 100000 values"),
    "large.yaml": (lambda: "# " + "x" * 2_000_000, "the limit for such a file"),
    "people.yaml": (lambda: "search: {kind: random, population: 1000000000000}", "1000000"),
    "generations.yaml": (lambda: "stop: {generations: 1000000000}", "10000000"),
    "digits.yaml": (lambda: f"seed: {'9' * 5000}", "5000 characters"),
    "hexadecimal.yaml": (lambda: f"seed: 0x{'f' * 5000}", "5002 characters"),
    "sixty.yaml": (lambda: f"seed: 1{':00' * 3000}", "9001 characters"),
    "no number.yaml": (lambda: "stop: {target: .nan}", "stop.target"),
    "no end.yaml": (lambda: "stop: {wall_time_s: .inf}", "stop.wall_time_s"),
    "true.yaml": (lambda: "search: {population: true}", "should not be true or false"),
    "tag.yaml": (lambda: "seed: !!int ''", "'' is no int"),
    "day.yaml": (lambda: "seed: 2026-02-30", "is no timestamp"),
    "bytes.yaml": (lambda: "search: {kind: 'x:Y', options: {a: !!binary AA==}}", "not valid YAML"),
    "half.yaml": (lambda: 'name: "\\ud800"', "half a character"),
    "nul.yaml": (lambda: "name: a\0b", "character 8 is U+0000"),
    "name.yaml": (lambda: f"models: {{train: ['{'x' * 100_000}']}}", "xxx..."),
    "version.yaml": (lambda: "schema_version: 2", "this evoquant reads version 1 (got 2)"),
    "deep.json": (lambda: "[" * 1_000_000, "nested more than 64 deep"),
    "objects.json": (lambda: "[" + "{}," * 20_000_000 + "{}]", "more than 8388608 values"),
    "keys.json": (lambda: "{" + ",".join(f'"k{i}": 1' for i in range(300_000)) + "}", "unknown key"),
    "layers.json": (
        lambda: '{"schema":"evoquant.profile","version":1,"name":"x","layers":[' + "{}," * 900_000 + "{}]}",
        "layers.0.name: this key is required",
    ),
    "old.json": (lambda: PROFILE.decode().replace('"version": 1', '"version": 0'), "reads version 1 (got 0)"),
    "digits.json": (lambda: '{"name": ' + "9" * 5000 + "}", "digits"),
    "shape.json": (lambda: PROFILE.decode().replace("8,\n        4", "9007199254740992,\n        4"), "2^53"),
    "name.json": (lambda: PROFILE.decode().replace('"small"', f'"{"x" * 1_000_000}"'), "name: "),
    "newline.json": (lambda: PROFILE.decode().replace('"small"', '"a\\nb"'), "printable characters"),
    "units.champion.json": (
        lambda: (
            PREFIX
            + '{"kind": "direct", "model": "x", "widths": {'
            + ",".join(f'"k{i}": "INT9"' for i in range(900_000))
            + "}}}"
        ),
        "'k0': unknown precision 'INT9'",
    ),
    "types.champion.json": (
        lambda: (
            PREFIX
            + '{"kind": "rule", "otherwise": "INT4", "protected": {"width": "INT4", "types": ["a"'
            + ', "b"' * 500_000
            + "]}}}"
        ),
        "at most 200 items",
    ),
    "tree.champion.json": (
        lambda: PREFIX + '{"kind": "tree", "expression": [' + '"neg",' * 70 + '"loss"]}}',
        "deeper than 60 levels",
    ),
    "strategy.champion.json": (
        lambda: PREFIX + '{"kind": "strategy", "name": ""}}',
        "genome: name: no strategy is called ''",
    ),
    "true.champion.json": (
        lambda: (
            PREFIX
            + '{"kind": "rule", "otherwise": "INT4", '
            + '"rungs": [{"signal": "loss:INT4", "above": true, "width": "INT8"}]}}'
        ),
        "genome: rungs.0.above: should not be true or false",
    ),
    "huge.champion.yaml": (lambda: "schema: evoquant.champion\na: " + "x" * 8_000_000, "the limit for such a file"),
}
SLOW = {"objects.json", "layers.json", "list.yaml", "units.champion.json", "keys.json"}  # only on the command line
SOON = ("aliases as a key.yaml", "no number.yaml", "keys.json", "huge.champion.yaml")


def words_for(path):
    if ".champion." in path.name:
        return ["apply", path, "seed/test"]
    return ["run", path, "--out", path.parent / "out"] if path.suffix == ".yaml" else ["bound", path]


@pytest.mark.parametrize("name", sorted(ABSURD.keys() - SLOW))
def test_absurd_files_are_refused_by_name(folder, name):
    text, fault = ABSURD[name]
    path = folder / name
    path.write_text(text())
    assert not tried_cli([name], *words_for(path))
    _, _, err = cli(*words_for(path))
    assert fault in err, err
    assert not {path for path in state(folder) if not path.startswith("out")} - {name}


MEMORY = 600 * 2**20  # of a process that imports NumPy and refuses a file of 60 MB


# A process's peak counts what it was forked from, too: a small one stands between the tests and the command.
BETWEEN = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


def measured(words, errors):
    """Exit code and the most memory of a real command, which may not take more than a few gigabytes of addresses."""
    command = [sys.executable, "-m", "evoquant.cli", *map(str, words)]
    with errors.open("wb") as stream:
        said = subprocess.run(
            [sys.executable, "-c", BETWEEN, *command], stderr=stream, stdout=subprocess.PIPE, check=True
        ).stdout
    code, peak = said.split()[-2:]
    return int(code), int(peak)


@pytest.mark.parametrize("names", [SOON, pytest.param(tuple(ABSURD), marks=pytest.mark.long)])
def test_absurd_files_take_little_memory(folder, record, tmp_path, names):
    most = 0
    for name in names:
        path = folder / name
        path.write_text(ABSURD[name][0]())
        code, peak = measured(words_for(path), tmp_path / "errors")
        said = (tmp_path / "errors").read_text()
        assert code == 2 and "Traceback" not in said and ABSURD[name][1] in said, (name, code, said[-500:])
        assert peak < MEMORY, (name, peak)
        most = max(most, peak)
        path.unlink()
    record("input", "absurd files, command line", tried=len(names), held=len(names), peak_mb=round(most / 1e6))


@pytest.mark.parametrize(
    "search",
    [
        {"kind": "genetic", "population": 1_000_000},
        {"kind": "genetic", "initial": 1_000_000},
        {"kind": "islands", "islands": 1000, "genetic": {"population": 1000}},
        {"kind": "map_elites", "batch": 1_000_000},
        {"kind": "level_switch", "offspring": 1_000_000},
    ],
)
def test_a_generation_that_no_memory_holds_is_refused_before_it_is_made(search):
    config = config_from_dict({"name": "x", "search": search}, "here")
    with pytest.raises(ConfigError, match=r"search: 1000000 candidates of 10000000 genes take at least 320000 GB"):
        require_room(config.search, 10_000_000)
    require_room(config.search, 1)


def test_memory_that_runs_out_ends_in_a_message(folder, monkeypatch):
    def full(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(api, "run", full)
    (folder / "c.yaml").write_text("models: {train: [seed/train], valid: [seed/valid], test: [seed/test]}\n")
    code, _, err = cli("run", folder / "c.yaml")
    assert (code, err) == (1, "evoquant: out of memory; take a smaller population or model, or a larger machine\n")
