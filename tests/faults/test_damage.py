"""Damaged files, of a run and of the store: written again, measured again, or named with the remedy."""

import shutil

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.storage import JOURNAL, RunDir
from evoquant.errors import InputError, Interrupted, RunDirError
from evoquant.report.data import load_run, report_data
from evoquant.store import FILE, Store
from evoquant.testing.interrupt import StopAfter

from .crash import CC, CONFIGS, FULL, KEPT, Case, refused

needs_cc = pytest.mark.skipif(CC is None, reason="a disk that fails is a C library, and there is no C compiler")
NETWORK = "a network"


CONTENTS = {
    "empty": lambda data: b"",
    "half of it": lambda data: data[: len(data) // 2],
    "bytes": lambda data: b"\xff\x00\xfe",
    "another value": lambda data: b"[]\n",
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


@pytest.mark.parametrize("times", [20, pytest.param(2000, marks=pytest.mark.long)])
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
@pytest.mark.parametrize("times", [1, pytest.param(60, marks=pytest.mark.long)])
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
