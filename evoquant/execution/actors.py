"""Ray actors with the same state, each with a batch at work and one that waits behind it."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError
from evoquant.execution.base import CAUGHT, Factory, Failure, cannot_start, guarded, raised, timed_out
from evoquant.execution.cluster import Lifelines, cluster_cpus, first_line, grows, nodes, require_room, room
from evoquant.execution.need import Need, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TRIES = 3
DEPTH = 2  # batches that an actor has: without one that waits it would idle for the way to the driver and back
MANY = 16  # from so many on, all that came are fetched with one wait, which costs about 1 us for each actor
PLACE_S = 60.0  # patience with a cluster that has no free CPU for a worker
OWN_PLACE_S = 600.0  # with one of our own: nobody else takes its CPUs, so it is slow
LOOK_S = 1.0  # so often is looked for nodes that have joined, which takes about a millisecond
FAILED_S = 60.0  # and not so soon after a worker could not start on one
WATCH_S = 1.0  # so often is looked whether the cluster is still there, while nothing comes
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

MISSING = re.compile(r"No module named '[\w.]+'")

_log = logging.getLogger(__name__)

# In place of a result: the batch waited behind one that took its worker along, or did not come back with it.
GIVEN_BACK: Any = object()


class Worker:
    """An actor: state built once, then batch after batch.

    Args:
        folders: searched for modules, after all others.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        sys.path.extend(folder for folder in folders if folder not in sys.path)
        # Before anything imports NumPy or PyTorch, which read it while they load: so the factory is sent later.
        os.environ.update(ONE_THREAD)
        self._function: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Come back once the actor has a place on the cluster."""

    def build(self, factory: Factory, payload: Any) -> str | None:
        """Build the state; what the factory raised, or None."""
        try:
            self._function = factory(payload)
        except CAUGHT as error:
            return f"{type(error).__name__}: {error}"
        return None

    def work(self, batch: Any) -> Any | Failure:
        """The result for a batch; an exception becomes a `Failure`."""
        assert self._function is not None
        return guarded(self._function, batch)


@dataclass(eq=False)
class Seat:
    """One worker's place: its actor and what it is waiting for.

    Attributes:
        building: a reference to the build in progress; None once the state is there.
        flight: reference and index of each batch it has, in the order in which they are worked on.
        alone: nothing may wait behind the batch that it has.
        since: when the build was sent, or the first of the batches began.
        placed: a reference that is there once the actor has a place on the cluster.
        deaths: how often in a row it died while building.
        late: whether it was added to others that worked already.
    """

    actor: Any = None
    building: Any = None
    flight: deque[tuple[Any, int]] = field(default_factory=deque)
    alone: bool = False
    since: float = 0.0
    placed: Any = None
    deaths: int = 0
    late: bool = False


class Pool:
    """Who dies or hangs takes no second batch along: a worker has begun only the first that it has."""

    def __init__(
        self, factory: Factory, payload: Any, limit_s: float | None, *, own: bool = False, need: Need | None = None
    ) -> None:
        import ray

        self._need = need or Need()
        self._own = own
        self._folders = [folder for folder in sys.path if folder] if own else []  # of this machine
        self._most: int | None = None
        self._looked = 0.0
        self._limit_s = limit_s
        self._place_s = OWN_PLACE_S if own else PLACE_S
        self._said = False
        self._lifelines = Lifelines()
        self._new: Any = ray.remote(**self._need.options, max_restarts=0)(Worker)
        self._factory = factory
        try:
            self._payload = ray.put(payload)  # shipped once, not once per worker
        except TypeError as error:
            raise CampaignError(cannot_start(f"the payload cannot be sent: {first_line(error)}")) from error
        self.seats: list[Seat] = []

    def fill(self, workers: int | None) -> None:
        """Start actors and wait until their state is built.

        Args:
            workers: at most; None for as many as the nodes can hold, now and later.

        Raises:
            CampaignError: the factory raised, or no actor found a place.
            InputError: no node can hold one.
        """
        require_room(self._need)
        self._most = workers
        self.seats = []
        self._add(self._wanted() - len(self.seats))
        while any(seat.building is not None for seat in self.seats):
            self.finished()

    @property
    def ready(self) -> int:
        """Actors whose state is there."""
        return sum(seat.building is None for seat in self.seats)

    def grow(self) -> bool:
        """Add actors where nodes have joined; whether it was time to look, every `LOOK_S` on a cluster not our own."""
        now = time.monotonic()
        if self._own or now - self._looked < LOOK_S:
            return False
        self._looked = now
        self._add(self._wanted() - len(self.seats))
        return True

    def _wanted(self) -> int:
        """How many actors there should be now; where the cluster starts nodes on demand, as many as were asked for."""
        held = room(self._need)
        if self._most is None:
            return max(1, held)
        return self._most if grows() else min(self._most, max(1, held))

    def _add(self, count: int) -> None:
        late = bool(self.seats)
        for _ in range(count):
            seat = Seat(late=late)
            self.seats.append(seat)
            self._build(seat)

    def room(self) -> Seat | None:
        """The seat with the fewest batches that can take another."""
        best = None
        for seat in self.seats:
            if seat.building is not None or seat.alone or len(seat.flight) >= DEPTH:
                continue
            if not seat.flight:
                return seat
            best = best or seat
        return best

    def working(self) -> bool:
        """Whether a batch is being worked on."""
        return any(seat.flight for seat in self.seats)

    def give(self, seat: Seat, index: int, batch: Any, *, alone: bool = False) -> None:
        """Send a seat with room a batch."""
        if not seat.flight:
            seat.since = time.monotonic()
        seat.alone = alone
        seat.flight.append((seat.actor.work.remote(batch), index))

    def recall(self) -> int | None:
        """The index of a batch that waits behind another, which is taken from its worker; None where none waits."""
        import ray

        for seat in self.seats:
            if len(seat.flight) > 1 and not ray.wait([seat.flight[0][0]], timeout=0)[0]:
                reference, index = seat.flight.pop()
                ray.cancel(reference)
                return index
        return None

    def free_all(self) -> None:
        """Start those again that still work for a map that nobody follows any more."""
        for seat in self.seats:
            if seat.flight:
                self._build(seat)

    def finished(self) -> list[tuple[int, Any | Failure]]:
        """Wait until something happens; the batches that came back, died, ran out of time or are `GIVEN_BACK`."""
        import ray

        pending = {seat.building or seat.flight[0][0]: seat for seat in self.seats if seat.building or seat.flight}
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=min(self._patience(), WATCH_S))
        if ready and len(pending) >= MANY:
            ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        found: list[tuple[int, Any | Failure]] = []
        for reference in ready:
            seat = pending[reference]
            if seat.building is None:
                found += self._came(seat)
            else:
                self._built(seat)
        if not ready:
            self._lifelines.require()
            if not self.working():
                self._drop_unplaced()
        return found + self._overdue()

    def _came(self, seat: Seat) -> list[tuple[int, Any | Failure]]:
        reference, index = seat.flight.popleft()
        outcome, lives = _outcome(reference)
        if not lives:
            return self._lost(seat, index, outcome)
        seat.since, seat.alone = time.monotonic(), False
        return [(index, outcome)]

    def _lost(self, seat: Seat, index: int, outcome: Failure) -> list[tuple[int, Any | Failure]]:
        behind = [(waited, GIVEN_BACK) for _, waited in seat.flight]
        self._build(seat)
        return [(index, outcome), *behind]

    def _patience(self) -> float:
        """Seconds until the next time limit; infinite where there is none."""
        ends = [seat.since + self._limit_s for seat in self.seats if seat.flight and self._limit_s is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else math.inf

    def _overdue(self) -> list[tuple[int, Any | Failure]]:
        import ray

        found: list[tuple[int, Any | Failure]] = []
        for seat in self.seats if self._limit_s is not None else ():
            if seat.flight and self._limit_s is not None and time.monotonic() - seat.since >= self._limit_s:
                if ray.wait([seat.flight[0][0]], timeout=0)[0]:  # it came while the caller took its time
                    continue
                _, index = seat.flight.popleft()
                found += self._lost(seat, index, timed_out(self._limit_s))
        return found

    def _build(self, seat: Seat) -> None:
        """Send a new actor the factory, in place of the seat's old one."""
        import ray

        if seat.actor is not None:
            self._lifelines.require(wait=True)
            ray.kill(seat.actor)
        seat.actor = self._new.remote(self._folders)
        seat.placed = seat.actor.ready.remote()
        seat.building = seat.actor.build.remote(self._factory, self._payload)
        seat.flight.clear()
        seat.alone, seat.since = False, time.monotonic()

    def _built(self, seat: Seat) -> None:
        outcome, lives = _outcome(seat.building)
        seat.deaths = 0 if lives else seat.deaths + 1
        if 0 < seat.deaths < TRIES:
            self._build(seat)
            return
        if not lives and any(other.building is None for other in self.seats):
            _log.warning("A worker died %d times while it was starting; the others go on without it.", TRIES)
            self.seats.remove(seat)
            return
        if isinstance(outcome, Failure):  # it died, or the factory or its payload cannot be unpickled there
            outcome = f"{outcome.reason.removeprefix('raised:')}: {outcome.message}"
        if outcome is not None and seat.late and self.ready:
            _log.warning("A worker on a node that joined cannot start, and the others go on without it: %s", outcome)
            self.seats.remove(seat)
            self._kill(seat)
            self._looked = time.monotonic() + FAILED_S
            return
        if outcome is not None:
            raise CampaignError(cannot_start(outcome))
        seat.building = seat.placed = None
        seat.late = False

    def _drop_unplaced(self) -> None:
        """Go on without the actors that the cluster has had no CPU for, where there are others."""
        import ray

        now = time.monotonic()
        for seat in [seat for seat in self.seats if seat.placed is not None and now - seat.since >= PLACE_S]:
            if ray.wait([seat.placed], timeout=0)[0]:
                seat.placed = None  # it has a place, and its factory takes its time
            elif now - seat.since >= self._place_s:
                ray.kill(seat.actor)
                self.seats.remove(seat)
            elif not self._said:
                _log.warning("This machine is busy, and Ray slow to start its workers: still waiting for them.")
                self._said = True
        if not self.seats:
            cpus, free = (f"{count:g}" for count in cluster_cpus())
            found = (
                f"the Ray cluster has {cpus} CPUs, {free} of them free ({told(nodes())}), a worker takes {self._need}"
            )
            raise CampaignError(
                f"no worker found a place within {self._place_s:g} s: {found}. Wait, or use --executor local."
            )

    def stop(self) -> None:
        """Kill the actors."""
        import ray

        for seat in self.seats:
            if seat.actor is not None:
                ray.kill(seat.actor)
        self.seats = []

    def _kill(self, seat: Seat) -> None:
        import ray

        if seat.actor is not None:
            ray.kill(seat.actor)


def _outcome(reference: Any) -> tuple[Any, bool]:
    """What a call to an actor came to, and whether the actor lives."""
    import ray

    try:
        return ray.get(reference), True
    except ray.exceptions.RayTaskError as error:  # not from the function, which is guarded: what cannot be (un)pickled
        missing = MISSING.search(str(error.cause))
        if missing is not None:  # in the middle of a traceback of Ray's
            remedy = "a worker imports what it is sent: install it there, or put it on PYTHONPATH before Ray starts"
            return Failure("raised:ModuleNotFoundError", f"{missing[0]}; {remedy}."), True
        return raised(error.cause), True
    except ray.exceptions.RayError as error:
        return Failure("worker_lost", first_line(error)), False
