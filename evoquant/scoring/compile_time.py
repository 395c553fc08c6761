"""How long this process has compiled kernels, which is no part of what a batch costs, and who is told of it.

Of the standard library alone: numba is imported by kernels only, and tells this clock.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOLD_AFTER_S = 1.0  # of compiling: a shorter pause needs no explanation
TEXT = "compiling kernels for this machine; later runs find them compiled"


class Clock:
    """Seconds of compiling, the outermost of nested ones; numba compiles one at a time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.said: Callable[[str], None] | None = None
        self._depth = 0
        self._began = 0.0

    def start(self) -> None:
        """A function begins to be compiled, perhaps within another."""
        now = time.monotonic()
        if self._depth == 0:
            self._began = now
        spent = self.seconds + now - self._began
        if self.said is not None and spent >= TOLD_AFTER_S:
            said, self.said = self.said, None
            said(TEXT)
        self._depth += 1

    def end(self) -> None:
        """It is compiled."""
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.monotonic() - self._began


CLOCK = Clock()


@contextlib.contextmanager
def telling(said: Callable[[str], None]) -> Iterator[None]:
    """`said` is called within, once, where compiling takes noticeably long."""
    before, CLOCK.said = CLOCK.said, said
    try:
        yield
    finally:
        CLOCK.said = before
