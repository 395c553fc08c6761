"""Disks that are full, read-only or damaged, run directories that vanish: one clear message, and nothing is lost."""

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from evoquant.campaign.storage import JOURNAL, RunDir
from evoquant.report.data import load_run, report_data
from evoquant.store import FILE

from .crash import CC, CONFIGS, FULL, HANGS_S, READ_ONLY, TORCH, Case, refused

needs_cc = pytest.mark.skipif(CC is None, reason="a disk that fails is a C library, and there is no C compiler")
DEV_FULL = Path("/dev/full")
RULES, NETWORK = "rules on profiles", "a network"
ARCHIVE = "a search with an archive"
# file → the campaign that writes it
FILES = {
    "config.yaml": RULES,
    "resolved.json": RULES,
    "environment.json": RULES,
    "journal.jsonl": RULES,  # written by a thread
    "a network's journal.jsonl": NETWORK,
    "timings.jsonl": RULES,
    "checkpoint.json": RULES,
    "champion.json": RULES,
    "archive.json": ARCHIVE,
    "report.json": RULES,
    "profile.json": NETWORK,
    "gate.json": NETWORK,
    FILE: NETWORK,
}

LAST = ("checkpoint.json", "champion.json", "archive.json", "report.json", "gate.json", FILE)  # also after the search

AT_ONCE = ("resolved.json", "journal.jsonl", "a network's journal.jsonl", "checkpoint.json", "report.json", FILE)
DIFFERS = ("timings.jsonl", "checkpoint.json", FILE)  # in length, with the time; the store's last write is its close


@needs_cc
@pytest.mark.parametrize("points", [1, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.parametrize("file", FILES)
def test_a_disk_that_is_full_after_so_many_bytes(servers, undisturbed, tmp_path, record, file, points):
    campaign, name = FILES[file], file.split()[-1]
    if points == 1 and file not in AT_ONCE:
        pytest.skip("written as others are: left to the long test")
    server, expected = servers(campaign), undisturbed(campaign)
    rng = np.random.default_rng(list(FILES).index(file))
    written = Case(server, tmp_path / "whole", campaign).go(watch=name).written if points > 1 else 0
    for number in range(points):
        case = Case(server, tmp_path / str(number), campaign)
        room = int(rng.integers(0, written)) if number else 50  # each is longer than that
        ended = case.go(watch=name, fault=FULL, at=room)
        if ended.code != 0 or not number or name not in DIFFERS:
            refused(ended, name, "disk is full" if name == FILE else "No space left on device")
            assert "search ended" not in ended.errors or name in LAST, "it goes on without a journal"
        last = case.go()
        assert last.code == 0, last.errors
        assert case.kept() == expected, room
        assert case.litter() == []
    record("disks", f"full in the midst of {file}: one message, then resumed as undisturbed", tried=points, held=points)


@needs_cc
@pytest.mark.parametrize(("error", "after"), [(errno.EROFS, 0), (errno.EACCES, 5), (errno.EROFS, 30)])
def test_a_disk_that_turns_read_only(servers, undisturbed, tmp_path, error, after):
    case = Case(servers(RULES), tmp_path / "case", RULES)
    refused(case.go(watch=case.out, fault=READ_ONLY, at=after, error=error), str(case.out), os.strerror(error))
    if after == 30:
        refused(case.go(watch=case.out, fault=READ_ONLY, error=error), str(case.out), os.strerror(error))
        shown = servers(RULES)("report", case.out, "--json", watch=case.out, fault=READ_ONLY, error=error)
        assert shown.code == 0 and not json.loads(shown.out)["finished"]
    assert case.go().code == 0
    assert case.kept() == undisturbed(RULES)


@needs_cc
def test_a_cache_that_cannot_be_written_to_is_replaced_by_the_next(servers, undisturbed, tmp_path):
    case = Case(servers(NETWORK), tmp_path / "case", NETWORK)
    ended = case.go(watch=tmp_path / "case" / "cache", fault=READ_ONLY, error=errno.EROFS)
    assert ended.code == 0, ended.errors
    assert case.kept() == undisturbed(NETWORK)


@needs_cc
@pytest.mark.parametrize(
    "target", ["python", *(pytest.param(other, marks=pytest.mark.long) for other in ("json", "rust"))]
)
def test_a_full_disk_keeps_the_export_that_was_there(servers, tmp_path, target):
    case = Case(servers(RULES), tmp_path / "case", RULES)
    assert case.go().code == 0
    out = tmp_path / "exported"
    for content in (None, "the one before"):
        if content is not None:
            out.write_text(content)
        words = ("export", case.out, "--to", target, "-o", out)
        refused(servers(RULES)(*words, watch="exported", fault=FULL, at=100), str(out), "No space left on device")
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "exp"))] == (
            [] if content is None else [out.name]
        )
        assert content is None or out.read_text() == content


@pytest.mark.skipif(not DEV_FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["version"], ["bound", "seed/train", "--json"]])
def test_results_that_find_a_full_disk_end_in_a_message(words):
    with DEV_FULL.open("w") as full:
        command = [sys.executable, "-m", "evoquant.cli", *words]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=HANGS_S)
    assert ended.returncode == 2
    assert ended.stderr == "evoquant: stdout: cannot be written: No space left on device.\n"


@pytest.mark.skipif(not DEV_FULL.exists(), reason="no /dev/full")
def test_progress_that_nobody_can_read_ends_no_run(tmp_path):
    with DEV_FULL.open("w") as full:
        ended = subprocess.run(words("run", tmp_path / "full"), stdout=subprocess.DEVNULL, stderr=full, timeout=HANGS_S)
    assert ended.returncode == 0
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words("run", tmp_path / "closed")], timeout=HANGS_S
    )
    assert closed.returncode == 0
    assert (tmp_path / "closed" / JOURNAL).read_bytes() == (tmp_path / "full" / JOURNAL).read_bytes()


