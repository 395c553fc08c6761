"""MAP-Elites: the best genome for every degree of compression and complexity, side by side.

Mouret & Clune, Illuminating search spaces by mapping elites, arXiv:1504.04909, 2015. A cell is a bin of the mean
compression, on a log scale, and a number of parts; parents are drawn uniformly from the filled cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.genomes.base import digest_of
from evoquant.rng import generator_for
from evoquant.search.base import OK, CandidateBatch, EvaluationBatch, best_first
from evoquant.search.generational import Generational
from evoquant.search.variation import children, newcomers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space


@dataclass(frozen=True)
class MapElitesSettings:
    """Settings of `MapElitesSearch`; rates are probabilities.

    Attributes:
        batch: candidates of a generation.
        initial: candidates of the first generation; by default `batch`.
        bins: of compression.
        compression: the lower end of the first bin and the upper end of the last; what lies beyond counts to them.
        parts: genomes with as many parts or more share the last row of cells.
        crossover_rate: children with two parents.
        mutation_rate: genes changed in a child.
        immigrant_rate: children drawn at random instead.
    """

    batch: int = 100
    initial: int | None = None
    bins: int = 16
    compression: tuple[float, float] = (1.0, 16.0)
    parts: int = 16
    crossover_rate: float = 0.5
    mutation_rate: float = 0.1
    immigrant_rate: float = 0.05


class MapElitesSearch(Generational):
    """See the module's docstring."""

    def __init__(
        self, space: Space, *, seed: int, settings: MapElitesSettings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        super().__init__(space, seed, start)
        self._settings = settings or MapElitesSettings()
        self._cells = np.empty(0, dtype=np.int64)
        self._ids = np.empty(0, dtype=np.int64)
        self._genes = np.empty((0, len(space.genes)))
        self._fitness = np.empty(0)
        self._parts = np.empty(0, dtype=np.int64)
        self._cost = np.empty(0, dtype=np.int64)

    def _propose(self) -> CandidateBatch:
        """The start and random genomes first, then children of elites."""
        settings = self._settings
        rng = generator_for(self._seed, self._generation, "variation" if len(self._ids) else "sample")
        if len(self._ids) == 0:
            n = settings.initial or settings.batch
            return newcomers(self.space, rng, n, first_id=self._next_id, start=self._beginning())
        chosen = rng.integers(0, len(self._ids), (settings.batch, 2))
        return children(self.space, self._genes[chosen], self._ids[chosen], rng, settings, first_id=self._next_id)

    def _learn(self, first_id: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """Every candidate that did not fail competes for its cell, in the one order of genomes."""
        (ok,) = np.nonzero((evaluations.status == OK) & ~np.isnan(evaluations.fitness))
        cells = self._cell(evaluations.compression[ok].mean(axis=1), evaluations.parts[ok])
        genes = np.concatenate([self._genes, genes[ok]])
        # Copies would only cost digests; the first of them, the elite itself, stays.
        _, rows = np.unique(genes, axis=0, return_index=True)
        rows.sort()
        genes = genes[rows]
        cells = np.concatenate([self._cells, cells])[rows]
        ids = np.concatenate([self._ids, first_id + ok])[rows]
        fitness = np.concatenate([self._fitness, evaluations.fitness[ok]])[rows]
        parts = np.concatenate([self._parts, evaluations.parts[ok]])[rows]
        cost = np.concatenate([self._cost, evaluations.cost[ok]])[rows]
        order = best_first(fitness, parts, cost, lambda row: digest_of(self.space.decode(genes[row])))
        _, first = np.unique(cells[order], return_index=True)
        best = order[first]
        self._cells, self._ids, self._genes = cells[best], ids[best], genes[best]
        self._fitness, self._parts, self._cost = fitness[best], parts[best], cost[best]

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` the elites: from the fewest parts, and among equals from the best fitness."""
        self._turn.settled()
        return self._genes[np.lexsort((self._cells, -self._fitness, self._parts))]

    def state(self) -> dict[str, Any]:
        """Elites and counters."""
        return self._counters() | {
            "cells": self._cells.tolist(),
            "ids": self._ids.tolist(),
            "genes": self._genes.tolist(),
            "fitness": self._fitness.tolist(),
            "parts": self._parts.tolist(),
            "cost": self._cost.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._restore_counters(state)
        self._cells = np.array(state["cells"], dtype=np.int64)
        self._ids = np.array(state["ids"], dtype=np.int64)
        self._genes = self._rows(state["genes"])
        self._fitness = np.array(state["fitness"], dtype=np.float64)
        self._parts = np.array(state["parts"], dtype=np.int64)
        self._cost = np.array(state["cost"], dtype=np.int64)

    def _cell(self, compression: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """`(n,)` cell numbers, row by row of parts."""
        settings = self._settings
        inner = np.geomspace(*settings.compression, settings.bins + 1)[1:-1]
        column = np.searchsorted(inner, compression, side="right")
        return np.minimum(parts, settings.parts) * settings.bins + column
