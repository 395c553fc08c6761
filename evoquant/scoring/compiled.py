"""How the kernels are compiled: numba, with the machine code kept between runs.

Imported only by kernels, which are themselves imported lazily.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
from numba.core import event as events

from evoquant.scoring.compile_time import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

ROOMS = ("genomes", "scoring", "search")  # where kernels are, and the constants and functions that are compiled in


class _Listener(events.Listener):  # type: ignore[misc]
    """Tells the clock when numba compiles."""

    def on_start(self, event: Any) -> None:
        CLOCK.start()

    def on_end(self, event: Any) -> None:
        CLOCK.end()


events.register("numba:compile", _Listener())


@functools.cache
def sources_digest(package: Path = Path(__file__).parents[1]) -> str:
    """sha256 hex of all that kernels may be made of."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (package / room).glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def compiled(function: Callable[..., Any]) -> Any:
    """Machine code of `function`, kept beside the source or in the user's cache folder where there is room.

    Division is that of IEEE 754, and there is no fast-math: every language gives the same bits. Other threads run
    meanwhile, so what a kernel reads must not change under it.
    """
    try:
        kernel = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # nowhere to keep the machine code: a read-only installation and no home
        return numba.njit(nogil=True, error_model="numpy")(function)
    # By itself numba takes kept code for new while the one file with the function is as it was.
    kept = kernel._cache._cache_file
    kept._source_stamp = (kept._source_stamp, sources_digest())
    return kernel


def inlined(function: Callable[..., Any]) -> Any:
    """`function` for use inside other compiled ones: written out there, which spares the innermost loops a call."""
    return numba.njit(inline="always", error_model="numpy")(function)
