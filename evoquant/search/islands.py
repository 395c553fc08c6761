"""Islands: several genetic searches side by side that now and then send their best to the next in a ring.

Whitley, Rana & Heckendorn, The island model genetic algorithm: on separability, population size and convergence,
Journal of Computing and Information Technology 7(1), 1999; Cantú-Paz, Efficient and Accurate Parallel Genetic
Algorithms, 2000. All islands' candidates are one batch, so that the executor evaluates the islands in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.genomes.base import digest_of
from evoquant.rng import generator_for
from evoquant.search.base import CandidateBatch, EvaluationBatch, Turn, best_first
from evoquant.search.genetic import GeneticSearch, GeneticSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.genomes.base import Genome, Space

SURVIVORS = ("ids", "genes", "fitness", "parts", "cost", "whole")  # columns of a genetic search's state


@dataclass(frozen=True)
class IslandSettings:
    """Settings of `IslandSearch`.

    Attributes:
        islands: how many genetic searches.
        every: generations between two migrations; 0 is never.
        migrants: how many of an island's best go to the next one, where they replace the worst.
        genetic: of each island.
    """

    islands: int = 4
    every: int = 10
    migrants: int = 2
    genetic: GeneticSettings = field(default_factory=lambda: GeneticSettings(population=25, elites=2))


class IslandSearch:
    """See the module's docstring; every island begins with the start genomes."""

    def __init__(
        self, space: Space, *, seed: int, settings: IslandSettings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        self.space = space
        self._settings = settings or IslandSettings()
        self._islands = tuple(
            GeneticSearch(space, seed=island_seed(seed, i), settings=self._settings.genetic, start=start)
            for i in range(self._settings.islands)
        )
        self._generation = 0
        self._next_id = 0
        self._turn = Turn()
        self._sizes: tuple[int, ...] = ()

    def ask(self) -> CandidateBatch:
        """The candidates of all islands, one island after the other."""
        self._turn.ready()
        batches = []
        first = self._next_id
        for island in self._islands:
            island.restore({**island.state(), "next_id": first})  # ids count over all islands
            batches.append(island.ask())
            first += len(batches[-1])
        self._turn.asked(first - self._next_id)
        self._sizes = tuple(len(batch) for batch in batches)
        return CandidateBatch(
            self._next_id,
            np.concatenate([batch.parents for batch in batches]),
            tuple(operator for batch in batches for operator in batch.operators),
            genes=np.concatenate([batch.genes for batch in batches if batch.genes is not None]),
        )

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Each island its own; then, when it is time, the best migrate."""
        self._turn.told(len(evaluations))
        first = 0
        for island, size in zip(self._islands, self._sizes, strict=True):
            island.tell(_part(evaluations, first, first + size))
            first += size
        self._next_id += first
        self._generation += 1
        if self._settings.every and self._generation % self._settings.every == 0:
            self._migrate()

    def done(self) -> bool:
        """Never: the campaign decides."""
        return False

    def state(self) -> dict[str, Any]:
        """The islands' states and counters."""
        self._turn.settled()
        return {
            "generation": self._generation,
            "next_id": self._next_id,
            "islands": [island.state() for island in self._islands],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._generation = int(state["generation"])
        self._next_id = int(state["next_id"])
        for island, saved in zip(self._islands, state["islands"], strict=True):
            island.restore(saved)

    def _migrate(self) -> None:
        """The best of each island take the place of the worst of the next, unless they live there already."""
        states = [island.state() for island in self._islands]
        orders = [self._order(state) for state in states]
        for i, island in enumerate(self._islands):
            home, before = states[i], states[i - 1]
            known = {tuple(row) for row in home["genes"]}
            arriving = [
                row for row in orders[i - 1][: self._settings.migrants] if tuple(before["genes"][row]) not in known
            ]
            staying = sorted(orders[i][: max(len(orders[i]) - len(arriving), 0)])
            mixed = {
                name: [home[name][row] for row in staying] + [before[name][row] for row in arriving]
                for name in SURVIVORS
            }
            island.restore({**home, **mixed})

    def _order(self, state: Mapping[str, Any]) -> list[int]:
        genes = np.array(state["genes"], dtype=np.float64)
        columns = (
            np.array(state["fitness"], dtype=np.float64),
            np.array(state["parts"], dtype=np.int64),
            np.array(state["cost"], dtype=np.int64),
        )
        order: list[int] = best_first(*columns, lambda row: digest_of(self.space.decode(genes[row]))).tolist()
        return order


def island_seed(seed: int, island: int) -> int:
    """The seed of one island, derived from the campaign's."""
    return int(generator_for(seed, island, "island").integers(2**63))


def _part(evaluations: EvaluationBatch, first: int, end: int) -> EvaluationBatch:
    """Rows `first` up to `end` as a batch of their own."""
    rows = slice(first, end)
    return EvaluationBatch(
        fitness=evaluations.fitness[rows],
        parts=evaluations.parts[rows],
        cost=evaluations.cost[rows],
        retention=evaluations.retention[rows],
        compression=evaluations.compression[rows],
        effective_bits=evaluations.effective_bits[rows],
        status=evaluations.status[rows],
        reasons={row - first: reason for row, reason in evaluations.reasons.items() if first <= row < end},
        digest=lambda row: evaluations.digest(first + row),
        standard_error=None if evaluations.standard_error is None else evaluations.standard_error[rows],
        divergence=None if evaluations.divergence is None else evaluations.divergence[rows],
        costs={name: amounts[rows] for name, amounts in evaluations.costs.items()},
    )
