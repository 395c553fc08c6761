"""Random search: the baseline that every other search has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.search.base import NO_PARENT, CandidateBatch, EvaluationBatch, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.genomes.base import Space


class RandomSearch:
    """Independent random genomes, `population` at a time."""

    def __init__(self, space: Space, *, seed: int, population: int) -> None:
        self.space = space
        self._seed = seed
        self._population = population
        self._generation = 0
        self._turn = Turn()

    def ask(self) -> CandidateBatch:
        """The next random genomes."""
        n = self._population
        self._turn.asked(n)
        genes = self.space.canonical(self.space.sample(generator_for(self._seed, self._generation, "sample"), n))
        parents = np.full((n, 2), NO_PARENT, dtype=np.int64)
        return CandidateBatch(self._generation * n, parents, ("random",) * n, genes=genes)

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Nothing is learnt."""
        self._turn.told(len(evaluations))
        self._generation += 1

    def done(self) -> bool:
        """Never."""
        return False

    def state(self) -> dict[str, Any]:
        """The generation."""
        self._turn.settled()
        return {"generation": self._generation}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._generation = int(state["generation"])
