"""Conformance of a place for run directories: what a campaign relies on when it is killed, resumed, or read meanwhile.

check_storage("s3://bucket/try")     # also whether that server enforces conditional PUT

A folder, `memory://` and S3 go through the same clauses.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from evoquant.campaign import storage_lease
from evoquant.campaign.build import build_campaign
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.loop import run_loop
from evoquant.campaign.storage import CHAMPION, CHECKPOINT, CONFIG, ENVIRONMENT, JOURNAL, RESOLVED, TIMINGS, RunDir
from evoquant.campaign.storage_remote import RemoteRunDir
from evoquant.campaign.storage_url import Url, place_of
from evoquant.errors import HeldError, RunDirError
from evoquant.files import canonical_json, pretty_json
from evoquant.testing.clauses import require, run_checks
from evoquant.testing.storage_faults import FAULTS, Killed, append_raw, killing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evoquant.campaign.storage_objects import Objects

CAMPAIGN = {
    "name": "conformance",
    "models": {"train": ["seed/train"]},
    "search": {"kind": "genetic", "population": 12, "elites": 2},
    "stop": {"generations": 6},
    "finalists": 4,
    "executor": {"kind": "local"},
}
NAMES = ("plain", "with space", "per%20cent", "ünïcode-名前", "-dash", "a+b&c=d;e", "'quoted'", "~tilde", "$HOME")
RACERS = 4
LINES = 40


class _Silent:
    def generation(self, progress: object) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def check_storage(place: str | Path, *, kills: int = 9, rounds: int = 8) -> None:
    """Put a place through all that a run directory needs of it; what is made below it stays there.

    Args:
        place: an empty folder, or a URL with nothing below it.
        kills: how many writes of a small campaign it is killed at, evenly over the run, each kill in its turn before,
            within or after the write.
        rounds: how often several writers race for one object, and for one run directory.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    root = place_of(place)
    checks: tuple[Callable[..., None], ...] = (
        check_files,
        check_names,
        check_lines,
        check_torn,
        check_one_writer,
        check_read_meanwhile,
    )
    if isinstance(root, Url):
        run_checks((check_conditional,), root, rounds)
        checks = (*checks, check_lost_lease)
    run_checks(checks, root)
    run_checks((check_racing_writers,), root, rounds)
    run_checks((check_kills,), root, kills)


def check_conditional(root: Url, rounds: int) -> None:
    """Of those who create an object, or replace one that they have read, at once, one does; the others are told."""
    objects = (root / "conditional").objects()
    names = [f"new/{number}" for number in range(rounds)]
    for name in names:
        made = _race(lambda who: objects.create(name, b"by %d" % who * 500))  # noqa: B023  # over before the next
        _one_winner(objects, name, made, "create (PUT with If-None-Match: *)")
        data, tag = objects.tagged(name) or (b"", "")
        made = _race(lambda who: objects.replace(name, b"again %d" % who * 500, tag))  # noqa: B023
        _one_winner(objects, name, made, "replace (PUT with If-Match)")
        require(objects.replace(name, data, tag) is None, "replace: an old tag replaces what is newer")
    require(objects.create("new/0", b"late") is None, "create: writes over what is there")
    require(objects.replace("none", b"", "tag") is None, "replace: makes an object that was not there")
    require(objects.names("new") == sorted(names), "names: not those below a folder, in order")
    objects.remove("new/0")
    objects.remove("new/0")
    require(
        objects.size("new/0") is None and objects.tagged("new/0") is None, "remove: what was removed is still there"
    )


def check_files(root: Path) -> None:
    """A file is there whole or not at all, the newest of its name, and others' files are not."""
    with RunDir.create(root / "files") as run, RunDir.create(root / "files-too") as other:
        for name in (CHAMPION, CHECKPOINT):
            require(not run.has(name), f"has: {name} is there before it was put")
            for data in ("{}\n", '{"a":"é"}\n', "[1]\n" * 50_000, "{}\n"):
                run.put(name, data)
                require(run.has(name) and run.text(name) == data, f"put: {name} does not read as it was put")
        require(not other.has(CHAMPION), "has: sees the file of a run whose name begins alike")
        require(_raises(lambda: other.text(CHAMPION)), "text: of a file that is not there raises no RunDirError")
        run.abandon((CHAMPION, CHECKPOINT))
        require(not run.has(CHAMPION), "abandon: leaves a file behind")
    require(_raises(lambda: RunDir.open(root / "never")), "open: of a place where nothing is raises no RunDirError")


