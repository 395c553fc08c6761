"""Steady-state searches: candidates are asked one at a time and told in the order in which they arrive.

Up to `in_flight` candidates are asked and not yet told, so that no worker waits for the slowest of a generation. What
a search asks next depends on the order of arrival alone: with the same order it asks the same.

A candidate has a number, in the order of asking, to which its randomness is keyed, and an id, in the order of arrival,
by which its children name it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import SearchError
from evoquant.rng import generator_for
from evoquant.search.base import FAILED, NO_PARENT, OK, CandidateBatch, EvaluationBatch
from evoquant.search.genetic import GeneticSettings
from evoquant.search.variation import children, newcomers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space


def in_order_of_arrival(candidates: Sequence[CandidateBatch], first_id: int) -> CandidateBatch:
    """Candidates asked one by one as one batch, the first of which has `first_id`.

    Args:
        candidates: at least one, each as `ask` gave it, in the order of arrival.
        first_id: how many arrived before.
    """
    return CandidateBatch(
        first_id,
        np.concatenate([one.parents for one in candidates]),
        tuple(operator for one in candidates for operator in one.operators),
        genes=np.concatenate([one.genes for one in candidates if one.genes is not None]),
        asked=tuple(one.first_id for one in candidates),
    )


class SteadySearch:
    """A search is its `_propose` and its `_learn`; this keeps who is in flight, and counts.

    Args:
        space: of the genomes.
        seed: the campaign's.
        start: genomes to begin with.
        in_flight: how many may be asked and not yet told.
        size: how many arrivals count as a generation.
    """

    def __init__(self, space: Space, seed: int, start: Sequence[Genome], in_flight: int, size: int) -> None:
        self.space = space
        self.in_flight = in_flight
        self.size = size
        self._seed = seed
        self._start = tuple(start)
        self._asked = 0
        self._told = 0
        self._open: dict[int, CandidateBatch] = {}

    @property
    def asked(self) -> int:
        """How many candidates have been asked for so far."""
        return self._asked

    @property
    def told(self) -> int:
        """How many have arrived: the id of the next that does."""
        return self._told

    @property
    def flying(self) -> dict[int, CandidateBatch]:
        """Number → candidate of those asked and not yet told, in the order of asking."""
        return dict(self._open)

    def ask(self) -> CandidateBatch:
        """The next candidate, alone in its batch; `first_id` is its number.

        Raises:
            SearchError: so many are in flight as may be.
        """
        if len(self._open) >= self.in_flight:
            raise SearchError(f"{len(self._open)} candidates are in flight, the most there may be: tell one first.")
        candidate = self._propose(self._asked)
        self._open[self._asked] = candidate
        self._asked += 1
        return candidate

    def tell(self, evaluations: EvaluationBatch, number: int | None = None) -> None:
        """The evaluation of one candidate in flight.

        Args:
            evaluations: of one row.
            number: whose it is; None for the one asked first.

        Raises:
            SearchError: no such candidate is in flight, or there is more than one row.
        """
        if number is None:
            number = min(self._open, default=-1)
        if number not in self._open:
            flying = ", ".join(map(str, self._open)) or "none"
            raise SearchError(f"candidate {number} is not in flight: it was told, or not asked; in flight: {flying}.")
        if len(evaluations) != 1:
            raise SearchError(f"tell() takes the evaluation of one candidate; got {len(evaluations)}.")
        genes = self._open.pop(number).genes
        assert genes is not None
        self._learn(self._told, number, genes, evaluations)
        self._told += 1

    def done(self) -> bool:
        """Never: the campaign decides."""
        return False

    def state(self) -> dict[str, Any]:
        """Plain data: counters, who is in flight, and what the search has learnt."""
        flying = [
            {"number": number, "genes": one.genes[0].tolist(), "parents": one.parents[0].tolist(), "by": one.operators}
            for number, one in self._open.items()
            if one.genes is not None
        ]
        return {"asked": self._asked, "told": self._told, "open": flying} | self._learnt()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state; those in flight stay so."""
        self._asked, self._told = int(state["asked"]), int(state["told"])
        self._open = {
            int(one["number"]): CandidateBatch(
                int(one["number"]),
                np.array([one["parents"]], dtype=np.int64),
                tuple(one["by"]),
                genes=np.array([one["genes"]], dtype=np.float64),
            )
            for one in state["open"]
        }
        self._relearn(state)

    def _propose(self, number: int) -> CandidateBatch:
        """The candidate of this number."""
        raise TypeError(f"{type(self).__name__} has to say what it proposes")

    def _learn(self, arrival: int, number: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """Take in a candidate, `(1, genes)`, that arrived with the id `arrival`."""
        raise TypeError(f"{type(self).__name__} has to say what it learns")

    def _learnt(self) -> dict[str, Any]:
        """What is learnt, as plain data."""
        raise TypeError(f"{type(self).__name__} has to say what it has learnt")

    def _relearn(self, state: Mapping[str, Any]) -> None:
        """Take over what `_learnt` gave."""
        raise TypeError(f"{type(self).__name__} has to take over what it has learnt")


@dataclass(frozen=True)
class _Member:
    """One of the population: its id and genes, what selection compares, and whether it was measured in full."""

    id: int
    genes: tuple[float, ...]
    fitness: float
    parts: int
    cost: int
    whole: bool

    @property
    def order(self) -> tuple[float, int, int, int]:
        """Best first; of equals the newest, so that neutral changes can drift."""
        return (-self.fitness, self.parts, self.cost, -self.id)

    @property
    def rank(self) -> tuple[float, int, int]:
        """What a tournament compares; among equals it draws by lot."""
        return (-self.fitness, self.parts, self.cost)


class SteadyGenetic(SteadySearch):
    """A steady-state genetic algorithm: whoever arrives takes the place of the worst (GENITOR, Whitley, ICGA 1989).

    Operators, rates and elites are those of `GeneticSearch`. Who has the genes of a member does not enter, without
    which copies of the best would soon be all there is.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        in_flight: int,
        settings: GeneticSettings | None = None,
        start: Sequence[Genome] = (),
    ) -> None:
        self._settings = settings or GeneticSettings()
        super().__init__(space, seed, start, in_flight, self._settings.population)
        forms = self._settings.elite_forms
        self._telling = [i for i, gene in enumerate(space.genes) if not (forms and gene.kind in ("log", "fraction"))]
        self._first: CandidateBatch | None = None
        self._members: list[_Member] = []  # best first

    def _propose(self, number: int) -> CandidateBatch:
        """The start and random genomes first, then children of whoever has arrived."""
        if number < (self._settings.initial or self._settings.population):
            return self._newcomer(number)
        if not self._members:
            return newcomers(self.space, generator_for(self._seed, number, "steady newcomer"), 1, first_id=number)
        rng = generator_for(self._seed, number, "steady")
        elites = self._elites() if self._settings.tune_rate else []
        if elites and rng.random() < self._settings.tune_rate:
            return self._tuned(elites[int(rng.integers(len(elites)))], number, rng)
        parents = [self._parent(rng) for _ in range(2)]
        genes = np.array([[parent.genes for parent in parents]])
        ids = np.array([[parent.id for parent in parents]], dtype=np.int64)
        return children(self.space, genes, ids, rng, self._settings, first_id=number)

    def _newcomer(self, number: int) -> CandidateBatch:
        """One of the first generation that `GeneticSearch` would begin with."""
        if self._first is None:
            n = self._settings.initial or self._settings.population
            self._first = newcomers(self.space, generator_for(self._seed, 0, "sample"), n, start=self._start)
        assert self._first.genes is not None
        row = slice(number, number + 1)
        return CandidateBatch(
            number, self._first.parents[row], tuple(self._first.operators[row]), genes=self._first.genes[row]
        )

    def _parent(self, rng: np.random.Generator) -> _Member:
        contestants: list[_Member] = [
            self._members[i] for i in rng.integers(0, len(self._members), self._settings.tournament)
        ]
        winner = min(contestants, key=lambda member: member.rank)  # of equals the first drawn
        return winner

    def _tuned(self, elite: _Member, number: int, rng: np.random.Generator) -> CandidateBatch:
        genes = self.space.canonical(self.space.tune(np.array([elite.genes]), rng))
        return CandidateBatch(number, np.array([[elite.id, NO_PARENT]], dtype=np.int64), ("tune",), genes=genes)

    def _learn(self, arrival: int, number: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """Enter the candidate unless it failed or is a copy, and let the worst that is no elite go."""
        fitness = float(evaluations.fitness[0])
        row = tuple(genes[0].tolist())
        if evaluations.status[0] == FAILED or np.isnan(fitness) or any(row == member.genes for member in self._members):
            return
        parts = int(evaluations.parts[0])
        worth = fitness - self._settings.parsimony * parts
        whole = bool(evaluations.status[0] == OK)
        self._members.append(_Member(arrival, row, worth, parts, int(evaluations.cost[0]), whole))
        self._members.sort(key=lambda member: member.order)
        if len(self._members) > self._settings.population:
            kept = {member.id for member in self._elites()}
            worst = next(member for member in reversed(self._members) if member.id not in kept)
            self._members.remove(worst)

    def _elites(self) -> list[_Member]:
        """The best that were measured in full, no two with the same genes, or form."""
        chosen: list[_Member] = []
        seen: set[tuple[float, ...]] = set()
        for member in self._members:
            if len(chosen) == self._settings.elites:
                break
            key = tuple(member.genes[i] for i in self._telling)
            if member.whole and key not in seen:
                seen.add(key)
                chosen.append(member)
        return chosen

    def _learnt(self) -> dict[str, Any]:
        return {"members": [[getattr(member, one.name) for one in fields(member)] for member in self._members]}

    def _relearn(self, state: Mapping[str, Any]) -> None:
        self._members = [
            _Member(int(i), tuple(genes), float(fitness), int(parts), int(cost), bool(whole))
            for i, genes, fitness, parts, cost, whole in state["members"]
        ]
