import sqlite3

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.store import FILE, Store, cache_folder, outcome_key

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
