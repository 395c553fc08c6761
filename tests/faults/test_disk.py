"""Disks that are full, read-only or damaged, run directories that vanish: one clear message, and nothing is lost."""

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

from evoquant import api
from evoquant.campaign.storage import JOURNAL, RunDir
from evoquant.errors import InputError, Interrupted, RunDirError
from evoquant.report.data import load_run, report_data
from evoquant.store import FILE, Store
from evoquant.testing.interrupt import StopAfter

from .crash import CC, CONFIGS, FULL, HANGS_S, KEPT, READ_ONLY, TORCH, Case, servers_in

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

DIFFERS = ("timings.jsonl", "checkpoint.json", FILE)  # in length, with the time; the store's last write is its close


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with servers_in(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(servers, tmp_path_factory):
    """Campaign → what it leaves when nobody disturbs it."""
    found = {}

    def expected(campaign):
        if campaign not in found:
            case = Case(servers(campaign), tmp_path_factory.mktemp("undisturbed") / "case", campaign)
            ended = case.go()
            assert ended.code == 0, ended.errors
            found[campaign] = case.kept()
        return found[campaign]

    return expected


def refused(ended, *words):
    """It ended as bad input does: with one message, which says these words."""
    assert ended.code == 2, (ended.code, ended.errors)
    last = ended.errors.strip().splitlines()[-1]
    assert ended.errors.count("evoquant: ") == 1, ended.errors
    assert last.startswith("evoquant: "), ended.errors
    assert "Traceback" not in ended.errors
    for word in words:
        assert word in last, (word, last)


@needs_cc
@pytest.mark.parametrize("points", [1, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.parametrize("file", FILES)
def test_a_disk_that_is_full_after_so_many_bytes(servers, undisturbed, tmp_path, record, file, points):
    campaign, name = FILES[file], file.split()[-1]
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
@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("after", [0, 5, 30])
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
@pytest.mark.parametrize("target", ["json", "python", "rust"])
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
    shutil.rmtree(out)


def moved(out):
    out.rename(out.with_name("elsewhere"))


def replaced(out):
    moved(out)
    out.mkdir()


def without_journal(out):
    (out / JOURNAL).unlink()


@pytest.mark.parametrize("loss", [removed, moved, replaced, without_journal])
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


CONTENTS = {
    "empty": lambda data: b"",
    "half of it": lambda data: data[: len(data) // 2],
    "bytes": lambda data: b"\xff\x00\xfe",
    "another value": lambda data: b"[]\n",
    "null": lambda data: b"null",
    "an object": lambda data: b"{}\n",
}
# damaged, these cannot be had from the others: resume refuses, and says what to do
NEEDED = {"resolved.json": "restore it, or start a new run", "environment.json": "delete it"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished campaign with an archive, and one that was interrupted."""
    place = tmp_path_factory.mktemp("runs")
    given = ["executor.kind=local", "stop.generations=5", "search.batch=20"]
    api.run(CONFIGS / "map_elites.yaml", out=place / "finished", overrides=given)
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "map_elites.yaml", out=place / "interrupted", overrides=given, observer=StopAfter(3))
    return place


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("state", ["interrupted", "finished"])
def test_a_damaged_file_of_a_run_is_written_again_or_named_with_the_remedy(runs, tmp_path, state, content):
    expected = {name: (runs / "finished" / name).read_bytes() for name in KEPT if name != "gate.json"}
    for path in sorted((runs / state).iterdir()):
        if path.name == ".lock":
            continue
        out = tmp_path / path.name
        shutil.copytree(runs / state, out)
        damaged = out / path.name
        damaged.write_bytes(CONTENTS[content](path.read_bytes()))
        try:
            report_data(load_run(out))
        except InputError as error:
            assert str(error).startswith(str(out))
        remedy = NEEDED.get(path.name)
        if path.name == JOURNAL and content == "an object":
            remedy = "line 1 is damaged; restore the file, or delete that line"
        if state == "finished" and path.name in ("environment.json", JOURNAL):  # of which nothing is read any more
            api.resume(out)
            continue
        if remedy is not None:
            with pytest.raises(RunDirError, match=f"{path.name}.*{remedy}") as caught:
                api.resume(out)
            assert "\n" not in str(caught.value)
            damaged.write_bytes(path.read_bytes())
        api.resume(out)
        assert {name: (out / name).read_bytes() for name in expected} == expected, path.name


def test_a_line_that_is_torn_within_a_character_is_cut_off(tmp_path):
    whole = b'{"generation":0}\n'
    torn = '{"generation":1,"text":"größer'.encode()
    for cut in range(1, len(torn) + 1):
        (tmp_path / JOURNAL).write_bytes(whole + torn[:cut])
        run = RunDir(tmp_path)
        assert run.journal() == ['{"generation":0}']
        assert (tmp_path / JOURNAL).read_bytes() == whole + torn[:cut], "reading alone changes nothing"
        assert run.journal(repair=True) == ['{"generation":0}']
        assert (tmp_path / JOURNAL).read_bytes() == whole


def test_what_a_kill_left_goes_when_the_run_goes_on(tmp_path):
    (tmp_path / "resolved.json").write_text("{}")
    (tmp_path / "timings.jsonl").write_text('{"generation":0}\n{"gener')
    mine = [tmp_path / name for name in (".checkpoint.json.ab12_xyz.tmp", ".champion.json.00000000.tmp")]
    others = [tmp_path / name for name in (".notes.json.ab12_xyz.tmp", "checkpoint.json.tmp", ".checkpoint.json.tmp")]
    for path in (*mine, *others):
        path.write_text("half")
    with RunDir.open(tmp_path):
        assert not any(path.exists() for path in mine)
        assert all(path.exists() for path in others), "somebody else's"
        assert (tmp_path / "timings.jsonl").read_text() == '{"generation":0}\n'


def outcome(key):
    return np.random.default_rng(key).random((50, 2), dtype=np.float32)


def damaged_at_random(data, rng):
    """A few bytes changed, a part of it zeroed, or its end cut off."""
    data = bytearray(data)
    kind = rng.integers(3)
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= int(rng.integers(1, 256))
    elif kind == 1:
        start = int(rng.integers(0, len(data)))
        end = min(start + int(rng.integers(1, 5000)), len(data))
        data[start:end] = bytes(end - start)
    else:
        del data[int(rng.integers(0, len(data))) :]
    return bytes(data)


@pytest.mark.parametrize("times", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_a_damaged_store_never_answers_wrongly(tmp_path, record, times):
    """Half of the damage is to the first page, where SQLite keeps what the file is."""
    keys = {f"{i:064x}": i for i in range(120)}
    with Store.open(tmp_path / "whole") as store:
        store.put({key: outcome(i) for key, i in keys.items()})
    good = (tmp_path / "whole" / FILE).read_bytes()
    rng = np.random.default_rng(0)
    lost = aside = unkept = 0
    for number in range(times):
        folder = tmp_path / "damaged"
        folder.mkdir()
        first = 4096 if number % 2 else len(good)
        (folder / FILE).write_bytes(damaged_at_random(good[:first], rng) + good[first:])
        with Store.open(folder) as store:
            for key, found in store.get(keys).items():
                assert np.array_equal(found, outcome(keys[key])), f"wrong answer, number {number}"
            lost += len(store.get(keys)) < len(keys)
            for _ in range(3):  # damage that only now is met empties it again
                store.put({key: outcome(i) for key, i in keys.items()})
                again = store.get(keys)
        assert all(np.array_equal(again[key], outcome(i)) for key, i in keys.items() if key in again)
        # Where the index has a key that its row has not, there is no room for it: it is measured each time.
        assert len(again) > 0.5 * len(keys), f"what is put again is there, number {number}"
        unkept += len(keys) - len(again)
        aside += any(folder.glob("*.damaged"))
        shutil.rmtree(folder)
    assert lost, "the damage did none"
    record(
        "disks",
        "a damaged store of outcomes: no wrong answer, measured again",
        tried=times,
        held=times,
        lost_some=lost,
        moved_aside=aside,
        not_kept=unkept,
    )


def test_a_row_of_another_key_is_no_answer(tmp_path):
    """As where a damaged index leads to the wrong row."""
    with Store.open(tmp_path) as store:
        store.put({"one": outcome(1), "two": outcome(2)})
        store._connection.execute(
            "UPDATE outcomes SET (value, digest) = (SELECT value, digest FROM outcomes WHERE key = 'two')"
        )
        assert list(store.get(["one", "two"])) == ["two"]


def test_a_store_that_was_removed_while_it_was_open_ends_nothing(tmp_path):
    folder = tmp_path / "cache"
    with Store.open(folder) as store:
        store.put({"one": outcome(1)})
        shutil.rmtree(folder)
        store.put({str(i): outcome(i) for i in range(2000)})
        assert len(store.get([str(i) for i in range(2000)])) == 2000
        with Store.open(folder) as other:
            other.put({"two": outcome(2)})
            assert list(other.get(["one", "two"])) == ["two"]
            store.put({"three": outcome(3)})


@needs_cc
@pytest.mark.parametrize("times", [2, pytest.param(60, marks=pytest.mark.long)])
def test_a_campaign_goes_on_with_a_damaged_store(servers, undisturbed, tmp_path, record, times):
    rng = np.random.default_rng(1)
    for number in range(times):
        case = Case(servers(NETWORK), tmp_path / str(number), NETWORK)
        case.go(watch=case.out / JOURNAL, fault=FULL, at=int(rng.integers(2000, 15000)))
        path = tmp_path / str(number) / "cache" / FILE
        path.write_bytes(damaged_at_random(path.read_bytes(), rng) if number else b"no SQLite at all\n" * 999)
        last = case.go()
        assert last.code == 0, last.errors
        assert case.kept() == undisturbed(NETWORK)
    record("disks", "a campaign resumed with a damaged store, as undisturbed", tried=times, held=times)


@needs_cc
def test_a_directory_in_the_stores_place_is_named_with_the_remedy(servers, tmp_path):
    case = Case(servers(NETWORK), tmp_path / "case", NETWORK)
    (tmp_path / "case" / "cache" / FILE).mkdir(parents=True)
    refused(case.go(), FILE, "cache:")
    (tmp_path / "case" / "cache" / FILE).rmdir()
    assert case.go().code == 0


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
