"""Run directories in an object store: what a URL may be, segments, the lease, and the commands on it."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("fsspec")

import evoquant
from evoquant.campaign import storage_lease, storage_objects
from evoquant.campaign.storage import CHAMPION, JOURNAL, RESOLVED, TIMINGS, RunDir
from evoquant.campaign.storage_lease import LEASE, Lease
from evoquant.campaign.storage_objects import FsspecObjects, MemoryObjects
from evoquant.campaign.storage_remote import RemoteRunDir
from evoquant.campaign.storage_url import Url, folder_of, is_run, place_of
from evoquant.cli.commands import app
from evoquant.errors import HeldError, InputError, RunDirError
from evoquant.testing import ConformanceError, check_storage

CONFIG = Path(__file__).parents[2] / "configs" / "evolve.yaml"
SMALL = ("stop.generations=4", "search.population=20", "executor.kind=local")


@pytest.fixture
def store(request):
    """A place in memory of the test's own."""
    from fsspec.implementations.memory import MemoryFileSystem

    yield f"memory://{request.node.name.replace('[', '-').replace(']', '')}"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def command(capsys):
    def run(*words):
        app([str(word) for word in words], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_a_folder_and_memory_keep_the_conformance_suite(tmp_path, store):
    for place in (tmp_path, store):
        check_storage(place)


@pytest.mark.long
def test_killed_at_every_write(tmp_path, store):
    for place in (tmp_path, store):
        check_storage(place, kills=60)


@pytest.mark.parametrize(
    ("method", "clause"),
    [
        ("create", "are told that they did"),
        ("replace", "are told that they did|old tag"),
        ("write", "does not read as it was put"),
    ],
)
def test_the_suite_finds_a_store_that_does_not_keep_it(monkeypatch, store, method, clause):
    def create(self, name, data):
        self.write(name, data)
        return storage_objects._tag(data)

    def replace(self, name, data, tag):
        return create(self, name, data)

    def write(self, name, data):
        FsspecObjects.write(self, name, data[:100_000])

    monkeypatch.setattr(MemoryObjects, method, {"create": create, "replace": replace, "write": write}[method])
    with pytest.raises(ConformanceError, match=clause):
        check_storage(store)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/runs/a", "s3://bucket/runs/a"),
        ("S3://bucket//runs/a/", "s3://bucket/runs/a"),
        (Path("s3://bucket/runs/a"), "s3://bucket/runs/a"),
        ("memory://a b/ü", "memory://a b/ü"),
        ("file:///tmp/a", "/tmp/a"),
        ("runs/a", "runs/a"),
        ("s3:/bucket/a", "s3:/bucket/a"),  # a folder, oddly called
    ],
)
def test_places(text, expected):
    place = place_of(text)
    assert str(place) == expected
    assert isinstance(place, Url) == ("://" in expected)
    assert place_of(place) is place or not isinstance(place, Url)
    assert str(place / "x.json") == f"{expected}/x.json"
    assert str((place / "x.json").parent) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("s3://bucket", "names no place within a bucket"),
        ("memory://", "names no place within a store"),
        ("ftp://host/run", "nothing is known of ftp://"),
        ("simplecache::s3://bucket/run", "cannot be the URL"),
        ("s3://bucket/../other/run", "cannot be the URL"),
        ("s3://bucket/run?versionId=3", "cannot be the URL"),
        ("s3://bucket/*", "cannot be the URL"),
        ("s3://bucket/a\nb", "cannot be the URL"),
        ("s3://bucket/" + "x" * 1000, "cannot be the URL"),
        ("file://host/run", "file:///folder/run"),
    ],
)
def test_urls_that_no_run_directory_has(text, fault):
    with pytest.raises(InputError, match=fault) as caught:
        place_of(text)
    assert "\n" not in str(caught.value)


