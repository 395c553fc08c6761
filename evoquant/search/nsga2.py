"""NSGA-II: the whole trade-off between retention and size in one run, and an archive of the best found.

With `objectives` of retention and one or two of a campaign's costs, too.

Fast nondominated sorting, crowding distance and constrained domination are Deb, Pratap, Agarwal & Meyarivan, A fast
and elitist multiobjective genetic algorithm: NSGA-II, IEEE TEC 6(2), 2002; survivors are chosen by DEAP's `selNSGA2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from deap import base, tools

from evoquant.errors import SearchError
from evoquant.rng import generator_for
from evoquant.search.base import FAILED, OK, CandidateBatch, EvaluationBatch
from evoquant.search.front import Front
from evoquant.search.generational import Generational
from evoquant.search.variation import children, newcomers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space

RETENTION = "retention"
INFEASIBLE_BITS = 1e3  # worse than the size of any allocation in bits


@dataclass(frozen=True)
class Nsga2Settings:
    """Settings of `Nsga2Search`; rates are probabilities.

    Attributes:
        population: survivors, and children, of a generation.
        crossover_rate: children with two parents.
        mutation_rate: genes changed in a child.
        immigrant_rate: children drawn at random instead.
        floor: retention below which a candidate is dominated by every one above; 0 is no floor.
        archive: the most points that the archive keeps.
        objectives: `retention` and one or two names of costs; by default `effective_bits` as the campaign counts them.
    """

    population: int = 100
    crossover_rate: float = 0.9
    mutation_rate: float = 0.05
    immigrant_rate: float = 0.0
    floor: float = 0.0
    archive: int = 1000
    objectives: tuple[str, ...] = ()

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside retention; empty for the default."""
        return tuple(name for name in self.objectives if name != RETENTION)


