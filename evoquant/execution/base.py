"""Executor: builds state once per worker and maps a function over batches; it knows no genome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from evoquant.errors import CampaignError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# A module-level function from a payload to the function that works on batches; called once in each worker.
Factory = Callable[[Any], Callable[[Any], Any]]

# A `sys.exit` in somebody's model must not end the campaign; KeyboardInterrupt and GeneratorExit must get through.
CAUGHT = (Exception, SystemExit)

# What an iterable of batches yields where its next batch depends on results that have not come yet.
NOT_YET: Any = object()


@dataclass(frozen=True)
class Failure:
    """What stands in the place of a batch's result that did not come.

    Attributes:
        reason: from a closed list: `raised:<exception class>`, `time_limit`, `worker_lost`.
        message: for people; never part of a result.
    """

    reason: str
    message: str


class Executor(Protocol):
    """Where batches are worked on."""

    @property
    def name(self) -> str:
        """`local` or `ray`."""
        ...

    @property
    def workers(self) -> int:
        """How many batches are worked on at once; known for certain after `start`."""
        ...

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state in every worker; a second call replaces it.

        Args:
            factory: a module-level function, which other processes can import.
            payload: what the factory gets; to be read only, since workers may share its arrays.
            limit_s: wall limit of one batch in seconds; building the state does not count.

        Raises:
            CampaignError: the factory raised, or no worker can be started.
            InputError: the machines that were asked for cannot be reached.
        """
        ...

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; one that raises, hangs or dies gives a `Failure`, the others go on.

        One map at a time: `start`, `close` or another `map` ends the one before.

        Raises:
            CampaignError: `start` was not called, or a worker that was lost cannot be started again.
        """
        ...

    def stream(self, batches: Iterable[Any]) -> Iterator[tuple[int, Any | Failure]]:
        """Results in the order in which they come, each with the number of its batch from 0; failures as in `map`.

        A batch is taken from the iterable only when a worker has room for it, so that a generator may make it from
        the results that were yielded until then. Where it cannot yet, it yields `NOT_YET`, which counts as no batch:
        it is asked again, at the latest after the next result. With one worker the order is that of the batches. One
        stream or map at a time.

        Raises:
            CampaignError: as for `map`; or a `NOT_YET` with no batch at work, whose result could be waited for.
        """
        ...

    def close(self) -> None:
        """Stop the workers; a second call does nothing."""
        ...


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
