"""A generational genetic algorithm on populations as arrays.

Tournament selection, elitism, uniform crossover over linked genes and per-gene mutation suited to each
gene's kind (Eiben & Smith, Introduction to Evolutionary Computing, 2nd ed., chapters 4 and 5).

From a population of `LARGE` on, decided by the settings alone, children are bred by compiled operators where the space
allows it (`breeding`): the same operators, drawn from other random streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.search.base import (
    FAILED,
    LARGE,
    NO_PARENT,
    OK,
    CandidateBatch,
    DigestMemo,
    EvaluationBatch,
    OperatorColumn,
    best_first,
)
from evoquant.search.breeding import Survivors, breeder_of, with_room
from evoquant.search.generational import Generational
from evoquant.search.variation import children, newcomers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space


ELITES_AMONG = 4  # times as many of the best are looked through for elites, then so many times more, then all


@dataclass(frozen=True)
class GeneticSettings:
    """Settings of `GeneticSearch`; rates are probabilities.

    Attributes:
        population: survivors of a generation: elites and children.
        initial: candidates of the first generation; by default `population`.
        elites: best distinct survivors carried over unchanged.
        elite_forms: elites are the best of each form: no two differ in their numbers (thresholds, fractions, also
            none, constants) alone. A form that is new then lives long enough for its numbers to be tuned.
        tournament: contestants per parent.
        crossover_rate: children with two parents.
        mutation_rate: genes changed in a child.
        immigrant_rate: children drawn at random instead.
        tune_rate: children that are an elite with only its numbers changed: a hill climb while the form stays.
        parsimony: fitness that one part more has to bring before selection prefers it.
    """

    population: int = 100
    initial: int | None = None
    elites: int = 4
    elite_forms: bool = False
    tournament: int = 3
    crossover_rate: float = 0.7
    mutation_rate: float = 0.1
    immigrant_rate: float = 0.05
    tune_rate: float = 0.0
    parsimony: float = 0.0


class GeneticSearch(Generational):
    """See the module's docstring."""

    def __init__(
        self, space: Space, *, seed: int, settings: GeneticSettings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        super().__init__(space, seed, start)
        self._settings = settings or GeneticSettings()
        self._large = self._settings.population >= LARGE
        self._breeder = breeder_of(space) if self._large else None
        self._row_key = DigestMemo(space)
        # Columns that tell one elite from another: all, or all but the numbers that tuning changes.
        forms = self._settings.elite_forms
        self._telling = np.array([not (forms and gene.kind in ("log", "fraction")) for gene in space.genes])
        width = len(space.genes)
        self._ids = np.empty(0, dtype=np.int64)
        self._genes = np.empty((0, width))
        self._fitness = np.empty(0)
        self._parts = np.empty(0, dtype=np.int64)
        self._cost = np.empty(0, dtype=np.int64)
        self._whole = np.empty(0, dtype=bool)  # not cut short

    def _propose(self) -> CandidateBatch:
        """The start and random genomes first, then the children of the survivors."""
        return self._first() if len(self._ids) == 0 else self._children()

    def _learn(self, first_id: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """Survivors: the best distinct old ones (elites) and all children that did not fail.

        One whose measurement was cut short may be a parent by its estimate, but never an elite.
        """
        (ok,) = np.nonzero((evaluations.status != FAILED) & ~np.isnan(evaluations.fitness))
        old = self._elites()
        worth = evaluations.fitness - self._settings.parsimony * evaluations.parts
        whole = with_room(genes, self._genes[old]) if self._breeder is not None and len(ok) == len(genes) else None
        self._genes = np.concatenate([self._genes[old], genes[ok]]) if whole is None else whole
        self._ids = np.concatenate([self._ids[old], first_id + ok])
        self._fitness = np.concatenate([self._fitness[old], worth[ok]])
        self._parts = np.concatenate([self._parts[old], evaluations.parts[ok]])
        self._cost = np.concatenate([self._cost[old], evaluations.cost[ok]])
        self._whole = np.concatenate([self._whole[old], evaluations.status[ok] == OK])

    def state(self) -> dict[str, Any]:
        """Survivors and counters."""
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in self._kept().items()}

    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """The survivors' columns, which are replaced and never written to, and the counters."""
        kept = self._kept()
        return lambda: kept

    def _kept(self) -> dict[str, Any]:
        return self._counters() | {
            "ids": self._ids,
            "genes": self._genes,
            "fitness": self._fitness,
            "parts": self._parts,
            "cost": self._cost,
            "whole": self._whole,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._restore_counters(state)
        self._ids = np.array(state["ids"], dtype=np.int64)
        self._genes = self._rows(state["genes"])
        self._fitness = np.array(state["fitness"], dtype=np.float64)
        self._parts = np.array(state["parts"], dtype=np.int64)
        self._cost = np.array(state["cost"], dtype=np.int64)
        self._whole = np.array(state["whole"], dtype=bool)

    def _first(self) -> CandidateBatch:
        # Also after a generation in which every candidate failed: then the streams differ by generation.
        n = self._settings.initial or self._settings.population
        rng = generator_for(self._seed, self._generation, "sample")
        if self._breeder is not None:
            start, room = self._beginning(), self._settings.elites
            return self._breeder.newcomers(rng, n, first_id=self._next_id, start=start, room=room)
        return newcomers(self.space, rng, n, first_id=self._next_id, start=self._beginning())

    def _children(self) -> CandidateBatch:
        settings = self._settings
        n = settings.population - settings.elites
        rng = generator_for(self._seed, self._generation, "variation")
        if self._breeder is not None:
            survivors = Survivors(self._genes, self._ids, self._fitness, self._parts, self._cost)
            batch = self._breeder.children(survivors, rng, n, settings, first_id=self._next_id, room=settings.elites)
            return self._tune(batch)
        rank = _ranks(self._fitness, self._parts, self._cost)
        # Equals share a rank, so that a tournament among them is a draw by lot and neutral changes can drift.
        contestants = rng.integers(0, len(self._ids), (n, 2, settings.tournament))
        places = rank[contestants].argmin(axis=2)
        chosen = np.take_along_axis(contestants, places[:, :, None], axis=2)[:, :, 0]
        batch = children(self.space, self._genes[chosen], self._ids[chosen], rng, settings, first_id=self._next_id)
        return self._tune(batch)

    def _tune(self, batch: CandidateBatch) -> CandidateBatch:
        """The batch with a share of the children replaced by elites whose numbers were changed."""
        rate = self._settings.tune_rate
        elites = self._elites() if rate else np.empty(0, dtype=np.intp)
        if len(elites) == 0:
            return batch
        assert batch.genes is not None
        genes, ids = batch.genes, batch.parents  # nobody else has them yet
        rng = generator_for(self._seed, self._generation, "tune")
        (rows,) = np.nonzero(rng.random(len(genes)) < rate)
        chosen = rng.choice(elites, len(rows))
        genes[rows] = self.space.canonical(self.space.tune(self._genes[chosen], rng))
        ids[rows, 0] = self._ids[chosen]
        ids[rows, 1] = NO_PARENT
        return CandidateBatch(batch.first_id, ids, _with_tune(batch.operators, rows), genes=genes)

    def _elites(self) -> NDArray[np.intp]:
        """Rows of the best survivors, no two with the same genes, or form."""
        few = ELITES_AMONG * self._settings.elites * (ELITES_AMONG**2 if self._large else 1)
        while few < len(self._ids):  # equals far down need no digests
            chosen = self._elites_among(few)
            if len(chosen) == self._settings.elites:
                return chosen
            few *= ELITES_AMONG**2
        return self._elites_among(None)

    def _elites_among(self, count: int | None) -> NDArray[np.intp]:
        chosen: list[int] = []
        seen: set[bytes] = set()
        order = best_first(
            self._fitness,
            self._parts,
            self._cost,
            lambda row: self._row_key(self._genes[row]),
            count,
            0 if self._large else None,  # of a large population's equals, of which there are many, the first
        )
        for row in order.tolist():
            if len(chosen) == self._settings.elites:
                break
            key = self._genes[row, self._telling].tobytes()
            if self._whole[row] and key not in seen:
                seen.add(key)
                chosen.append(row)
        return np.array(chosen, dtype=np.intp)


def _with_tune(operators: Sequence[str], rows: NDArray[np.intp]) -> Sequence[str]:
    if isinstance(operators, OperatorColumn):
        codes = operators.codes.copy()
        codes[rows] = len(operators.names)
        return OperatorColumn(codes, (*operators.names, "tune"))
    names = list(operators)
    for row in rows.tolist():
        names[row] = "tune"
    return tuple(names)


def _ranks(fitness: NDArray[np.float64], parts: NDArray[np.int64], cost: NDArray[np.int64]) -> NDArray[np.int64]:
    """`(n,)` ranks, 0 is best; candidates equal in fitness, parts and cost share one."""
    order = np.lexsort((cost, parts, -fitness))
    keys = np.stack([fitness[order], parts[order], cost[order]])
    steps = (np.diff(keys, axis=1) != 0).any(axis=0)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(steps)])
    return ranks
