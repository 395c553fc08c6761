"""Example tasks: small networks on data that ships with a package, trained in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.errors import InputError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evoquant.models.base import MeasuredTask

BLOCK = 512
BATCH = 256


def _digits(seed: int, cache: Path, block: int, batch: int) -> MeasuredTask:
    from evoquant.models.tasks import digits

    return digits.load(seed, cache, block, batch)


TASKS: dict[str, Callable[[int, Path, int, int], MeasuredTask]] = {"digits": _digits}


def load_task(name: str, seed: int, cache: Path, block: int = BLOCK, batch: int = BATCH) -> MeasuredTask:
    """The example task of that name; its network comes from `cache` where it lies there, else it is trained.

    Args:
        name: a key of `TASKS`.
        seed: of splits, initial weights and order of training, 0 ≤ seed < 2^63.
        cache: folder for trained networks.
        block: samples that are measured together, at least 1.
        batch: samples per forward pass, at least 1.

    Raises:
        InputError: no such task, or a size below 1.
        MissingExtraError: a package that the task needs is not installed.
    """
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}.{suggestion(name, TASKS)}")
    for what, value in (("block", block), ("batch", batch)):
        if value < 1:
            raise InputError(f"task {name!r}: {what} is {value}; it is at least 1 sample.")
    return TASKS[name](seed, cache, block, batch)
