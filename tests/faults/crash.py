"""Commands of evoquant in processes whose disk fails or that die at a given write, many of them a second.

A server loads evoquant once, on top of `faulty.c`, and forks a process for each command: real processes, real files
and real system calls, without a Python start each.
"""

import contextlib
import ctypes
import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"
KEPT = ("journal.jsonl", "champion.json", "report.json", "archive.json", "gate.json")
TINY = """
name: tiny
task: {kind: tiny, block: 100}
menu: [INT2-channel, INT4-channel, INT8-channel, FP16, FP32]
genome: {kind: direct}
search: {kind: genetic, population: 8, elites: 2}
stop: {generations: 6}
executor: {kind: local}
"""
SMALL = ["stop.generations=8", "search.population=20"]
CAMPAIGNS = {
    "rules on profiles": ("evolve.yaml", SMALL),
    "a large population": ("evolve.yaml", [*SMALL, "search.population=2100"]),
    "an allocation layer by layer": ("nsga2.yaml", SMALL),
    "a search with an archive": ("map_elites.yaml", SMALL[:1]),
    "a network": ("tiny.yaml", []),
    "a network without generations": ("tiny.yaml", ["search.in_flight=5"]),
    "a network in PyTorch": ("digits.yaml", ["stop.generations=4", "search.population=8"]),
}
TORCH, LARGE, STEADY = "a network in PyTorch", "a large population", "a network without generations"
CC = shutil.which("cc") or shutil.which("gcc")
KILLED = -signal.SIGKILL
HANGS_S = 300.0  # nothing here takes so long, on however busy a machine
BEFORE, WITHIN, AFTER, FULL, READ_ONLY, POWER_CUT = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Ended:
    """What a command came to: exit code (negative: killed by that signal), what it said, and what it wrote.

    Attributes:
        changes: writes, syncs, renames, new and removed files and folders below the path that was watched.
        written: bytes, there.
    """

    code: int
    out: str
    errors: str
    changes: int
    written: int
    seconds: float


class Server:
    """Forks commands; a context manager."""

    def __init__(self, folder, *, load=()):
        self.folder = folder
        library = folder / "faulty.so"
        subprocess.run([CC, "-shared", "-fPIC", "-pthread", "-o", library, HERE / "faulty.c"], check=True)
        settings = {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(library), str(folder), *load],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings | {"EVOQUANT_CACHE": str(folder / "cache")},
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait(timeout=HANGS_S)
        self._process.stdout.close()

    def __call__(self, *words, watch="", fault=0, at=0, error=errno.ENOSPC, after_s=None):
        """Run a command to its end.

        Args:
            words: of the command line, after `evoquant`.
            watch: part of the paths that count and fail.
            fault: a kill `BEFORE`, `WITHIN` or `AFTER` the change number `at`; a `POWER_CUT` before it, with which goes
                what was appended and not synced; a disk `FULL` after `at` bytes; or one
                that is `READ_ONLY` after `at` changes.
            at: where.
            error: what a disk that fails answers.
            after_s: kill after so many seconds instead.
        """
        asked = {"words": [str(word) for word in words], "after_s": after_s, "arm": [str(watch), fault, at, error]}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def servers_in(tmp_path_factory):
    """Campaign → the server that runs its commands; PyTorch is loaded only where it is needed."""
    made = {}

    def server(campaign):
        load = ("torch", "sklearn.datasets", "evoquant.models.torch_task") if campaign == TORCH else ()
        if load not in made:
            made[load] = Server(tmp_path_factory.mktemp("server"), load=load)
        return made[load]

    with contextlib.ExitStack() as stack:
        yield server
        for one in made.values():
            stack.enter_context(one)


class Case:
    """One campaign in a folder of its own: `run` and `cache` lie below it."""

    def __init__(self, server, folder, campaign):
        config, changes = CAMPAIGNS[campaign]
        self.out = folder / "run"
        self._server, self._folder = server, folder
        folder.mkdir()
        if config == "tiny.yaml":
            (folder.parent / config).write_text(TINY)
        source = folder.parent / config if config == "tiny.yaml" else CONFIGS / config
        # a network that is trained once would take most of the time
        cache = folder.parent if campaign == TORCH else folder
        changes = [*changes, f"cache={cache / 'cache'}", "executor.kind=local"]
        self._run = ["run", source, "--out", self.out, *(word for change in changes for word in ("--set", change))]

    def go(self, **disturbance):
        """Run, or go on."""
        begun = (self.out / "resolved.json").exists()
        return self._server(
            *(["resume", self.out] if begun else self._run), **{"watch": str(self._folder), **disturbance}
        )

    def kept(self):
        return {name: (self.out / name).read_bytes() for name in KEPT if (self.out / name).exists()}

    def litter(self):
        return sorted(path.name for path in self.out.rglob("*") if path.name.endswith(".tmp"))


def undisturbed_in(servers, tmp_path_factory):
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


def serve(library, folder, load):
    """Answer each line of stdin, a command, with a line about its end."""
    shim = ctypes.CDLL(library)
    shim.arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
    shim.changes.restype = shim.written.restype = ctypes.c_long
    import evoquant.campaign.loop
    import evoquant.cli.commands
    import evoquant.report.tables  # noqa: F401

    for name in load:
        importlib.import_module(name)
    small_task()
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        path, fault, at, error = asked["arm"]
        child = os.fork()
        if child == 0:
            try:
                code = command(folder, asked["words"], lambda: shim.arm(path.encode(), fault, at, error))  # noqa: B023
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = ended(child, asked["after_s"])
        answer = {
            "code": code,
            "out": (folder / "stdout").read_text(),
            "errors": (folder / "stderr").read_text(),
            "changes": shim.changes(),
            "written": shim.written(),
            "seconds": time.monotonic() - began,
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def small_task():
    """The tests' task `tiny`, which needs no PyTorch, for configs to name; gates that take less time."""
    from evoquant.campaign import gate
    from evoquant.models.measurer import RUNTIMES
    from evoquant.models.tasks import TASKS

    spec = importlib.util.spec_from_file_location("tiny", HERE.parent / "campaign" / "conftest.py")
    tiny = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = tiny
    spec.loader.exec_module(tiny)
    TASKS["tiny"] = lambda seed, cache, block, batch: tiny.TinyTask(seed, block or 100)
    RUNTIMES["tiny"] = tiny.start
    gate.RESAMPLES = 100


def command(folder, words, arm):
    """Run a command in this process; its exit code."""
    for number, name in ((0, os.devnull), (1, folder / "stdout"), (2, folder / "stderr")):
        handle = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    from evoquant.cli import main

    sys.argv = ["evoquant", *words]
    arm()
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0


def ended(child, after_s):
    """Exit code of a child, killed after `after_s`."""
    began = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > (HANGS_S if after_s is None else after_s):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.0005)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
