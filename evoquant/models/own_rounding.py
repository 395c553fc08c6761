"""Rounding methods by the name of their function, in the driver and in workers; tasks that are rounded by one."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evoquant.errors import InputError
from evoquant.models.code import code_digest, imported
from evoquant.quantization.numerics import QUANTIZER_VERSION
from evoquant.quantization.rounding import Rounder

if TYPE_CHECKING:
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile

Task = TypeVar("Task")


def quantizer_of(task: MeasuredTask) -> str:
    """The quantizer's version for a task: evoquant's, and with it the rounding method that is somebody's own."""
    rounder = getattr(task, "rounder", None)
    return QUANTIZER_VERSION if rounder is None else f"{QUANTIZER_VERSION}{rounder.suffix}"


def require_same_rounding(rounder: Rounder | None, profile: ModelProfile, source: str) -> None:
    """Whether codes come out as they did when a network was profiled and measured.

    Raises:
        InputError: the rounding method is another, or its code was edited since; the message begins with `source`.
    """
    then = str(profile.provenance.get("quantizer", QUANTIZER_VERSION)).partition("+")[2]
    now = "" if rounder is None else rounder.suffix.removeprefix("+")
    if then != now:
        raise InputError(
            f"{source}: was measured with the rounding {then or 'of evoquant'}, now it is {now or 'that of evoquant'}: "
            f"restore its code, or start a new run."
        )


def rounder_named(name: str) -> Rounder:
    """The rounding method `module:function`.

    Raises:
        InputError: it cannot be imported, or is nothing that can be called.
    """
    found: Any = imported(name, "rounding: ")
    if not callable(found) or isinstance(found, type):
        raise InputError(f"rounding: {name}: is no function; name one of evoquant.quantization.protocol.Rounding.")
    return Rounder(found, name, _digest(found, name))


def _digest(function: Any, name: str) -> str:
    """sha256 over the file that defines it and the one that it is named in: what it calls may stand in either."""
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    named = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return hashlib.sha256(f"{code_digest([function])} {named}".encode()).hexdigest()


def require_same_code(rounder: Rounder | None) -> None:
    """In a worker: whether the rounding method is the one that it was where the campaign was started.

    Raises:
        InputError: it is not, or cannot be imported here.
    """
    if rounder is not None and rounder.imported and rounder_named(rounder.name).digest != rounder.digest:
        raise InputError(
            f"rounding: {rounder.name}: its code in a worker is other code than here; give all machines the same files."
        )


def rounded_by(task: Task, rounder: Rounder | None) -> Task:
    """The task with its weights rounded by somebody's own method.

    Raises:
        InputError: a task of anyone's own kind.
    """
    if rounder is None:
        return task
    if not dataclasses.is_dataclass(task) or not hasattr(task, "rounder"):
        raise InputError("rounding: networks of this task's kind have none of their own; those of torch and onnx can.")
    made: Any = dataclasses.replace(task, rounder=rounder)  # type: ignore[type-var]
    return made  # type: ignore[no-any-return]
