"""What an executor promises: build state once per worker, map a function over batches; it knows no genome.

A campaign names one as `executor: {kind: module:Class, options: {...}}`, the command line as `--executor
module:Class`, and makes it, on the driver, as `Class(**options)`, with `workers=` where the config says how many. In
Python a class, a function or an instance does as well. The campaign calls

    start → map or stream, any number of times → close          and perhaps start again with another state

`evoquant.testing.check_executor` holds one to this. The config's hash leaves the executor out: a campaign may be
resumed on another, and its journal is the same to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# A module-level function from a payload to the function that works on batches; called once in each worker.
Factory = Callable[[Any], Callable[[Any], Any]]

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


@runtime_checkable
class Executor(Protocol):
    """Where batches are worked on: a function, made once per worker, is mapped over them.

    It knows no genome and no network: `local` is this process, `ray` a cluster, and one of one's own may be threads,
    MPI, a batch system. What it may change is the time that a campaign takes, never a result: batches and results are
    opaque, and go to and fro as they are.
    """

    @property
    def name(self) -> str:
        """What timings and reports call it: `local`, `ray`, or a word of its own."""
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
