"""The same config and seed give the same journal and champion, byte for byte, wherever and however they are run."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
CAMPAIGNS = {
    "rules": ("evolve.yaml", {"stop.generations": 6, "search.population": 30}),
    "compiled": ("evolve.yaml", {"stop.generations": 4, "search.population": 3000}),
    "trees": ("tree.yaml", {"stop.generations": 4, "search.population": 40}),
    "front": ("nsga2.yaml", {"stop.generations": 6, "search.population": 30}),
    "network": ("digits.yaml", {"stop.generations": 1, "search.population": 6}),
}
PLAIN = {
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Each is one thing that may differ between two machines, shells or users: environment, Python's options, and more.
SINGLE = {
    **{f"hash seed {seed}": {"PYTHONHASHSEED": seed} for seed in ("1", "4294967295", "random")},
    **{f"locale {name}": {"LC_ALL": name} for name in ("C", "POSIX", "C.utf8", "de_DE.UTF-8", "tr_TR.ISO-8859-9")},
    "no UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII output": {"PYTHONIOENCODING": "ascii:strict"},
    **{f"time zone {name}": {"TZ": name} for name in ("Asia/Kathmandu", "America/St_Johns", "No/Such_Zone")},
    **{f"{count} threads": dict.fromkeys(THREADS, count) for count in ("2", "8")},
    "no thread settings": dict.fromkeys(THREADS, ""),
    "no byte code": {"PYTHONDONTWRITEBYTECODE": "1"},
    "no colour": {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "20"},
    "wide and coloured": {"FORCE_COLOR": "1", "COLUMNS": "400"},
    "optimised": {"python": ["-O"]},
    "no docstrings": {"python": ["-OO"]},
    "development mode": {"python": ["-X", "dev", "-W", "ignore"]},
    "open umask": {"umask": 0},
    "closed umask": {"umask": 0o077},
    "home elsewhere": {"HOME": "home"},
    "no home": {"HOME": "/dev/null"},
    "folder elsewhere": {"cwd": "größe 量"},
}
ELSEWHERE = {**SINGLE["no UTF-8"], **SINGLE["time zone Asia/Kathmandu"], **SINGLE["closed umask"]}
ELSEWHERE |= {**SINGLE["hash seed 1"], **SINGLE["8 threads"], **SINGLE["no home"], **SINGLE["optimised"]}
ANOTHER = {**SINGLE["hash seed random"], **SINGLE["locale de_DE.UTF-8"], **SINGLE["time zone No/Such_Zone"]}
ANOTHER |= {**SINGLE["2 threads"], **SINGLE["folder elsewhere"], **SINGLE["open umask"], **SINGLE["no colour"]}
TOGETHER = {"elsewhere": ELSEWHERE, "another": ANOTHER}
EXECUTORS = {"local": ["local"], "ray-1": ["ray", "--workers", "1"], "ray-2": ["ray", "--workers", "2"]}


def repeated(folder, campaign, changes, executor="local", trained=None):
    """Bytes of the journal and the champion of a campaign, run in a process of its own under these changes.

    `trained` is the folder of another run, from whose cache a trained network is taken.
    """
    config, overrides = CAMPAIGNS[campaign]
    changes = dict(changes)
    options, umask = changes.pop("python", []), changes.pop("umask", -1)
    place = folder / changes.pop("cwd", ".")
    place.mkdir(parents=True, exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    if changes.get("HOME") == "home":
        changes["HOME"] = str(folder / "home")
    environment = {name: value for name, value in {**os.environ, **PLAIN, **changes}.items() if value != ""}
    if trained is not None and campaign == "network":
        shutil.copytree(trained / "cache" / "networks", folder / "cache" / "networks")
    out = folder / "run"
    words = [sys.executable, *options, "-m", "evoquant.cli", "run", CONFIGS / config, "--out", out]
    words += ["--executor", *EXECUTORS[executor], "--set", f"cache={folder / 'cache'}"]
    words += [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(words, env=environment, cwd=place, umask=umask, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return (out / "journal.jsonl").read_bytes(), (out / "champion.json").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    known, folders = {}, {}

    def of(campaign):
        if campaign == "network" and importlib.util.find_spec("torch") is None:
            pytest.skip("needs the torch extra")
        if campaign not in known:
            folders[campaign] = tmp_path_factory.mktemp(campaign)
            known[campaign] = repeated(folders[campaign], campaign, {})
        return known[campaign]

    of.folders = folders
    return of


@pytest.mark.parametrize(
    ("campaign", "together"),
    [
        ("rules", "elsewhere"),
        ("compiled", "another"),
        ("trees", "elsewhere"),
        pytest.param("network", "another", marks=pytest.mark.long),
    ],
)
def test_everything_else_may_differ_at_once(expected, tmp_path, campaign, together):
    wanted = expected(campaign)
    got = repeated(tmp_path, campaign, TOGETHER[together], trained=expected.folders[campaign])
    assert got == wanted


@pytest.mark.long
@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_each_alone_and_all_on_every_executor(expected, tmp_path, record, campaign):
    cases = [(changes, "local") for changes in SINGLE.values()]
    cases += [(changes, executor) for changes in ({}, *TOGETHER.values()) for executor in EXECUTORS]
    same = [
        repeated(tmp_path / str(number), campaign, changes, executor) == expected(campaign)
        for number, (changes, executor) in enumerate(cases)
    ]
    record("determinism", f"{campaign}: same bytes in other surroundings", tried=len(same), held=sum(same))
    assert all(same), [case for case, good in zip(cases, same, strict=True) if not good]