def words(command, out, *changes, generations=6):
    """A command line for a small campaign on profiles."""
    given = [sys.executable, "-m", "evoquant.cli", command]
    if command == "run":
        sizes = (f"stop.generations={generations}", "search.population=20", "executor.kind=local", *changes)
        given += [str(CONFIGS / "evolve.yaml"), "--out", str(out), *(w for size in sizes for w in ("--set", size))]
    else:
        given.append(str(out))
    return given


def lines(out):
    return (out / JOURNAL).read_bytes().count(b"\n") if (out / JOURNAL).exists() else 0


def started(command, out, *changes):
    """A process that works on a campaign which takes long."""
    before = lines(out)
    process = subprocess.Popen(
        words(command, out, *changes, generations=100_000), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + HANGS_S
    while lines(out) <= before + 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    return process


REFUSED = [("resume", "another process is running this campaign"), ("run", "holds a run already")]


def test_a_second_process_is_refused_and_a_report_is_not(tmp_path):
    out = tmp_path / "run"
    for command in ("run", "resume"):
        process = started(command, out)
        try:
            process.send_signal(signal.SIGSTOP)  # it holds its lease, and its journal does not grow while others start
            for other, why in REFUSED[: 2 if command == "run" else 1]:
                ended = subprocess.run(words(other, out), capture_output=True, text=True, timeout=HANGS_S)
                assert ended.returncode == 2
                assert why in ended.stderr and "Traceback" not in ended.stderr
            for _ in range(10):  # at any place of a line
                process.send_signal(signal.SIGCONT)
                time.sleep(0.01)
                process.send_signal(signal.SIGSTOP)
                assert not report_data(load_run(out))["finished"]
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=HANGS_S)[1]
        assert process.returncode == 130, said


def removed(out):
    with contextlib.suppress(FileNotFoundError):  # a run that has noticed already takes its empty folder away
        shutil.rmtree(out)


def moved(out):
    out.rename(out.with_name("elsewhere"))


def replaced(out):
    moved(out)
    out.mkdir()


def without_journal(out):
    (out / JOURNAL).unlink()


@pytest.mark.parametrize("loss", [removed, replaced, without_journal])
@pytest.mark.parametrize("population", [20, pytest.param(2100, marks=pytest.mark.long)])
def test_a_run_directory_that_vanishes_gets_no_rest_of_a_run(tmp_path, loss, population):
    out = tmp_path / "run"
    process = started("run", out, f"search.population={population}")
    loss(out)
    said = process.communicate(timeout=HANGS_S)[1]
    assert process.returncode == 2, said
    assert said.strip().splitlines()[-1].startswith(f"evoquant: {out}"), said
    assert "Traceback" not in said
    if loss is not without_journal:
        assert not out.exists() or list(out.iterdir()) == []
    elsewhere = tmp_path / "elsewhere"
    if elsewhere.exists():
        assert load_run(elsewhere).journal
        with RunDir.open(elsewhere):
            pass


@needs_cc
@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the torch extra")
def test_a_full_disk_under_the_cached_network_and_under_a_recipe(servers, tmp_path, record):
    server = servers(TORCH)
    case = Case(server, tmp_path / "case", TORCH)
    ended = case.go(watch="/networks/", fault=FULL, at=1000)  # it costs only time
    assert ended.code == 0, ended.errors
    assert not list((tmp_path / "cache" / "networks").iterdir())
    again = Case(server, tmp_path / "again", TORCH)
    assert again.go().code == 0
    assert again.kept() == case.kept()
    recipe = tmp_path / "recipe" / "r.json"
    export = ("export", case.out, "--to", "recipe", "-o", recipe)
    whole = server(*export, watch="/recipe/")
    assert whole.code == 0, whole.errors
    before = {path.name: path.read_bytes() for path in recipe.parent.iterdir()}
    points = [int(part * whole.written) for part in (0, 0.1, 0.5, 0.9, 0.999)]
    for room in points:
        refused(server(*export, watch="/recipe/", fault=FULL, at=room), "/recipe/", "No space left on device")
        assert {path.name: path.read_bytes() for path in recipe.parent.iterdir()} == before
    record("disks", "full under a recipe: one message, the one before is kept", tried=len(points), held=len(points))


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_really_is_full(tmp_path, record):
    """A tmpfs of a few hundred kilobytes, freed and filled again until the campaign is through."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no mounting here")
    try:
        subprocess.run(words("run", tmp_path / "whole", generations=60), check=True, capture_output=True)
        out, ballast = disk / "run", disk / "ballast"
        command, full = "run", 0
        for room in range(20_000, 400_000, 20_000):
            ballast.write_bytes(b"")
            space = os.statvfs(disk)
            ballast.write_bytes(bytes(max(space.f_bavail * space.f_frsize - room, 0)))
            ended = subprocess.run(words(command, out, generations=60), capture_output=True, text=True)
            if ended.returncode == 0:
                break
            assert ended.returncode == 2
            assert "No space left on device" in ended.stderr and "Traceback" not in ended.stderr
            full += 1
            command = "resume" if (out / "resolved.json").exists() else "run"
            ballast.unlink()
        assert full > 1 and ended.returncode == 0, ended.stderr
        for name in ("journal.jsonl", "champion.json", "report.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)
    record("disks", "a real full disk (tmpfs) under a run, then resumed as undisturbed", tried=full, held=full)