def check_names(root: Path) -> None:
    """A run directory may be called whatever a folder may."""
    for name in NAMES:
        with RunDir.create(root / "names" / name) as run:
            run.put(RESOLVED, canonical_json({"name": name}))
            run.append(JOURNAL, {"generation": 0})
        with RunDir.open(root / "names" / name) as run:
            require(run.read(RESOLVED) == {"name": name}, f"a run directory called {name!r} reads as another")
            require(len(run.journal()) == 1, f"a run directory called {name!r} loses its journal")


def check_lines(root: Path) -> None:
    """Lines stay in the order in which they were appended, also over openings, and read the same bytes."""
    place, expected = root / "lines", []
    for opening in range(3):
        with RunDir.create(place) if opening == 0 else RunDir.open(place) as run:
            run.put(RESOLVED, "{}")
            for number in range(4 * opening, 4 * opening + 4):
                run.append(JOURNAL, {"generation": number, "é": "x" * number})
                run.append(TIMINGS, {"generation": number}, durable=False)
                expected.append(canonical_json({"generation": number, "é": "x" * number}))
    run = RunDir.open(place, hold=False)
    require(run.journal() == expected, "append: the journal is not the lines in their order")
    timed = run.text(TIMINGS).splitlines()
    require(len(timed) == len(expected), "append: lines that need not be durable are lost though the run ended well")
    require(_raises(lambda: RunDir.create(place)), "create: takes a place that holds a run")


def check_torn(root: Path) -> None:
    """A torn last line is left out, and cut off by who goes on; damage before it is an error."""
    for number, tail in enumerate((b'{"generation":1', b'{"generation":1}', b"\x00\xff\n", b"\n")):
        place = root / "torn" / str(number)
        with RunDir.create(place) as run:
            run.put(RESOLVED, "{}")
            run.append(JOURNAL, {"generation": 0})
        append_raw(place, tail)
        require(len(RunDir.open(place, hold=False).journal()) == 1, f"journal: reads the torn line {tail!r}")
        with RunDir.open(place) as run:
            if len(run.journal(repair=True)) == 1:
                run.append(JOURNAL, {"generation": 1})
        require(len(RunDir.open(place, hold=False).journal()) == 2, f"journal: repair does not take {tail!r} away")
        append_raw(place, b'torn\n{"generation":3}\n')
        damaged = _raises(lambda place=place: RunDir.open(place, hold=False).journal())  # type: ignore[misc]
        require(damaged, "journal: a damaged line in the middle is no error")


def check_one_writer(root: Path) -> None:
    """While one holds a run directory no other can; who reads need not hold it; once let go it is free at once."""
    place = root / "held"
    with RunDir.create(place) as run:
        run.put(RESOLVED, "{}")
        for attempt in (RunDir.open, RunDir.create):
            try:
                attempt(place).release()
            except HeldError as error:
                require(
                    "another process is running this campaign" in str(error), "a second writer is told something else"
                )
            except RunDirError:
                require(attempt is not RunDir.open, "a second writer is refused, and not told that it is held")
            else:
                require(False, "two hold one run directory at a time")
        RunDir.open(place, hold=False).read(RESOLVED)
    RunDir.open(place).release()


def check_racing_writers(root: Path, rounds: int) -> None:
    """Of those who begin a run in one place at once, one does."""
    for number in range(rounds):
        place = root / "race" / str(number)
        held = threading.Barrier(RACERS)

        def begin(who: int, place: Path = place, held: threading.Barrier = held) -> str | None:
            try:
                run = RunDir.create(place)
            except RunDirError:
                held.wait()
                return None
            held.wait()  # nobody lets go before all have tried
            run.release()
            return str(who)

        won = [one for one in _race(begin) if one is not None]
        require(len(won) == 1, f"{len(won)} of {RACERS} who begin at once hold the run directory")


def check_read_meanwhile(root: Path) -> None:
    """Who reads while another writes gets whole files and the first lines, never a part, never less than before."""
    place, versions = root / "meanwhile", ("a" * 200_000, "b" * 100_000)
    faults: list[str] = []
    with RunDir.create(place) as run:
        run.put(RESOLVED, "{}")
        run.put(CHAMPION, versions[0])
        done = threading.Event()

        def read() -> None:
            seen = 0
            while not done.is_set():
                reader = RunDir.open(place, hold=False)
                lines = reader.journal()
                if len(lines) < seen or any(f'"generation":{at}' not in line for at, line in enumerate(lines)):
                    faults.append("journal: who reads meanwhile gets other lines than the first ones")
                seen = len(lines)
                if reader.text(CHAMPION) not in versions:
                    faults.append("put: who reads meanwhile gets a part of a file")

        thread = threading.Thread(target=read)
        thread.start()
        for number in range(LINES):
            run.append(JOURNAL, {"generation": number, "text": "x" * 2000})
            run.put(CHAMPION, versions[number % 2])
        done.set()
        thread.join()
    require(not faults, faults[0] if faults else "")


