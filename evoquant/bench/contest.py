"""Side by side: ways to do the same work, timed by turns in one run, as ratios with their spread.

A machine slows down and speeds up while it is measured; ways that take turns see the same of it, so a round gives one
ratio, and several rounds its spread.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROUNDS = 5
LEAST_S = 0.02  # a shorter call is repeated until so much has passed, or the clock would be what is measured

Unit = Literal["x", "%", "s", "1/s"]


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    Attributes:
        call: does it once; what comes back is ignored.
        items: how much of the work one call does, so that a slow way may do a part of it.
    """

    call: Callable[[], Any]
    items: float = 1.0


@dataclass(frozen=True)
class Measure:
    """One figure with its spread, and what was wanted of it.

    Attributes:
        topic: `rules`, `trees`, `engine`, `networks`, `cluster` or `start`.
        what: what was measured, in words.
        values: one for each round.
        unit: `x` a ratio, `%` a share in percent, `s` seconds, `1/s` a rate.
        goal: at least (`x`, `1/s`) or at most (`%`, `s`); None where nothing was wanted.
        rates: way → median items per second, where that says something.
        remark: how it was measured, or what bounds it.
    """

    topic: str
    what: str
    values: tuple[float, ...]
    unit: Unit
    goal: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.unit in ("x", "1/s") else self.median <= self.goal

    def to_row(self) -> dict[str, Any]:
        """Plain data, with the median."""
        return asdict(self) | {"values": list(self.values), "median": self.median, "met": self.met}


def interleaved(ways: Mapping[str, Way], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Items per second of each way in each round.

    Every way is called once beforehand, so that compilers and caches have started. In every other round the order is
    turned round; the garbage collector waits.
    """
    for way in ways.values():
        way.call()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        order = list(ways.items())
        for name, way in order if turn % 2 == 0 else reversed(order):
            rates[name].append(way.items / seconds_of(way.call))
    return rates


def seconds_of(call: Callable[[], Any], least_s: float = LEAST_S) -> float:
    """Seconds that one call takes: the mean of as many as fill `least_s`."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        calls, start = 0, time.perf_counter()
        while True:
            call()
            calls += 1
            spent = time.perf_counter() - start
            if spent >= least_s:
                return spent / calls
    finally:
        if enabled:
            gc.enable()


def ratios(
    topic: str,
    rates: Mapping[str, Sequence[float]],
    ours: str,
    goals: Mapping[str, float | None],
    *,
    what: str = "",
    remark: str = "",
) -> list[Measure]:
    """How many times faster `ours` is than each way that `goals` names, round by round.

    Args:
        topic, remark: as `Measure` has them.
        rates: of `interleaved`.
        ours: the way that is compared with the others.
        goals: rival → the ratio that is wanted, or None.
        what: the work, in words.
    """
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return [
        Measure(
            topic,
            f"{what + ': ' if what else ''}{ours} against {rival}",
            tuple(a / b for a, b in zip(rates[ours], rates[rival], strict=True)),
            "x",
            goal,
            {ours: medians[ours], rival: medians[rival]},
            remark,
        )
        for rival, goal in goals.items()
    ]


@contextmanager
def at_most_threads(count: int | None) -> Iterator[None]:
    """So many threads of ours meanwhile; None for one on each core."""
    before = os.environ.pop("OMP_NUM_THREADS", None)
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
