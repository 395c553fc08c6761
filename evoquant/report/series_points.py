"""The candidates of a run's journal as points of retention and compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build_scoring import make_objective
from evoquant.campaign.config import CampaignConfig, ReplayConfig
from evoquant.campaign.config_objective import LimitsConfig
from evoquant.campaign.replay import replay_plan
from evoquant.report.ancestry import genes_of, space_of
from evoquant.report.series_model import frozen, goal_of
from evoquant.scoring.limits import EFFECTIVE_BITS, WithinLimits
from evoquant.scoring.separable import cost_sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Space
    from evoquant.report.data import RunData
    from evoquant.report.series_model import Subject
    from evoquant.scoring.limits import Limit

MOST_GENERATIONS = 120  # whose population is shown
MOST_POINTS = 8000


@dataclass(frozen=True, eq=False)
class Points:
    """Candidates as points, by generation; read-only arrays `(n,)`.

    Attributes:
        generation: of each.
        retention: on the model, as the run obtained it; not clipped.
        compression, effective_bits: on the model.
        fitness: as the campaign counts it, over all its models.
        feasible: whether the model alone keeps the objective's limits.
        whole: whether it was measured on all data that the race has; always, where nothing is measured.
        model: in words.
        measured: whether retention comes from real passes (over the calibration split).
        asked: candidates of the whole run.
        failed: of the generations shown, which have no retention and are no points.
        note: what the points are of all, in words; empty where they are all.
    """

    generation: NDArray[np.int64]
    retention: NDArray[np.float64]
    compression: NDArray[np.float64]
    effective_bits: NDArray[np.float64]
    fitness: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    model: str
    measured: bool
    asked: int
    failed: int
    note: str

    def __len__(self) -> int:
        return len(self.generation)

    @property
    def share(self) -> float:
        """Points of all candidates."""
        return len(self) / self.asked if self.asked else 1.0


class PointMaker:
    """Makes points of an even selection of the candidates, generation by generation."""

    def __init__(self, run: RunData, subject: Subject) -> None:
        self._run = run
        self._subject = subject
        self.space: Space | None = None
        count = len(run.journal)
        self._shown = set(_evenly(count, MOST_GENERATIONS).tolist())
        self._each = max(MOST_POINTS // len(self._shown), 1)
        self._judged = _judged_on(run.config)
        self._limits: tuple[Limit, ...] = ()
        if isinstance(run.config.objective, LimitsConfig):
            objective = make_objective(run.config, (subject.problem,))
            assert isinstance(objective, WithinLimits)
            self._limits = objective.at_most
        self._columns: list[NDArray[np.float64]] = []
        self._unlisted = self._elsewhere = self._failed = 0

    def take(self, number: int, record: dict[str, Any]) -> None:
        """Add what is shown of the record on that line."""
        if number not in self._shown:
            return
        population = record["population"]
        if "fitness" not in population:
            self._unlisted += 1
            self._take_best(record)
            return
        rows = np.arange(population["size"])
        if number < len(self._judged):
            here = np.array([name == self._subject.name for name in self._judged[number]], dtype=bool)
            if len(here) == len(rows):
                self._elsewhere += int((~here).sum())
                rows = rows[here]
        fitness = np.array(population["fitness"], dtype=np.float64)
        rows = rows[_evenly(len(rows), self._each)]
        if not len(rows):
            return
        retention, cost, whole = self._figures(record, rows)
        named = {name: np.array(found, dtype=np.float64)[rows] for name, found in population.get("costs", {}).items()}
        within = self._within(cost, named)
        values = np.stack([np.full(len(rows), record["generation"]), retention, cost, fitness[rows], whole, within])
        known = ~np.isnan(values).any(axis=0)
        self._failed += int((~known).sum())
        self._columns.append(values[:, known])

    def _take_best(self, record: dict[str, Any]) -> None:
        """Of a population that is not listed the best alone."""
        if (best := record["best"]) is not None:
            column = min(max(self._subject.column, 0), len(best["retention"]) - 1)
            cost = self._cost_of(np.array([best["compression"][column]], dtype=np.float64))
            named = {name: np.array([found], dtype=np.float64) for name, found in best.get("costs", {}).items()}
            figures = (record["generation"], best["retention"][column], cost[0], best["fitness"], 1.0)
            self._columns.append(np.array([[*figures, self._within(cost, named)[0]]], dtype=np.float64).T)

    def _within(self, cost: NDArray[np.float64], named: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """`(n,)` whether the model alone keeps the limits on costs: of what counts most, and `(n, models)` by name."""
        subject = self._subject
        amounts = {name: found[:, max(subject.column, 0)] for name, found in named.items()}
        if not amounts:  # one cost alone
            amounts = {"cost" if subject.problem.own_cost else "bits": cost, EFFECTIVE_BITS: subject.bits_of(cost)}
        kept = np.ones(len(cost), dtype=bool)
        for limit in self._limits:
            kept &= limit.excess(amounts) <= 0
        return kept.astype(np.float64)

    def _cost_of(self, compression: Any) -> Any:
        if np.any(np.asarray(compression) <= 0):
            raise ValueError("compression")
        return self._subject.problem.cost.reference / compression

    def _figures(self, record: dict[str, Any], rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], ...]:
        """Retention, cost and whether measured in full, of these rows."""
        population, subject = record["population"], self._subject
        whole = np.ones(len(rows))
        if "genes" not in population:
            retention, compression = np.array([population["retention"], population["compression"]], dtype=np.float64)
            return retention[rows], self._cost_of(compression[rows]), whole
        allocations = self._allocations([population["genes"][row] for row in rows.tolist()])
        cost = cost_sums(subject.problem, allocations).astype(np.float64)
        if "measured" not in record:
            return subject.retention_of(allocations), cost, whole
        known = measurements_of(record)
        found = [known[row] for row in rows.tolist()]
        retention = np.array([one.get("retention") for one in found], dtype=np.float64)
        whole = np.array([one["status"] != "censored" for one in found], dtype=np.float64)
        return retention, cost, whole

    def _allocations(self, listed: Sequence[Sequence[float]]) -> NDArray[np.int8]:
        """`(n, units)` of rows of genes; equal rows, such as elites, are decoded once."""
        if self.space is None:
            self.space = space_of(self._run)
        genes = genes_of(self._run, self.space, listed)
        distinct, inverse = np.unique(genes, axis=0, return_inverse=True)
        problem = self._subject.problem
        if self.space.kind == "tree":  # each is checked when it is decoded; compiled code trusts what it gets
            allocations = np.stack([self.space.decode(row).allocate(problem) for row in distinct])
        else:
            allocations = self.space.allocate(distinct, problem)
        return allocations[inverse.reshape(-1)]

    def made(self, asked: int) -> Points:
        """The points, of so many candidates asked in all."""
        columns = np.concatenate(self._columns, axis=1) if self._columns else np.empty((6, 0))
        generation, retention, cost, fitness, whole, within = columns
        subject = self._subject
        bits = subject.bits_of(cost)
        kept = goal_of(self._run, subject).met(retention, bits) & (within > 0)
        arrays = (
            generation.astype(np.int64),
            retention,
            subject.compression_of(cost),
            bits,
            fitness,
            kept,
            whole > 0,
        )
        generations, compared, compression, widths, values, feasible, full = (frozen(array) for array in arrays)
        return Points(
            generations,
            compared,
            compression,
            widths,
            values,
            feasible,
            full,
            subject.label,
            subject.measured,
            asked,
            self._failed,
            self._note(len(generation), asked),
        )

    def _note(self, shown: int, asked: int) -> str:
        said = []
        generations = len(self._run.journal)
        if shown < asked:
            said.append(f"{shown:,} of {asked:,} candidates")
        if len(self._shown) < generations:
            said.append(f"{len(self._shown)} of {generations:,} generations, evenly spaced")
        if self._failed:
            said.append(f"{self._failed:,} failed and have no retention")
        if self._elsewhere:
            said.append(f"{self._elsewhere:,} were judged on another model")
        if self._subject.problem.own_cost:
            name = self._subject.problem.cost.name
            said.append(f"compression is of {name}, FP32 / this")
        if self._unlisted:
            said.append(f"of {self._unlisted:,} large populations the journal lists the best alone")
        return "; ".join(said)


def _judged_on(config: CampaignConfig) -> list[list[str]]:
    """For each generation of a replay the model that each candidate is judged on; empty for a search."""
    if not isinstance(config.search, ReplayConfig):
        return []
    return [[candidate.data for candidate in row] for row in replay_plan(config)]


def _evenly(count: int, most: int) -> NDArray[np.intp]:
    """Indices of at most so many of `count`, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.intp))


def measurements_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of each candidate, in order."""
    known = record["measured"]["measurements"]
    found = [known[digest] for digest in record["measured"]["allocations"]]
    if len(found) != record["population"]["size"]:
        raise ValueError(len(found))
    return found