def test_a_run_by_url_is_the_local_run(store, tmp_path, command):
    local = evoquant.run(CONFIG, out=tmp_path / "run", overrides=SMALL)
    place = f"{store}/run"
    evoquant.run(CONFIG, out=place, overrides=SMALL)
    run = RemoteRunDir(place_of(place))
    for name in ("champion.json", "report.json", "resolved.json", "config.yaml"):
        assert (run.path / name).read_bytes() == (local.path / name).read_bytes(), name
    segments = sorted(name for name in run._objects.names() if name.startswith("journal/"))
    assert b"".join(map(run._objects.read, segments)) == (local.path / JOURNAL).read_bytes()
    assert json.loads(command("report", place, "--json")) == json.loads(command("report", local.path, "--json"))
    assert command("export", place, "--to", "python") == command("export", local.path, "--to", "python")
    assert command("apply", place, "seed/test", "--json") == command("apply", local.path, "seed/test", "--json")
    assert json.loads(command("compare", place, tmp_path / "run", "--anyway", "--json"))
    assert not evoquant.resume(place).fresh
    with pytest.raises(RunDirError, match=rf"holds a run already; continue it with `evoquant resume {place}`"):
        evoquant.run(CONFIG, out=place, overrides=SMALL)
    saved = evoquant.load(place).save(tmp_path / "saved")
    assert (saved / JOURNAL).read_bytes() == (local.path / JOURNAL).read_bytes()
    assert not evoquant.resume(saved).fresh
    assert not (Path.cwd() / "memory:").exists()


def test_a_command_writes_to_no_memory_that_would_end_with_it(command):
    with pytest.raises(InputError, match=r"memory://run: is in the memory of this command, and would be gone"):
        command("run", CONFIG, "--out", "memory://run")


def test_nor_does_one_whose_config_names_it(command, store, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"models: {{train: [seed/train]}}\nstop: {{generations: 2}}\nout: {store}/run\n")
    for words in (("run", config), ("run", CONFIG, "--set", f"out={store}/run")):
        with pytest.raises(
            InputError, match=rf"{words[1]}: out: {store}/run: is in the memory of this command"
        ) as caught:
            command(*words)
        assert "\n" not in str(caught.value)
    assert not is_run(place_of(f"{store}/run"))
    command("run", config, "--out", tmp_path / "run", "--executor", "local", "--quiet")
    assert evoquant.load(evoquant.run(config, overrides=["executor.kind=local"]).path).champion  # Python keeps it


