"""Campaigns in processes of their own that can be disturbed, and whatever processes they leave behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

FOLDER = Path(__file__).parent
SUITE = FOLDER.parents[1] / "configs" / "evolve.yaml"
HANGS_S = 240  # whoever takes longer hangs, however busy the machine
TAG = "EVOQUANT_FAULT"
KEPT = ("journal.jsonl", "champion.json", "report.json")
MEASURED = """
name: faults
task: {kind: misbehaving, block: 100}
menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2}
stop: {generations: 4}
executor: {kind: local}
"""
LIMIT = ("--set", "executor.limit_s=1.5")
RAY = ("--executor", "ray", "--workers", "2")


class Driver:
    """The command line in a session of its own; its cache lies beside the run."""

    def __init__(self, words, cache, mood="", **environment):
        self.tag = uuid.uuid4().hex
        self.words = [str(word) for word in words]
        env = {**os.environ, "PYTHONPATH": str(FOLDER), "EVOQUANT_CACHE": str(cache), "MISBEHAVE": mood, TAG: self.tag}
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", **environment}
        command = [sys.executable, "-m", "misbehaving", *self.words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
        )

    def end(self):
        """Exit code and messages; a driver that hangs fails the test, and is killed."""
        try:
            _, errors = self.process.communicate(timeout=HANGS_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.words} hangs") from None
        finally:
            if self.process.poll() is None:
                self.process.kill()
        return self.process.returncode, errors

    def others(self):
        """Process id → command of all processes of this campaign but the driver itself."""
        found = {}
        mark = f"{TAG}={self.tag}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes() and int(folder.name) != self.process.pid:
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def kill(self, word):
        """SIGKILL to all whose command holds the word; how many there were."""
        hit = [pid for pid, command in self.others().items() if word in command]
        for pid in hit:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(hit)

    def wait_until(self, true):
        deadline = time.monotonic() + HANGS_S
        while not true():
            assert self.process.poll() is None, f"ended before it was disturbed: {self.process.communicate()}"
            assert time.monotonic() < deadline, "nothing to disturb"
            time.sleep(0.01)

    def gone(self):
        """Seconds until none of its other processes is left."""
        began = time.monotonic()
        while left := self.others():
            assert time.monotonic() - began < HANGS_S, f"still there: {left}"
            time.sleep(0.05)
        return time.monotonic() - began

    def clear(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        for pid in self.others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def lines(out):
    """The journal so far."""
    journal = Path(out) / "journal.jsonl"
    return [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]] if journal.exists() else []


def files(out):
    return {name: (Path(out) / name).read_bytes() for name in KEPT}


def one_message(errors):
    """The last line, which has to be the only one of its kind, and no traceback."""
    assert "Traceback" not in errors, errors
    found = [line for line in errors.splitlines() if line.startswith("evoquant: ")]
    assert len(found) == 1, errors
    return found[0]
