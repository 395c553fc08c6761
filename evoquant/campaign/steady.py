"""Campaigns without generations: candidates are journalled in the order of arrival, so many to a line.

A line's `asked` says in which order its candidates had been asked; with the lines before it, it says which were in
flight at any time, and so what the search knew when it asked each. Replay asks again and takes the arrivals in that
order. Those that were in flight when a run was interrupted are in flight again when it goes on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from evoquant.campaign.journal import failures_of
from evoquant.errors import RunDirError
from evoquant.search.steady import SteadySearch, in_order_of_arrival

if TYPE_CHECKING:
    from evoquant.campaign.build import Campaign
    from evoquant.campaign.config import StopConfig
    from evoquant.campaign.steady_measured import Flight, SteadyEstimator
    from evoquant.search.base import CandidateBatch, EvaluationBatch


class SteadyState:
    """Keeps candidates in flight, a new one for each that arrives."""

    def __init__(self, search: SteadySearch, estimator: SteadyEstimator, stop: StopConfig) -> None:
        self._search = search
        self._estimator = estimator
        # What the last line will not hold is not asked.
        self._most = stop.generations * search.size
        if stop.evaluations is not None:
            self._most = min(self._most, -(-stop.evaluations // search.size) * search.size)
        self._flights: dict[int, Flight] = {}

    @property
    def in_flight(self) -> int:
        """How many were asked and have not arrived."""
        return len(self._flights)

    def line(self, journalled: str | None, *, closing: bool) -> tuple[CandidateBatch, EvaluationBatch]:
        """The next arrivals, as many as a line holds, told to the search.

        Args:
            journalled: the line in which they are recorded, where they are.
            closing: take all that are in flight, and ask no more.

        Raises:
            RunDirError: the journal has candidates arrive that were not in flight.
        """
        first_id = self._search.told
        record = None if journalled is None else json.loads(journalled)
        known = {} if record is None else failures_of(record, first_id)
        arrived: list[Flight] = []
        if not closing:
            self._ask()
        while self._flights and (closing or len(arrived) < self._search.size):
            if record is None:
                flight = self._estimator.next_arrival(self._flights)
            else:
                flight = self._recorded(record, len(arrived))
                self._estimator.replay(flight, known.get(len(arrived)))
            del self._flights[flight.number]
            self._search.tell(self._estimator.arrive(flight), flight.number)
            arrived.append(flight)
            for waiting in self._flights.values():
                if not waiting.begun:
                    self._estimator.admit(waiting, self._flights)
            if not closing:
                self._ask()
        batch = in_order_of_arrival([flight.candidate for flight in arrived], first_id)
        return batch, self._estimator.line(batch, arrived)

    def _ask(self) -> None:
        """Fill up; nobody is asked while one waits for the budget."""
        while (
            len(self._flights) < self._search.in_flight
            and self._search.asked < self._most
            and all(flight.begun for flight in self._flights.values())
            and not self._estimator.spent
            and not self._search.done()
        ):
            flight = self._estimator.begin(self._search.ask(), self._flights)
            self._flights[flight.number] = flight

    def _recorded(self, record: dict[str, object], row: int) -> Flight:
        population = record.get("population")
        asked = population.get("asked") if isinstance(population, dict) else None
        number = asked[row] if isinstance(asked, list) and row < len(asked) else None
        if not isinstance(number, int) or number not in self._flights:
            flying = ", ".join(map(str, self._flights))
            raise RunDirError(
                f"journal.jsonl: in generation {record.get('generation')} arrival {row} is of candidate {number}, and "
                f"in flight are {flying}: the journal was changed, or is another config's. Start a new run."
            )
        return self._flights[number]


def steady_of(campaign: Campaign) -> SteadyState:
    """What a campaign with `search.in_flight` goes by."""
    from evoquant.campaign.steady_measured import SteadyEstimator

    search, estimator = campaign.search, campaign.estimator
    assert isinstance(search, SteadySearch)
    assert isinstance(estimator, SteadyEstimator)
    return SteadyState(search, estimator, campaign.config.stop)
