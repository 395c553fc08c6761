"""Rows shared out among the cores, for kernels that let other threads run."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def thread_count() -> int:
    """Cores that this process may use, at most OMP_NUM_THREADS: workers beside others set that to 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # OpenMP takes one number for each level
    return min(cores, max(int(limit), 1)) if limit.isdecimal() else cores


def in_threads(call: Callable[[slice], Result], rows: int, *, many: bool, shares: int = 1) -> list[Result]:
    """What `call` gives for each part of the rows: so many shares for each core where there are many, else one for all.

    With several shares a core that others hold up leaves more of them to the rest.
    """
    threads = thread_count() if many else 1
    if threads == 1:
        return [call(slice(0, rows))]
    size = -(-rows // (threads * shares))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, (slice(start, start + size) for start in range(0, rows, size))))
