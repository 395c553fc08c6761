"""The command line as users script against it: outputs, messages, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evoquant.profiles.model import load_profile
from evoquant.profiles.seed_suite import seed_profile
from tests.command import command

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = ["--executor", "local", "--set", "stop.generations=4", "--set", "search.population=20"]


def cli(*words, cwd=".", code=0):
    return command(cwd, *words, code=code)


def process(*words, cwd=None, code=0, env=None):
    command = [sys.executable, "-m", "evoquant.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    cli("run", CONFIGS / "evolve.yaml", *SMALL, cwd=folder)
    return folder / "runs" / "evolve-0"


def test_help_names_every_command():
    text = cli("--help").stdout
    for verb in ("run", "resume", "report", "profile", "apply", "export", "version"):
        assert verb in text


def test_results_go_to_stdout_and_progress_to_stderr(tmp_path):
    done = process("run", CONFIGS / "evolve.yaml", *SMALL, "--out", tmp_path / "run")
    assert "generation 4/4" in done.stderr
    assert "generation 4/4" not in done.stdout
    assert f"results: {tmp_path / 'run'}" in done.stdout


def test_report_tables_json_and_markdown(finished):
    text = cli("report", finished).stdout
    assert "Champion:" in text
    assert "seed 0" in text
    report = json.loads(cli("report", finished, "--json").stdout)
    assert report == json.loads((finished / "report.json").read_text())
    assert {"champion", "generations", "evaluations", "seed", "config_hash"} <= set(report)
    assert cli("report", finished, "--markdown").stdout.startswith("### evolve")


def test_a_finished_run_resumed_says_so(finished):
    assert "finished already" in cli("resume", finished).stderr


def test_the_journey_shows_published_figures_and_what_was_missed(tmp_path):
    text = cli("run", CONFIGS / "journey.yaml", "--executor", "local", "--out", tmp_path / "run").stdout
    for part in ("0.0935 (0.0935 yes)", "2.4258x (2.43x yes)", "1.7347x (1.72x no)", "3.8273 (3.8273 yes)"):
        assert part in text
    missed = text[text.index("What the published run missed") :]
    assert "3.9259" in missed
    assert "3.8843" in missed
    candidates = [line.split() for line in text.splitlines() if " published " in line or " ours " in line]
    first = [line for line in candidates if line[0] == "1"]
    assert len(first) == 24
    assert sum("published" in line for line in first) == 4
    assert sum(line[0] == "6" for line in candidates) == 8


def test_rediscovery_shows_test_and_ancestry(tmp_path):
    out = tmp_path / "run"
    text = cli("run", CONFIGS / "rediscover.yaml", *SMALL, "--set", "search.population=40", "--out", out).stdout
    assert "TEST is computed from the journalled champions after the run" in text
    assert " of #" in text


def test_profile_apply_and_export(finished, tmp_path):
    file = tmp_path / "train.json"
    cli("profile", "seed/train", "-o", file)
    assert load_profile(file) == seed_profile("train")
    by_name = cli("apply", "wider_fp16_zone", "seed/test", "--json").stdout
    assert "FP32" in by_name
    assert cli("apply", finished / "champion.json", file).stdout
    for target in ("json", "yaml", "python", "rust"):
        out = tmp_path / f"champion.{target}"
        cli("export", finished, "--to", target, "-o", out)
        assert out.read_text()
    assert "rust" in cli("export", "--list").stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
        (["run", CONFIGS / "evolve.yaml", "--set", "search.populatoin=3"], ["search.populatoin", "population"]),
        (["run", CONFIGS / "evolve.yaml", "--executor", "rya"], ["executor.kind", "rya"]),
        (["run", CONFIGS / "evolve.yaml", "--set", "models={train: [seed/trian]}"], ["seed/trian", "seed/train"]),
        (["resume", "nowhere"], ["nowhere", "no such run directory"]),
        (["resume", "."], ["resolved.json is missing"]),
        (["report", "nowhere"], ["nowhere"]),
        (["profile", "seed/tset"], ["seed/tset", "seed/test"]),
        (["apply", "all_fp61", "seed/test"], ["all_fp61", "all_fp16"]),
        (["export", "nowhere", "--to", "json"], ["nowhere"]),
        (["export"], ["--to"]),
        (["run"], ["CONFIG"]),
        (["fly"], ["fly"]),
    ],
)
def test_bad_input_is_one_clear_message_and_code_2(tmp_path, words, parts):
    done = cli(*words, cwd=tmp_path, code=2)
    for part in parts:
        assert part in done.stderr
    assert not list(tmp_path.rglob("journal.jsonl"))


def test_a_used_run_directory_is_refused(finished):
    done = cli("run", CONFIGS / "evolve.yaml", "--out", finished, code=2)
    assert f"evoquant resume {finished}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_checkpoints_and_says_how_to_resume(tmp_path, number):
    out = tmp_path / "run"
    words = ["run", CONFIGS / "evolve.yaml", "--executor", "local", "--out", out]
    words += ["--set", "stop.generations=100000", "--set", "search.population=50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "evoquant.cli", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    journal = out / "journal.jsonl"  # two lines: then one generation at least is told too, whatever the machine's load
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"evoquant resume {out}" in errors
    assert "Traceback" not in errors
    assert (out / "checkpoint.json").exists()


def test_versions_agree():
    import importlib.metadata

    assert cli("version").stdout.strip() == importlib.metadata.version("evoquant")


def test_a_read_only_home_is_fine(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    process("run", CONFIGS / "evolve.yaml", *SMALL, "--out", tmp_path / "run", env={"HOME": str(home)})
