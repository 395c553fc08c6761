"""How long calls take, side by side: warm-up, rounds in which each has its turn, medians with their spread."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WARM_UP = 2  # calls
LEAST_S = 0.002  # of one timing: short calls are repeated within it
MOST_CALLS = 200
LEAST_EVICTED, MOST_EVICTED = 2**20, 2**27  # bytes


@dataclass(frozen=True)
class Timing:
    """A call's time.

    Attributes:
        value: in nanoseconds: the median over rounds, or a lower quantile where that was asked for.
        spread: interquartile range over rounds, in nanoseconds.
    """

    value: float
    spread: float


CLOCKS: dict[str, Callable[[], int]] = {"cpu": time.process_time_ns, "wall": time.perf_counter_ns}
"""`cpu` is what the process's threads have computed: with one thread the time of an otherwise idle machine."""


def evicting(size: int) -> Callable[[], object] | None:
    """What moves so many bytes through the caches, as the rest of a network does between two calls of one layer.

    None for few enough that they leave caches as they are.
    """
    if size < LEAST_EVICTED:
        return None
    numbers = np.zeros(min(size, MOST_EVICTED) // 8)
    return lambda: np.add(numbers, 1.0, out=numbers)


def interleaved(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    between: Callable[[], object] | None = None,
) -> NDArray[np.float64]:
    """`(calls, rounds)` nanoseconds of one call each.

    In each round every call has its turn, and each round begins with another one, so that what else the machine does
    meets all alike. A call that takes less than 2 ms is repeated within its turn, but where something is done between.

    Args:
        calls: what is timed.
        rounds: at least 1.
        clock: nanoseconds that have gone by; see `CLOCKS`.
        between: done before each timed call, not timed.
    """
    repeats = []
    for call in calls:
        for _ in range(WARM_UP):
            call()
        start = clock()
        call()
        if between is not None:
            repeats.append(1)
            continue
        repeats.append(int(np.clip(np.ceil(LEAST_S * 1e9 / max(clock() - start, 1)), 1, MOST_CALLS)))
    times = np.empty((len(calls), rounds))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            for place in range(len(calls)):
                index = (place + number) % len(calls)
                call, count = calls[index], repeats[index]
                if between is not None:
                    between()
                start = clock()
                for _ in range(count):
                    call()
                times[index, number] = (clock() - start) / count
    finally:
        if collecting:
            gc.enable()
    return times


def timing_of(times: NDArray[np.float64], quantile: float = 0.5) -> Timing:
    """What `(rounds,)` times come to."""
    low, value, high = np.quantile(times, (0.25, quantile, 0.75))
    return Timing(float(value), float(high - low))
