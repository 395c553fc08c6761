import random
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.store import FILE, Store, cache_folder, outcome_key, sharing

ONE = outcome_key(["INT4-channel", "FP32"], "model", "block", "1", "torch 1")
OUTCOMES = np.array([[1, 0.0], [0, 0.7], [1, 0.2], [1, 1e-8]], dtype=np.float32)


def test_what_is_put_is_there_in_the_next_process_too(tmp_path):
    with Store.open(tmp_path) as store:
        assert store.get([ONE]) == {}
        store.put({ONE: OUTCOMES})
    with Store.open(tmp_path) as store:
        found = store.get([ONE, "unknown"])
    assert list(found) == [ONE]
    assert np.array_equal(found[ONE], OUTCOMES)


def test_everything_that_decides_an_outcome_is_in_the_key():
    parts = (["INT4-channel", "FP32"], "model", "block", "1", "torch 1")
    others = (["FP32", "INT4-channel"], "model2", "block2", "2", "torch 2")
    keys = {ONE} | {outcome_key(*parts[:i], others[i], *parts[i + 1 :]) for i in range(5)}
    assert len(keys) == 6
    assert outcome_key(*parts) == ONE


def test_the_first_outcome_stays(tmp_path):
    with Store.open(tmp_path) as store:
        store.put({ONE: OUTCOMES})
        store.put({ONE: 1 - OUTCOMES})
        assert np.array_equal(store.get([ONE])[ONE], OUTCOMES)


def test_more_keys_than_fit_in_one_query(tmp_path):
    items = {f"key {i}": np.array([[i % 2, i]], dtype=np.float32) for i in range(1234)}
    with Store.open(tmp_path) as store:
        store.put(items)
        assert len(store.get(items)) == 1234


def test_a_damaged_row_counts_as_missing_and_can_be_put_again(tmp_path):
    with Store.open(tmp_path) as store:
        store.put({ONE: OUTCOMES})
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE outcomes SET value = x'0001'")
    connection.close()
    with Store.open(tmp_path) as store:
        assert store.get([ONE]) == {}
        store.put({ONE: OUTCOMES})
        assert np.array_equal(store.get([ONE])[ONE], OUTCOMES)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_moved_aside(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with Store.open(tmp_path) as store:
        store.put({ONE: OUTCOMES})
        assert ONE in store.get([ONE])
    if content:
        assert [path.read_bytes() for path in tmp_path.glob("*damaged*")] == [content]


def test_two_campaigns_share_a_store(tmp_path):
    with Store.open(tmp_path) as first, Store.open(tmp_path) as second:
        first.put({ONE: OUTCOMES})
        assert ONE in second.get([ONE])
        second.put({"two": OUTCOMES})
        assert "two" in first.get(["two"])


def test_an_unusable_folder_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache:"):
        Store.open(tmp_path / "file" / "below")


def test_where_the_cache_lies(tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    monkeypatch.setenv("EVOQUANT_CACHE", str(tmp_path / "environment"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(str(tmp_path / "given"), run_dir) == tmp_path / "given"
    assert cache_folder(None, run_dir) == tmp_path / "environment"
    monkeypatch.delenv("EVOQUANT_CACHE")
    assert cache_folder(None, run_dir) == tmp_path / "home/.cache/evoquant"
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    assert cache_folder(None, run_dir) == run_dir / "cache"


# Shared: what one is measuring the others leave to it.


def shared(folder):
    with sharing():
        return Store.open(folder)


def test_what_is_claimed_or_known_is_nobody_elses(tmp_path):
    with shared(tmp_path) as first, shared(tmp_path) as second:
        first.put({"known": OUTCOMES})
        with first.claim(["known", ONE, "two"]) as mine:
            assert mine == [ONE, "two"]
            with second.claim([ONE, "three"]) as others:
                assert others == ["three"]
            first.put({ONE: OUTCOMES})
            assert list(second.wait([ONE, "two"])) == [ONE]
        assert second.wait(["two"]) == {}, "given up without an outcome: the next one's to measure"
        with second.claim(["two"]) as others:
            assert others == ["two"]
    with Store.open(tmp_path) as alone, alone.claim([ONE, "two"]) as mine:
        assert mine == [ONE, "two"], "who does not share minds no one"


def test_whoever_waits_has_it_as_soon_as_it_is_there(tmp_path):
    with shared(tmp_path) as first, first.claim([ONE]), ThreadPoolExecutor() as pool:

        def other():
            with shared(tmp_path) as second:
                return second.wait([ONE])

        waiting = pool.submit(other)
        time.sleep(0.05)
        assert not waiting.done()
        first.put({ONE: OUTCOMES})
        assert np.array_equal(waiting.result(timeout=10)[ONE], OUTCOMES)


def test_claims_of_a_process_that_was_killed_count_no_more(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from evoquant.store import Store, sharing\n"
        "with sharing(), Store.open(Path(sys.argv[1])) as store, store.claim(['one', 'two']):\n"
        "    print('claimed', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    with shared(tmp_path) as store:
        with store.claim(["one"]) as mine:
            assert mine == []
        process.kill()
        process.wait()
        assert store.wait(["one"]) == {}
        with store.claim(["one", "three"]) as mine:
            assert mine == ["one", "three"]
    assert list((tmp_path / "claims").iterdir()) == []
    process.stdout.close()


def test_many_at_once_measure_each_key_once(tmp_path):
    keys = [f"key {i}" for i in range(60)]
    measured = []

    def campaign(seed):
        with shared(tmp_path) as store:
            left = random.Random(seed).sample(keys, len(keys))
            while left:
                part, found = left[:7], store.get(left[:7])
                missing = [key for key in part if key not in found]
                while missing:
                    with store.claim(missing) as mine:
                        measured.extend(mine)
                        store.put(dict.fromkeys(mine, OUTCOMES))
                    missing = [key for key in missing if key not in mine]
                    late = store.wait(missing) if missing else {}
                    missing = [key for key in missing if key not in late]
                left = left[7:]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(campaign, range(4)))
    assert sorted(measured) == sorted(keys)
    assert list((tmp_path / "claims").iterdir()) == []
