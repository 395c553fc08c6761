"""The best distinct genomes of the whole run, on DEAP's hall of fame."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deap import tools

if TYPE_CHECKING:
    from collections.abc import Sequence


@functools.total_ordering
@dataclass(frozen=True, eq=False)
class Rank:
    """The order of genomes, greater is better: more fitness, fewer parts, less cost, smaller digest.

    With `earlier_wins` (a replay) equal fitness goes to the earlier candidate, as the published tables do.
    """

    fitness: float
    parts: int
    cost: int
    digest: str
    id: int
    earlier_wins: bool = False

    @property
    def _key(self) -> tuple[Any, ...]:
        tie = (self.id,) if self.earlier_wins else (self.parts, self.cost, self.digest)
        return (-self.fitness, *tie)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rank) and self._key == other._key

    def __lt__(self, other: Rank) -> bool:
        return bool(self._key > other._key)

    def __hash__(self) -> int:
        return hash(self._key)


@dataclass(frozen=True)
class Entry:
    """A candidate worth keeping: its rank, under the name that DEAP reads, and its journal record."""

    fitness: Rank
    record: dict[str, Any]


class Hall:
    """At most `size` entries with distinct genomes, best first."""

    def __init__(self, size: int, *, earlier_wins: bool = False) -> None:
        self.size = size
        self.earlier_wins = earlier_wins
        self._hall = tools.HallOfFame(size, similar=lambda a, b: a.fitness.digest == b.fitness.digest)

    def update(self, records: Sequence[dict[str, Any]]) -> None:
        """Enter a generation's best records."""
        self._hall.update([self._entry(record) for record in records])

    def _entry(self, record: dict[str, Any]) -> Entry:
        rank = Rank(
            record["fitness"], record["parts"], record["cost"], record["digest"], record["id"], self.earlier_wins
        )
        return Entry(rank, record)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Journal records, best first."""
        return [entry.record for entry in self._hall]

    def restore(self, records: Sequence[dict[str, Any]]) -> None:
        """Start again from saved records."""
        self._hall.clear()
        self.update(records)
