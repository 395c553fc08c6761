import json
import math
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant import files
from evoquant.errors import ConfigError, InputError, ProfileError
from evoquant.files import (
    MAX_DEPTH,
    canonical_json,
    parse_json,
    pretty_json,
    read_json,
    read_text,
    write_atomic,
    write_together,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_json_round_trip(value):
    for text in (canonical_json(value), pretty_json(value)):
        again = parse_json(text, "x")
        assert again == value
        assert canonical_json(again) == canonical_json(value)


@given(st.dictionaries(st.text(max_size=8), st.integers(), max_size=6))
def test_canonical_json_ignores_the_order_of_keys(value):
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("write", [canonical_json, pretty_json])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_not_written(write, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write({"fitness": value})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("NaN", "NaN is not a JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        ("[1e999]", "1e999 is too large for a float"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        ("{'a': 1}", "not JSON: .* at line 1, column 2"),
        ("[1,\n 2", "at line 2"),
        ("", "not JSON"),
        ("[1] [2]", "not JSON"),
        ("9" * 5000, "x.json: .*digit"),
        ("[" * 100_000 + "]" * 100_000, f"nested more than {MAX_DEPTH} deep"),
    ],
)
def test_json_that_is_refused(text, fault):
    with pytest.raises(ProfileError, match=fault) as raised:
        parse_json(text, "x.json", error=ProfileError)
    assert str(raised.value).startswith("x.json: ")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_limit(opening, closing):
    fine = MAX_DEPTH - 1  # the value inside is a level too
    parse_json(opening * fine + "1" + closing * fine, "x")
    deeper = MAX_DEPTH + 1
    with pytest.raises(InputError, match=f"nested more than {MAX_DEPTH} deep"):
        parse_json(opening * deeper + "1" + closing * deeper, "x")


@pytest.mark.parametrize("token", ["1e309", "1E+0309", "-1e999", "1" * 211 + "e99", "9" * 309 + ".5"])
def test_a_number_too_large_for_a_float_is_refused(token):
    with pytest.raises(InputError, match="too large for a float"):
        parse_json(f"[{token}]", "x")
    assert parse_json("[1e308, 12e99, 1e-400]", "x") == [1e308, 12e99, 0.0]


def test_wide_is_not_deep():
    assert len(parse_json(json.dumps([[0]] * 10_000), "x")) == 10_000


def test_read_text_faults_name_the_path(tmp_path):
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"ab\xff\xfe")
    large.write_text("x" * 101)
    for path, fault in [
        (tmp_path / "missing", "does not exist"),
        (tmp_path, "is a directory"),
        (binary, r"not UTF-8 text \(byte 2\)"),
        (large, "101 bytes; the limit for such a file is 100 bytes"),
    ]:
        with pytest.raises(ConfigError, match=fault) as raised:
            read_text(path, limit=100, error=ConfigError)
        assert str(raised.value).startswith(f"{path}: ")
    large.write_text("x" * 100)
    assert len(read_text(large, limit=100)) == 100


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError):
        read_text(pipe)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_text("x")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(InputError, match="secret: cannot be read: Permission denied"):
        read_text(path)


def test_read_json_names_the_file(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(InputError, match=r"p\.json: the key 'a' stands twice"):
        read_json(path)


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("content", ["α\n", b"\x00\xff", ""])
def test_write_atomic_writes_and_replaces(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file"
    for old in (None, "old content that is longer than the new"):
        if old is not None:
            path.write_text(old)
        write_atomic(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert names(path.parent) == ["file"]


@pytest.mark.parametrize("broken", ["replace", "fsync", "fdopen"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, broken, full)
    with pytest.raises(InputError, match="file: cannot be written: No space left on device"):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "plain").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_atomic(tmp_path / "plain" / "file", "x")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "file", "x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "file"
    versions = {"a" * 100_000, "b" * 200_000}
    write_atomic(path, "a" * 100_000)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(20):
            for version in sorted(versions):
                write_atomic(path, version)
    finally:
        stop.set()
        reader.join()
    assert seen <= versions


def test_files_that_belong_together_are_there_together_or_not_at_all(tmp_path):
    main, side = tmp_path / "m.bin", tmp_path / "m.txt"
    write_together(main, b"one", {side: "about one"})
    assert (main.read_bytes(), side.read_text()) == (b"one", "about one")
    folder, other = tmp_path / "folder", tmp_path / "folder.txt"
    folder.mkdir()
    with pytest.raises(InputError, match="folder: cannot be written"):
        write_together(folder, b"two", {other: "about two"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "m.bin", "m.txt"]
