"""Networks that a Python program holds: a campaign on one finds it here while the program lends it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from evoquant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evoquant.campaign.config_measured import MemoryTaskConfig
    from evoquant.models.base import MeasuredTask

_LENT: dict[tuple[str, str], MeasuredTask] = {}


@contextlib.contextmanager
def lent(config: MemoryTaskConfig, task: MeasuredTask) -> Iterator[None]:
    """Within, campaigns and exports that name this model and data find the task."""
    key = (config.model, config.data)
    before = _LENT.get(key)
    _LENT[key] = task
    try:
        yield
    finally:
        if before is None:
            del _LENT[key]
        else:
            _LENT[key] = before


def borrowed(config: MemoryTaskConfig) -> MeasuredTask:
    """The task of that model and data.

    Raises:
        InputError: no program lends it here.
    """
    task = _LENT.get((config.model, config.data))
    if task is None:
        raise InputError(
            "task.kind: memory: the network was in the memory of a Python program, and no file holds it; call "
            "evoquant.optimize there again, with the same arguments and run_dir=: it goes on, and its result exports "
            "and verifies."
        )
    return task
