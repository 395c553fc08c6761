"""Run directories in S3, on the server of examples/remote, whose conditions hold: the suite asks for that first."""

import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("flask_cors")

import evoquant
from evoquant.campaign.storage import CHAMPION, JOURNAL, RESOLVED, RunDir
from evoquant.campaign.storage_url import place_of
from evoquant.errors import RunDirError
from evoquant.testing import check_storage

CONFIG = Path(__file__).parents[2] / "configs" / "evolve.yaml"
SERVER = Path(__file__).parents[2] / "examples" / "remote" / "server.py"


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket; the environment says where its server is, as for any user of S3."""
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = subprocess.Popen([sys.executable, SERVER, str(port), "bucket"])
    with pytest.MonkeyPatch.context() as patched:
        for name, value in settings.items():
            patched.setenv(name, value)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(settings["AWS_ENDPOINT_URL"], timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            s3fs.S3FileSystem.clear_instance_cache()
            yield "s3://bucket"
        finally:
            server.kill()
            server.wait()
            s3fs.S3FileSystem.clear_instance_cache()


def test_s3_keeps_the_conformance_suite(bucket):
    check_storage(f"{bucket}/suite", kills=2, rounds=2)


@pytest.mark.long
def test_killed_at_every_write(bucket):
    check_storage(f"{bucket}/long", kills=60, rounds=100)


def started(*words):
    command = [sys.executable, "-m", "evoquant.cli", *map(str, words), "--progress", "none"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_process_is_killed_and_the_next_goes_on_at_once(bucket, tmp_path):
    place, long = place_of(f"{bucket}/killed"), ["stop.generations=20", "executor.kind=local"]
    with started("run", CONFIG, "--out", place, "--set", long[0], "--set", long[1]) as process:
        while process.poll() is None and not RunDir.at(place).has(JOURNAL):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with RunDir.open(place), started("resume", place) as second:  # its lease is over: the process is none any more
        said = second.communicate(timeout=120)[1]
    assert second.returncode == 2
    assert f"{place}: another process is running this campaign; wait for it or stop it." in said
    evoquant.resume(place)
    local = evoquant.run(CONFIG, out=tmp_path / "run", overrides=long)
    run = RunDir.open(place, hold=False)
    assert "".join(f"{line}\n" for line in run.journal()) == (local.path / JOURNAL).read_text(encoding="utf-8")
    assert run.text(CHAMPION) == (local.path / CHAMPION).read_text(encoding="utf-8")


@pytest.mark.long
def test_killed_at_any_time_and_again_while_it_resumes(bucket, tmp_path):
    long, rng = ["stop.generations=120", "stop.stagnation=null", "executor.kind=local"], random.Random(0)
    sets = [word for one in long for word in ("--set", one)]
    local = evoquant.run(CONFIG, out=tmp_path / "run", overrides=long)
    for number in range(4):
        place = place_of(f"{bucket}/any-time-{number}")
        for _ in range(3):
            begun = RunDir.at(place).has(RESOLVED)
            with started("resume", place) if begun else started("run", CONFIG, "--out", place, *sets) as process:
                time.sleep(rng.uniform(1, 3))
                process.send_signal(signal.SIGKILL)
                process.communicate()
        if RunDir.at(place).has(RESOLVED):
            evoquant.resume(place)
        else:
            evoquant.run(CONFIG, out=place, overrides=long)
        run = RunDir.open(place, hold=False)
        assert "".join(f"{line}\n" for line in run.journal()) == (local.path / JOURNAL).read_text(encoding="utf-8")
        assert run.text(CHAMPION) == (local.path / CHAMPION).read_text(encoding="utf-8")


def test_what_cannot_be_reached_is_named(bucket, monkeypatch):
    import s3fs

    with pytest.raises(RunDirError, match=r"s3://no-such-bucket/run: cannot be written to: .*bucket does not exist"):
        evoquant.run(CONFIG, out="s3://no-such-bucket/run")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RunDirError, match=r"s3://bucket/run: cannot be read: Could not connect to the endpoint"):
        evoquant.resume("s3://bucket/run")
    s3fs.S3FileSystem.clear_instance_cache()
