"""Turns of a sweep's campaigns handed out to workers, for whoever has waited longest, and what came of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from evoquant.api import sweep_turns
from evoquant.api.sweep_turns import FAILED, FINISHED, OUT_OF_TIME, PROBE, SUSPENDED, Ended, Turn, Turns, start_turns
from evoquant.campaign.build import make_executor
from evoquant.campaign.storage import RunDir
from evoquant.errors import Interrupted, quoted
from evoquant.execution.base import NOT_YET, Failure
from evoquant.files import is_file, write_atomic
from evoquant.report.sweep import is_finished, sweep_data
from evoquant.report.sweep_progress import SweepProgress
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evoquant.campaign.config_sweep import Cell, Sweep, SweepExecutorConfig
    from evoquant.execution.protocol import Executor
    from evoquant.report.sweep_progress import SweepObserver

TURNS = "turns.jsonl"


@dataclass
class Driver:
    """Hands out turns, and notes what came of them.

    Attributes:
        sweep, folder, observer: as of `evoquant.api.sweeps.sweep`.
        waiting: for a turn, the next one first.
        given: the campaign of each turn, by its number.
        done, failed, paused: campaigns that are over; the last for their own wall time is.
        stands: campaign → generations, of how many at most.
        workers: that there are.
        seconds: of workers, in turns that have ended.
    """

    sweep: Sweep
    folder: Path
    observer: SweepObserver
    waiting: deque[Cell] = field(default_factory=deque)
    given: list[Cell] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    stands: dict[str, tuple[int, int]] = field(default_factory=dict)
    workers: int = 1
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Campaigns that have something to do."""
        return len(self.sweep.cells) - len(self.done) - len(self.failed) - len(self.paused)

    def run(self, where: SweepExecutorConfig) -> dict[str, Any]:
        """Run what is left; the sweep's data.

        Raises:
            Interrupted: by the user.
            CampaignError: no worker can be started, or the cluster is lost.
        """
        self.done = {cell.name for cell in self.sweep.cells if is_finished(self.folder / cell.name)}
        self.waiting.extend(cell for cell in self.sweep.cells if cell.name not in self.done)
        ready, count = len(self.done), len(self.sweep.cells)
        self.observer.message(
            f"{count} campaigns in {self.folder}; {ready} are finished already" + "; nothing is left" * (ready == count)
        )
        try:
            if self.waiting:
                self._work(where)
            return sweep_data(self.folder, self.sweep, self.failed)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"interrupted: {len(self.done)} of {count} campaigns are finished; continue with: evoquant resume "
                f"{self.folder}"
            ) from None

    def _work(self, where: SweepExecutorConfig) -> None:
        address = where.address or os.environ.get("RAY_ADDRESS")
        workers = where.workers or (None if address else os.cpu_count() or 1)
        if workers is not None:
            workers = min(workers, len(self.waiting))
        executor = make_executor(where.kind, workers, address, where.options, where.need, where.runtime_env)
        probe = secrets.token_hex(16)
        write_atomic(self.folder / PROBE, probe)
        _mend(self.folder / TURNS)
        cache = cache_folder(self.sweep.config.cache, self.folder)
        place = (str(self.folder.resolve()), str(cache.resolve()), socket.gethostname())
        try:
            executor.start(start_turns, Turns(*place, tuple(self.sweep.code()), probe, sweep_turns.CATCHING_UP))
            self.workers = executor.workers
            self._tell()
            self._turns(executor)
        finally:
            executor.close()
            with contextlib.suppress(OSError):
                (self.folder / PROBE).unlink()

    def _turns(self, executor: Executor) -> None:
        for number, result in executor.stream(self._next()):
            self.workers = executor.workers  # nodes come and go
            cell = self.given[number]
            if isinstance(result, Failure):  # the worker died with it, again and again
                ended = Ended(cell.name, FAILED, f"{result.reason}: {result.message}")
            else:
                ended = result
            RunDir(self.folder).append(TURNS, asdict(ended), durable=False)
            self._settle(cell, ended)
            self._tell()

    def _next(self) -> Iterator[Any]:
        """The next turn, for whoever has waited longest."""
        while self.left:
            if not self.waiting:
                yield NOT_YET
                continue
            cell = self.waiting.popleft()
            self.given.append(cell)
            alone = self.left <= self.workers or cell.config.stop.wall_time_s is not None
            yield Turn(cell.name, cell.data, cell.text, None if alone else self.sweep.config.turn_s)

    def _settle(self, cell: Cell, ended: Ended) -> None:
        self.seconds += ended.seconds
        if ended.of:
            self.stands[cell.name] = (ended.generations, ended.of)
        if ended.state == SUSPENDED:
            self.waiting.append(cell)
        elif ended.state == FINISHED:
            self.done.add(cell.name)
        elif ended.state == OUT_OF_TIME:
            self.paused.add(cell.name)
            self.observer.message(f"{cell.name}: its wall time is over; the same command goes on with it")
        else:
            self.failed[cell.name] = ended.message
            self.observer.message(f"{cell.name} failed: {quoted(ended.message, 400)[1:-1]}")

    def _tell(self) -> None:
        self.observer.turn(
            SweepProgress(
                campaigns=len(self.sweep.cells),
                finished=len(self.done),
                failed=len(self.failed),
                running=min(self.workers, self.left),
                waiting=max(0, self.left - self.workers),
                generations=sum(stands for stands, _ in self.stands.values()),
                eta_s=self._eta_s(),
            )
        )

    def _eta_s(self) -> float | None:
        """From the mean time of the campaigns of this session, those under way counted by their generations."""
        over = self.done | self.failed.keys()
        part = [done / most for name, (done, most) in self.stands.items() if name not in over]
        worked = sum(part) + sum(name in over for name in self.stands)
        if not worked:
            return None
        left = max(0.0, self.left - sum(part))
        return left * self.seconds / worked / max(1, min(self.workers, self.left))


def _mend(path: Path) -> None:
    """Cut off the line that a killed process left torn."""
    if is_file(path):
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
