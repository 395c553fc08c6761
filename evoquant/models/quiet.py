"""Libraries that log what nothing follows from, kept from saying it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def silenced(*names: str, below: int = logging.CRITICAL) -> Iterator[None]:
    """Without what these loggers say below a level; theirs are as before afterwards.

    Args:
        names: of loggers.
        below: the least that they may still say.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(below)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
