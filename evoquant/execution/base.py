"""What executors share: guarding a batch, the words of their messages; the protocol under one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError
from evoquant.execution.protocol import NOT_YET, Executor, Factory, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CAUGHT",
    "NOT_YET",
    "Executor",
    "Factory",
    "Failure",
    "cannot_start",
    "guarded",
    "not_started",
    "raised",
    "stuck",
    "timed_out",
]

# A `sys.exit` in somebody's model must not end the campaign; KeyboardInterrupt and GeneratorExit must get through.
CAUGHT = (Exception, SystemExit)


def guarded(function: Callable[[Any], Any], batch: Any) -> Any | Failure:
    """The function's result for a batch, or the `Failure` that tells what it raised."""
    try:
        return function(batch)
    except CAUGHT as error:
        return raised(error)


def raised(error: BaseException) -> Failure:
    """The `Failure` for an exception."""
    return Failure(f"raised:{type(error).__name__}", str(error))


def cannot_start(fault: str) -> str:
    """The message for a worker whose state cannot be built."""
    return f"a worker cannot start: {fault}"


def not_started(name: str) -> str:
    """The message for a map before its start."""
    return f"the {name} executor was not started: call start(factory, payload) before map(batches)."


def stuck() -> CampaignError:
    """The error for batches that wait for a result while none is on its way."""
    return CampaignError("the batches wait for another result (NOT_YET), but no batch is being worked on.")


def timed_out(limit_s: float) -> Failure:
    """The `Failure` of a batch past its limit."""
    return Failure("time_limit", f"stopped after {limit_s:g} s")
