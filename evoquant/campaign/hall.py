"""The hall of fame: the best distinct genomes of the whole run, from which the champion is chosen."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.files import canonical_json

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


class Hall:
    """At most `size` records with distinct genomes, best first; with `by_form` no two differ in numbers alone.

    Each generation enters its `size` best candidates: where many of these are of one form, others beyond them are not
    looked at.
    DEAP's hall of fame never replaces an entry by a better one that counts as similar, which `by_form` needs.
    """

    def __init__(self, size: int, *, earlier_wins: bool = False, by_form: bool = False) -> None:
        self.size = size
        self._earlier_wins = earlier_wins
        self._by_form = by_form
        self._entries: dict[str, tuple[Rank, dict[str, Any]]] = {}  # best first

    def update(self, records: Sequence[dict[str, Any]]) -> None:
        """Enter a generation's best records."""
        found = dict(self._entries)
        for record in records:
            key = form_of(record["genome"]) if self._by_form else str(record["digest"])
            rank = self._rank(record)
            known = found.get(key)
            if known is None or known[0] < rank or (known[0] == rank and known[1]["id"] > record["id"]):
                found[key] = (rank, record)
        best = sorted(found.items(), key=lambda item: item[1][0], reverse=True)
        self._entries = dict(best[: self.size])

    def wants(self, fitness: float, parts: int, cost: int, digest: str, number: int) -> bool:
        """Whether a record of such a candidate, whose id is `number`, could change anything."""
        if self._by_form:
            return True  # the form is not known before the genome is decoded
        rank = Rank(fitness, parts, cost, digest, number, self._earlier_wins)
        known = self._entries.get(digest)
        if known is not None:
            return known[0] < rank or (known[0] == rank and known[1]["id"] > number)
        return len(self._entries) < self.size or next(reversed(self._entries.values()))[0] < rank

    def _rank(self, record: dict[str, Any]) -> Rank:
        return Rank(
            record["fitness"], record["parts"], record["cost"], record["digest"], record["id"], self._earlier_wins
        )

    @property
    def records(self) -> list[dict[str, Any]]:
        """Journal records, best first."""
        return [record for _, record in self._entries.values()]

    def restore(self, records: Sequence[dict[str, Any]]) -> None:
        """Start again from saved records."""
        self._entries = {}
        self.update(records)


def form_of(genome: Any) -> str:
    """A genome's plain data with its numbers left out."""

    def without(value: Any) -> Any:
        if isinstance(value, float):
            return 0
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items()}
        return [without(item) for item in value] if isinstance(value, (list, tuple)) else value

    return canonical_json(without(genome))
