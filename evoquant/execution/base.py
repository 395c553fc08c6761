"""Executor: builds state once per worker and maps a function over batches; it knows no genome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A module-level function from a payload to the function that works on batches; called once in each worker.
Factory = Callable[[Any], Callable[[Any], Any]]


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

    name: str
    workers: int

    def start(self, factory: Factory, payload: Any, limit_s: float | None = None) -> None:
        """Build the state in every worker; a second call replaces it. `limit_s` is the wall limit of one batch.

        Raises:
            CampaignError: the factory raised, or no worker can be started.
        """
        ...

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """Results in the order of the batches; one that raises, hangs or dies gives a `Failure`, the others go on.

        Raises:
            CampaignError: `start` was not called.
        """
        ...

    def close(self) -> None:
        """Stop the workers; a second call does nothing."""
        ...


def not_started(name: str) -> str:
    """The message for a map before its start."""
    return f"the {name} executor was not started: call start(factory, payload) before map(batches)."