def check_lost_lease(root: Path) -> None:
    """A writer that another has overtaken writes nothing more: neither once it hears of it, nor before."""
    for number, told in enumerate((True, False)):
        place = root / "lost" / str(number)
        run = RemoteRunDir(Url(*place.parts))
        run._hold()
        run.put(RESOLVED, "{}")
        run.append(JOURNAL, {"generation": 0})
        with _no_waiting():
            other = RunDir.open(place)
        other.append(JOURNAL, {"generation": 1, "by": "other"})
        if told and run._lease is not None:
            run._lease.renew()
            require(_raises(lambda run=run: run.put(CHAMPION, "{}")), "put: by one that lost its lease")  # type: ignore[misc]
        stopped = _raises(lambda run=run: run.append(JOURNAL, {"generation": 1}))  # type: ignore[misc]
        require(stopped, "append: two writers append to one journal")
        run.abandon((RESOLVED,)) if told else None
        run.release()
        require(_raises(lambda place=place: RunDir.open(place)), "release: gives back another's lease")  # type: ignore[misc]
        require(len(other.journal()) == 2, "append: a writer that lost its lease changed the journal")
        other.release()


def check_kills(root: Path, kills: int) -> None:
    """Killed at any write, also while it resumes, a campaign ends with the bytes of one that nobody disturbed."""
    with tempfile.TemporaryDirectory(prefix="evoquant-") as folder:
        expected = _outcome(_whole(Path(folder) / "undisturbed"))
        place = root / "kills" / "undisturbed"
        with killing(at=None, fault="") as writes:
            _whole(place)
        require(_outcome(place) == expected, "a run here ends with other bytes than one in a folder")
    total = next(writes)
    faults = itertools.cycle(FAULTS)
    for number in range(kills):
        at, place = 1 + number * (total - 1) // max(kills - 1, 1), root / "kills" / str(number)
        for kill in (at, 1 + number % 4):  # again while it resumes
            with contextlib.suppress(Killed), killing(kill, next(faults)), _no_waiting():
                _whole(place)
        with _no_waiting():
            _whole(place)
        require(_outcome(place) == expected, f"killed at write {at} of {total}, the resumed run ends with other bytes")


def _whole(place: Path) -> Path:
    """Begin the campaign, or go on with it, and write its results."""
    config = config_from_dict(CAMPAIGN, "conformance")
    text = pretty_json({"hash": config.hash(), "config": config.to_dict()})
    with RunDir.open(place) if RunDir.at(place).has(RESOLVED) else RunDir.create(place) as run:
        run.put(CONFIG, pretty_json(CAMPAIGN))
        run.put(RESOLVED, text)
        run.put(ENVIRONMENT, "{}\n")
        campaign = build_campaign(config, Path(tempfile.gettempdir()))
        try:
            run_loop(campaign, run, _Silent())
        finally:
            campaign.close()
    return place


def _outcome(place: Path) -> dict[str, str]:
    run = RunDir.open(place, hold=False)
    return {JOURNAL: "\n".join(run.journal()), **{name: run.text(name) for name in (CHAMPION, RESOLVED, CONFIG)}}


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """A lease is over at once, as if its time had passed."""
    with mock.patch.object(storage_lease, "EXPIRES_S", -1.0):
        yield


def _race(act: Callable[[int], str | None]) -> list[str | None]:
    """What several threads get that begin together."""
    begin = threading.Barrier(RACERS)

    def go(who: int) -> str | None:
        begin.wait()
        return act(who)

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(go, range(RACERS)))


def _one_winner(objects: Objects, name: str, made: list[str | None], what: str) -> None:
    won = [tag for tag in made if tag is not None]
    require(len(won) == 1, f"{what}: of {RACERS} who write at once {len(won)} are told that they did")
    found = objects.tagged(name)
    require(
        found is not None and found[1] == won[0], f"{what}: what is there is not what the one wrote who was told so"
    )


def _raises(action: Callable[[], object]) -> bool:
    try:
        action()
    except RunDirError:
        return True
    return False
