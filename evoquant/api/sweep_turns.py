"""A campaign of a sweep, for a while: what a worker does. Started, or gone on with, until it ends or its turn does.

A turn ends after a whole generation, with a checkpoint, exactly as an interruption by the user would end it: so a
campaign can go on in any worker, and its journal is that of the same campaign run alone.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.api.campaigns import begin, resume
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.storage import RESOLVED, RunDir
from evoquant.errors import EvoquantError, HeldError, Interrupted, raised_by
from evoquant.store import sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evoquant.campaign.measurer import Measurer
    from evoquant.campaign.observer import Progress

FINISHED, SUSPENDED, OUT_OF_TIME, FAILED = "finished", "suspended", "out_of_time", "failed"
CATCHING_UP = 9.0
HELD_S = 120.0  # patience with a worker of a sweep that was killed: the operating system may take its time to end it
LOOK_S = 0.2
PROBE = ".shared"


@dataclass(frozen=True)
class Turns:
    """What all turns of a sweep share; sent to every worker once.

    Attributes:
        folder: the sweep's, absolute.
        cache: of measured outcomes and trained networks, absolute; for the machine that the sweep runs from.
        machine: its name. Others keep their outcomes in a folder of their own below `folder`: SQLite's file, and its
            locks, are for the processes of one machine.
        code: `module:attribute` that may run.
        probe: what stands in the folder, so that a worker sees whether it has the same one.
        catching_up: a turn lasts at least so many times what it took to get where the last one ended, so that little
            time goes into that however short turns are.
    """

    folder: str
    cache: str
    machine: str
    code: tuple[str, ...]
    probe: str
    catching_up: float = CATCHING_UP


@dataclass(frozen=True)
class Turn:
    """One campaign for a while.

    Attributes:
        cell: name of its run directory.
        data: the campaign as plain data.
        text: its file.
        seconds: how long; None for as long as it takes.
    """

    cell: str
    data: Mapping[str, Any]
    text: str
    seconds: float | None


@dataclass
class Ended:
    """What came of a turn; plain data, since it comes from another process.

    Attributes:
        cell: as in the turn.
        state: `finished`, `suspended`, `out_of_time` (its own `stop.wall_time_s`) or `failed`.
        message: why it failed.
        generations: journalled so far.
        of: the most that there will be.
        seconds: that the turn took.
        needed: distinct outcomes that the campaign has asked for, in all; 0 on profiles.
        measured: outcomes that this turn measured.
        node: name of the machine.
    """

    cell: str
    state: str
    message: str = ""
    generations: int = 0
    of: int = 0
    seconds: float = 0.0
    needed: int = 0
    measured: int = 0
    node: str = field(default_factory=socket.gethostname)


class _TurnOver(KeyboardInterrupt):
    """Raised behind a generation, where an interrupt of the user could come as well."""


class _Watch:
    """Ends the turn behind a generation; remembers what is told of it."""

    def __init__(self, seconds: float | None, catching_up: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds
        self._catching_up = catching_up
        self._ends: float | None = None
        self.over = False
        self.generations = self.of = 0
        self.measurer: Measurer | None = None

    def generation(self, progress: Progress) -> None:
        """Note where it stands; past the turn's end, interrupt."""
        now = time.monotonic()
        self.generations, self.of = progress.generation + 1, progress.generations
        self.measurer = progress.campaign.measurer
        if self._seconds is None or progress.replayed:
            return
        if self._ends is None:  # the first that is new: what it took to get here is no part of the turn
            there = now - progress.seconds
            self._ends = there + max(self._seconds, self._catching_up * (there - self._began))
        if now >= self._ends and self.generations < self.of:
            self.over = True
            raise _TurnOver

    def message(self, text: str) -> None:
        """Nothing: nobody watches a worker."""


def start_turns(turns: Turns) -> Callable[[Turn], Ended]:
    """The function that a worker works on turns with.

    Raises:
        RuntimeError: the worker does not see the sweep's folder.
    """
    folder = Path(turns.folder)
    try:
        seen = (folder / PROBE).read_text(encoding="ascii")
    except OSError:
        seen = ""
    if seen != turns.probe:
        raise RuntimeError(
            f"{socket.gethostname()} does not see the sweep's folder {turns.folder}: on a cluster of several machines "
            f"--out has to be on a file system that all of them share"
        )
    here = socket.gethostname() == turns.machine
    cache = Path(turns.cache) if here else folder / "cache" / socket.gethostname()

    def take(turn: Turn) -> Ended:
        return _take(turn, folder, cache, turns)

    return take


def _take(turn: Turn, folder: Path, cache: Path, turns: Turns) -> Ended:
    began, watch = time.monotonic(), _Watch(turn.seconds, turns.catching_up)
    message = ""
    try:
        with sharing():
            state = _run(turn, folder / turn.cell, cache, turns.code, watch)
    except Interrupted:
        if not watch.over:
            raise KeyboardInterrupt from None  # by the user: the sweep ends, too
        state = SUSPENDED
    except EvoquantError as error:
        state, message = FAILED, str(error).removeprefix(f"{turn.cell}: ")
    except Exception as error:  # somebody's own part, or a fault of ours: the other campaigns go on
        state, message = FAILED, raised_by(error)
    ended = Ended(turn.cell, state, message, watch.generations, watch.of, round(time.monotonic() - began, 6))
    if watch.measurer is not None:
        ended.needed, ended.measured = len(watch.measurer.needed), watch.measurer.measured
    return ended


def _run(turn: Turn, place: Path, cache: Path, code: tuple[str, ...], watch: _Watch) -> str:
    patience = time.monotonic() + HELD_S
    while True:
        try:
            if RunDir(place).has(RESOLVED):
                run = resume(place, executor="local", allow_code=code, cache=cache, observer=watch)
            else:
                config = config_from_dict(dict(turn.data), turn.cell)
                run = begin(config, turn.text, place, turn.cell, cache=cache, observer=watch)
        except HeldError:
            if time.monotonic() >= patience:
                raise
            time.sleep(LOOK_S)
            continue
        return OUT_OF_TIME if run.champion is None else FINISHED