def test_a_refused_campaign_leaves_nothing(store, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("models: {train: [nowhere.json]}\n")
    with pytest.raises(InputError, match=r"nowhere\.json"):
        evoquant.run(config, out=f"{store}/out")
    assert not is_run(place_of(f"{store}/out"))


def test_where_nothing_is(store, command):
    for words in (("report", f"{store}/none"), ("resume", f"{store}/none")):
        with pytest.raises(RunDirError, match=rf"{store}/none: no such run directory"):
            command(*words)
    for place in (store, Path(store)):
        with pytest.raises(InputError, match="a sweep's directory is a folder of this machine"):
            folder_of(place, "a sweep's directory")
    with pytest.raises(InputError, match="the folder of an ablation is a folder of this machine"):
        command("ablate", CONFIG, "--out", store)


def test_a_store_that_fails_says_so(store, monkeypatch):
    def broken(self, name, data):
        raise OSError("the network is\ndown")

    with RunDir.create(place_of(store)) as run:
        monkeypatch.setattr(MemoryObjects, "write", broken)
        with pytest.raises(RunDirError, match=rf"{store}: champion\.json cannot be written: the network is down\.$"):
            run.put(CHAMPION, "{}")
        monkeypatch.setattr(MemoryObjects, "create", broken)
        with pytest.raises(RunDirError, match=rf"{store}: journal\.jsonl cannot be appended to: the network is down"):
            run.append(JOURNAL, {})


def test_an_answer_that_was_lost_is_not_another_writer(store, monkeypatch):
    """What a client tries again, because it heard nothing, finds its own object there."""
    right = MemoryObjects.create

    def lost(self, name, data):
        right(self, name, data)
        return right(self, name, data)

    monkeypatch.setattr(MemoryObjects, "create", lost)
    with RunDir.create(place_of(store)) as run:
        run.put(RESOLVED, "{}")
        run.append(JOURNAL, {"generation": 0})
        assert len(run.journal()) == 1


def test_a_put_of_a_killed_writer_that_arrives_late_is_not_written_behind(store):
    place = place_of(store)
    with RunDir.create(place) as run:
        run.put(RESOLVED, "{}")
        run.append(JOURNAL, {"generation": 0})
    with RunDir.open(place) as run:
        assert len(run.journal(repair=True)) == 1
        place.objects().write("journal/000001.jsonl", b'{"generation":1,"of":"the killed one"}\n')
        with pytest.raises(RunDirError, match=r"journal/000001\.jsonl was written by another process"):
            run.append(JOURNAL, {"generation": 1})
    assert len(RunDir.open(place, hold=False).journal()) == 2


def test_the_lease_is_renewed_while_it_is_held(store, monkeypatch):
    monkeypatch.setattr(storage_lease, "RENEW_S", 0.02)
    objects = place_of(store).objects()
    lease = Lease(objects)
    lease.take()
    first = json.loads(objects.read(LEASE))
    waited = threading.Event()
    for _ in range(100):
        if json.loads(objects.read(LEASE))["count"] > first["count"] + 1:
            break
        waited.wait(0.02)
    assert json.loads(objects.read(LEASE))["count"] > first["count"] + 1
    lease.release()
    assert json.loads(objects.read(LEASE))["released"]


def test_a_store_that_cannot_be_reached_for_long_ends_the_writing(store, monkeypatch):
    def broken(self, *_):
        raise OSError("down")

    with RunDir.create(place_of(store)) as run:
        now = storage_lease._clock()
        monkeypatch.setattr(storage_lease, "_clock", lambda: now + storage_lease.SAFE_S + 1)
        run.put(RESOLVED, "{}")  # asleep for long, and nobody took over: it is renewed first
        monkeypatch.setattr(storage_lease, "_clock", lambda: now + 2 * storage_lease.SAFE_S + 2)
        monkeypatch.setattr(MemoryObjects, "replace", broken)
        with pytest.raises(RunDirError, match="could not be reached for 40 s; nothing more is written"):
            run.put(CHAMPION, "{}")
        assert not run.has(CHAMPION)


def test_when_a_lease_is_over(store, monkeypatch):
    objects = place_of(store).objects()
    lease = Lease(objects)
    lease.take()
    stated = json.loads(objects.read(LEASE))
    over = lambda **changed: storage_lease._is_over(json.dumps(stated | changed).encode())  # noqa: E731
    elsewhere = stated["process"] | {"machine": "another"}
    assert not over()
    assert not over(process=elsewhere)
    assert over(released=True)
    assert over(renewed=stated["renewed"] - storage_lease.EXPIRES_S - 1)
    assert not over(renewed=stated["renewed"] - storage_lease.EXPIRES_S + 10)
    assert not over(renewed=stated["renewed"] + 1000)  # a clock that is ahead: held
    assert over(process=stated["process"] | {"began": 1})  # the number of a process that ended is used again
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert over(process=stated["process"] | {"pid": ended.pid})
    assert not over(process=elsewhere | {"pid": ended.pid})
    assert storage_lease._is_over(b"no JSON")
    with pytest.raises(HeldError, match=r"another process is running this campaign.*renewed \d+ s ago by"):
        RunDir.create(place_of(store))
    lease.release()


def test_timings_wait_for_each_other(store):
    with RunDir.create(place_of(store)) as run:
        for number in range(50):
            run.append(TIMINGS, {"generation": number}, durable=False)
    assert len(RunDir.at(place_of(store)).text(TIMINGS).splitlines()) == 50
    assert len(place_of(store).objects().names("timings")) == 1


def test_without_the_package_the_extra_is_named(monkeypatch, store):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"memory:// needs fsspec, .*pip install 'evoquant\[remote\]'"):
        RunDir.create(place_of(store))