class Nsga2Search(Generational):
    """Maximises mean retention and minimises mean effective bits over the models; see the module's docstring.

    Of other costs the mean over the models of the share of what the model costs in FP32, times 32: bits per weight,
    were they bits.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        settings: Nsga2Settings | None = None,
        start: Sequence[Genome] = (),
        references: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        """With a space of numeric genomes.

        Args:
            space, seed, settings, start: as every search.
            references: name of an objective → `(models,)` what the models cost in FP32.
        """
        super().__init__(space, seed, start)
        self._settings = settings or Nsga2Settings()
        self._references = references or {}
        self._axes = 1 + (len(self._settings.costs) or 1)
        self._ids = np.empty(0, dtype=np.int64)
        self._genes = np.empty((0, len(space.genes)))
        self._points = np.empty((0, self._axes))
        self._front = Front(len(space.genes), self._settings.archive, self._axes - 1)

    def _propose(self) -> CandidateBatch:
        """The start and random genomes first, then children of parents that won a tournament of two."""
        n = self._settings.population
        rng = generator_for(self._seed, self._generation, "variation" if len(self._ids) else "sample")
        if len(self._ids) == 0:
            return newcomers(self.space, rng, n, first_id=self._next_id, start=self._beginning())
        place = crowded_order(self._points, self._settings.floor)
        chosen = rng.integers(0, len(self._ids), (n, 2, 2))
        chosen = np.where(place[chosen[:, :, 0]] <= place[chosen[:, :, 1]], chosen[:, :, 0], chosen[:, :, 1])
        return children(self.space, self._genes[chosen], self._ids[chosen], rng, self._settings, first_id=self._next_id)

    def _learn(self, first_id: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """Parents and children that did not fail compete; the feasible ones measured in full enter the archive."""
        points = self._points_of(evaluations)
        (ok,) = np.nonzero((evaluations.status != FAILED) & np.isfinite(points).all(axis=1))
        whole = evaluations.status[ok] == OK
        genes = np.concatenate([self._genes, genes[ok]])
        points = np.concatenate([self._points, points[ok]])
        ids = np.concatenate([self._ids, first_id + ok])
        # A copy of a survivor would take the place of another point of the front.
        _, first = np.unique(genes, axis=0, return_index=True)
        first.sort()
        chosen = first[survivors(points[first], self._settings.floor, self._settings.population)]
        self._collect(genes[len(self._ids) :][whole], points[len(self._ids) :][whole])
        self._ids, self._genes, self._points = ids[chosen], genes[chosen], points[chosen]

    def _points_of(self, evaluations: EvaluationBatch) -> NDArray[np.float64]:
        """`(n, 1 + costs)` mean retention, and what is to be little."""
        columns = [evaluations.retention.mean(axis=1)]
        if not self._settings.costs:
            return np.column_stack([*columns, evaluations.effective_bits.mean(axis=1)])
        for name in self._settings.costs:
            if name == "bits" and name not in evaluations.costs:  # they are what is counted
                columns.append(evaluations.effective_bits.mean(axis=1))
                continue
            amounts = evaluations.costs.get("effective_bits" if name == "bits" else name)
            if amounts is None:
                raise SearchError(
                    f"objectives: what candidates cost in {name} is not told; the space's models do not say."
                )
            columns.append((amounts if name == "bits" else 32.0 * amounts / self._references[name]).mean(axis=1))
        return np.column_stack(columns)

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` the nondominated genomes found at or above the floor, as `Front` keeps them."""
        self._turn.settled()
        return self._front.genes.copy()

    @property
    def front(self) -> NDArray[np.float64]:
        """`(k, 2)` retention and effective bits of `archive`, or `(k, 1 + costs)`, row for row."""
        return self._front.points.copy()

    def state(self) -> dict[str, Any]:
        """Survivors, archive and counters."""
        return self._counters() | {
            "ids": self._ids.tolist(),
            "genes": self._genes.tolist(),
            "points": self._points.tolist(),
            "archive": self._front.genes.tolist(),
            "front": self._front.points.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._restore_counters(state)
        self._ids = np.array(state["ids"], dtype=np.int64)
        self._genes = self._rows(state["genes"])
        self._points = np.array(state["points"], dtype=np.float64).reshape(-1, self._axes)
        self._front.genes = self._rows(state["archive"])
        self._front.points = np.array(state["front"], dtype=np.float64).reshape(-1, self._axes)

    def _collect(self, genes: NDArray[np.float64], points: NDArray[np.float64]) -> None:
        feasible = points[:, 0] >= self._settings.floor
        self._front.add(genes[feasible], points[feasible])


class _Fitness(base.Fitness):  # type: ignore[misc]
    """Both larger is better: retention, and minus effective bits."""

    weights = (1.0, 1.0)


class _Fitness3(base.Fitness):  # type: ignore[misc]
    """All larger is better: retention, and minus two costs."""

    weights = (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Member:
    """A row under the name that DEAP reads."""

    row: int
    fitness: _Fitness | _Fitness3


def _members(points: NDArray[np.float64], floor: float) -> list[_Member]:
    """Members whose plain domination is constrained domination: below the floor, less retention is also more bits."""
    retention, costs = points[:, :1], points[:, 1:]
    worst = max(INFEASIBLE_BITS, 1.0 + float(costs.max(initial=0.0)))  # a table may have narrow widths that are slow
    values = np.column_stack([retention, -np.where(retention >= floor, costs, worst + floor - retention)])
    make = _Fitness if points.shape[1] == 2 else _Fitness3
    return [_Member(row, make(values)) for row, values in enumerate(values.tolist())]


def survivors(points: NDArray[np.float64], floor: float, count: int) -> NDArray[np.intp]:
    """Rows of at most `count` of `(n, 1 + costs)` retention and costs: by front, then by crowding distance."""
    members = _members(points, floor)
    if len(members) > count:
        members = tools.selNSGA2(members, count, nd="log")
    return np.array([member.row for member in members], dtype=np.intp)


def crowded_order(points: NDArray[np.float64], floor: float) -> NDArray[np.intp]:
    """`(n,)` place of each row in the crowded comparison (Deb et al., III.B), 0 is best; equals share a place."""
    keys = np.empty((len(points), 2))
    fronts = tools.sortLogNondominated(_members(points, floor), len(points))
    for rank, front in enumerate(fronts):
        tools.emo.assignCrowdingDist(front)
        for member in front:
            keys[member.row] = rank, -member.fitness.crowding_dist
    _, place = np.unique(keys, axis=0, return_inverse=True)
    return place.reshape(-1).astype(np.intp)
