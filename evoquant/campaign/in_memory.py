"""Networks and parts that a Python program holds: a campaign finds them here while the program lends them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from evoquant.campaign.config_measured import MemoryTaskConfig
    from evoquant.campaign.config_own import HeldConfig
    from evoquant.execution.protocol import Executor
    from evoquant.models.base import MeasuredTask

_LENT: dict[tuple[str, str], MeasuredTask] = {}
_PARTS: dict[tuple[str, str], Any] = {}
_EXECUTORS: list[Executor | Callable[..., Executor]] = []


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


@contextlib.contextmanager
def lent_parts(parts: Mapping[str, tuple[HeldConfig, Any]]) -> Iterator[None]:
    """Within, campaigns whose config names these parts find the objects: key → its value in the config, object."""
    before = dict(_PARTS)
    _PARTS.update({(key, config.code): thing for key, (config, thing) in parts.items()})
    try:
        yield
    finally:
        _PARTS.clear()
        _PARTS.update(before)


def missing_parts(parts: Mapping[str, Any], *unneeded: str) -> list[str]:
    """What of these was in the memory of a program, and is lent by none: `cost (mine.Latency)`.

    Args:
        parts: key of a config → its value there.
        unneeded: keys that are not looked at.
    """
    held = {
        key: part.what for key, part in parts.items() if key not in unneeded and getattr(part, "kind", None) == "memory"
    }
    return [f"{key} ({what})" for key, what in held.items() if (key, parts[key].code) not in _PARTS]


def borrowed_part(config: HeldConfig, key: str) -> Any:
    """The object that a part of a config stands for.

    Raises:
        InputError: no program lends it here.
    """
    if (key, config.code) not in _PARTS:
        raise InputError(
            f"{key}.kind: memory: {quoted(config.what)} was in the memory of a Python program, and no file holds it; "
            f"make the same call there again: it goes on, and its result exports."
        )
    return _PARTS[key, config.code]


@contextlib.contextmanager
def lent_executor(executor: Executor | Callable[..., Executor] | str | None) -> Iterator[None]:
    """Within, campaigns evaluate on this executor; on the config's where it is only a name, or None."""
    if executor is None or isinstance(executor, str):
        yield
        return
    _EXECUTORS.append(executor)
    try:
        yield
    finally:
        _EXECUTORS.pop()


def borrowed_executor() -> Executor | Callable[..., Executor] | None:
    """The executor that a program lends, or its class; None where the config's is meant."""
    return _EXECUTORS[-1] if _EXECUTORS else None
