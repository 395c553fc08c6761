"""Simulated annealing (Kirkpatrick, Gelatt & Vecchi, Science 220, 1983) as a search: ask, tell, state as plain data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.search.base import NO_PARENT, OK, CandidateBatch, EvaluationBatch, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.genomes.base import Space


class Annealing:
    """Independent chains, each of which asks for one neighbour of where it stands in every generation.

    Args:
        space: whose rows are varied; any kind of genome.
        seed: the campaign's. Every draw is keyed by (seed, generation, purpose), so that no stream has to be saved.
        chains: how many walk side by side: the candidates of a generation.
        rate: share of genes that a neighbour changes.
        temperature: of the first generation: a loss of this share of a chain's fitness is taken with probability 1/e.
        cooling: factor on the temperature from one generation to the next, in (0, 1].
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        chains: int = 8,
        rate: float = 0.08,
        temperature: float = 0.3,
        cooling: float = 0.99,
    ) -> None:
        self.space = space
        self._seed = seed
        self._chains = chains
        self._rate = rate
        self._temperature = temperature
        self._cooling = cooling
        self._generation = 0
        self._rows: np.ndarray | None = None  # (chains, genes): where each chain stands
        self._fitness = [-math.inf] * chains
        self._ids = [NO_PARENT] * chains
        self._asked: CandidateBatch | None = None
        self._turn = Turn()  # raises where ask and tell are out of order

    def ask(self) -> CandidateBatch:
        """A neighbour of each chain's place; random genomes at the start."""
        self._turn.asked(self._chains)
        rng = generator_for(self._seed, self._generation, "annealing: neighbours")
        if self._rows is None:
            rows = self.space.sample(rng, self._chains)
        else:
            rows = self.space.tune(self.space.mutate(self._rows, self._rate, rng), rng)
        parents = np.array([(parent, NO_PARENT) for parent in self._ids], dtype=np.int64)
        how = "sample" if self._rows is None else "neighbour"
        first_id = self._generation * self._chains
        self._asked = CandidateBatch(first_id, parents, (how,) * self._chains, genes=self.space.canonical(rows))
        return self._asked

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Move each chain, or leave it where it is: Metropolis' rule. What failed is never moved to."""
        self._turn.told(len(evaluations))
        assert self._asked is not None and self._asked.genes is not None
        draws = generator_for(self._seed, self._generation, "annealing: moves").random(self._chains)
        temperature = self._temperature * self._cooling**self._generation
        rows = self._asked.genes.copy() if self._rows is None else self._rows.copy()
        for chain in range(self._chains):
            there = float(evaluations.fitness[chain])
            if evaluations.status[chain] == OK and draws[chain] < self._chance(chain, there, temperature):
                rows[chain] = self._asked.genes[chain]
                self._fitness[chain] = there
                self._ids[chain] = self._asked.first_id + chain
        self._rows = rows
        self._generation += 1

    def _chance(self, chain: int, there: float, temperature: float) -> float:
        here = self._fitness[chain]
        if there >= here or math.isinf(here):
            return 1.0
        return math.exp((there - here) / max(temperature * abs(here), 1e-12))

    def done(self) -> bool:
        """Never: the campaign's `stop` decides."""
        return False

    def state(self) -> dict[str, Any]:
        """Where the chains stand; None stands for a chain that has found nothing yet, since JSON has no infinity."""
        self._turn.settled()
        return {
            "generation": self._generation,
            "rows": None if self._rows is None else self._rows.tolist(),
            "fitness": [None if math.isinf(value) else value for value in self._fitness],
            "ids": list(self._ids),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._generation = int(state["generation"])
        self._rows = None if state["rows"] is None else np.array(state["rows"], dtype=np.float64)
        self._fitness = [-math.inf if value is None else float(value) for value in state["fitness"]]
        self._ids = [int(value) for value in state["ids"]]
