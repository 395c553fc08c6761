"""Search with few measurements: a model of the measured loss is searched to convergence between two of them.

Bayesian optimisation (Jones, Schonlau & Welch, Efficient global optimization of expensive black-box functions, J. of
Global Optimization 13, 1998): measure where the expected improvement of the objective is largest, learn, repeat. The
model starts from the table of Fisher costs, so that the first measurements already lie along its front, where the
objective's best trade is; see `surrogate_model`. The expected improvement is maximised by evolution over the genomes of
the space; for direct genomes from the vertices of the model's own front, with moves that widen one unit and narrow
another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.genomes.direct import DirectSpace
from evoquant.rng import generator_for
from evoquant.scoring.objective import amounts_of, fitness_of
from evoquant.scoring.separable import all_cost_sums
from evoquant.search.base import FAILED, NO_PARENT, OK, CandidateBatch, EvaluationBatch
from evoquant.search.generational import Generational
from evoquant.search.level_switch import LevelSwitchSettings, offspring
from evoquant.search.surrogate_model import Measured, SurrogateModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem

TABLES = ("fisher", "divergence", "loss")
SMALLEST_RETENTION = 0.02
NODES = 16  # of the quantiles over which improvement is averaged
PRICES = 96  # of bits, along the model's front
BARREN = 6  # turns without a new allocation after which a space counts as exhausted
PATIENCE = 3  # rounds without a better candidate after which an evolution has converged
MODELLED = 256  # measurements that the model is made of, those of like loss: elsewhere nothing is looked for


@dataclass(frozen=True)
class SurrogateSettings:
    """Settings of `SurrogateSearch`.

    Attributes:
        batch: candidates measured between two fits of the model.
        population: of the evolution that maximises the expected improvement.
        rounds: the most generations of that evolution.
    """

    batch: int = 2
    population: int = 64
    rounds: int = 20


class SurrogateSearch(Generational):
    """See the module's docstring."""

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        problem: Problem,
        objective: Objective,
        settings: SurrogateSettings | None = None,
        start: Sequence[Genome] = (),
    ) -> None:
        super().__init__(space, seed, start)
        self._problem = problem
        self._objective = objective
        self._settings = settings or SurrogateSettings()
        self._table = prior_table(problem)
        self._genes: list[list[float]] = []
        self._told: list[dict[str, Any]] = []
        self.patience = BARREN
        self._barren = 0

    def done(self) -> bool:
        """Whether no genome can be found any more that means something new."""
        return self._barren >= self.patience

    def _propose(self) -> CandidateBatch:
        started = self._beginning()
        if started:
            rows = np.stack([self.space.encode(genome) for genome in started])
        else:
            with _one_thread():
                rows = self._choose()
        ids = np.full((len(rows), 2), NO_PARENT, dtype=np.int64)
        operators = ("start" if started else "surrogate",) * len(rows)
        return CandidateBatch(self._next_id, ids, operators, genes=self.space.canonical(rows))

    def _learn(self, first_id: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        self.take_in(genes, evaluations)

    def take_in(self, genes: NDArray[np.float64], evaluations: EvaluationBatch, *, chosen: bool = True) -> None:
        """Remember what was measured, and which candidates failed: these teach nothing and are not asked for again.

        Those that were not chosen here but given to begin with say nothing of whether there is anything new.
        """
        errors, divergence = evaluations.standard_error, evaluations.divergence
        new = 0
        known = {tuple(told["widths"]) for told in self._told}
        allocations = self.space.allocate(genes, self._problem)
        for row, status in enumerate(evaluations.status.tolist()):
            retention = float(evaluations.retention[row, 0])
            failed = status == FAILED or np.isnan(retention)
            if np.isnan(retention) and status != FAILED:
                continue  # not measured at all
            loss = None if failed else -float(np.log(max(retention, SMALLEST_RETENTION)))
            error = 0.0 if failed or errors is None else float(errors[row]) / max(retention, SMALLEST_RETENTION)
            told = {
                "widths": allocations[row].tolist(),
                "loss": loss,
                "error": error,
                "divergence": None if failed or divergence is None else _finite(float(divergence[row])),
                "complete": status == OK and not failed,
            }
            new += tuple(told["widths"]) not in known
            self._told.append(told)
            self._genes.append(genes[row].tolist())
        self._barren = 0 if new else self._barren + chosen

    def state(self) -> dict[str, Any]:
        """Counters and everything told."""
        return self._counters() | {"genes": [*self._genes], "told": [*self._told], "barren": self._barren}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._restore_counters(state)
        self._genes = [list(row) for row in state["genes"]]
        self._told = [dict(told) for told in state["told"]]
        self._barren = int(state["barren"])

    def _measured(self) -> Measured:
        told = [one for one in self._told if one["loss"] is not None]
        units = len(self._problem.units)
        return Measured(
            np.array([one["widths"] for one in told], dtype=np.int8).reshape(-1, units),
            np.array([one["loss"] for one in told], dtype=np.float64),
            np.array([one["error"] for one in told], dtype=np.float64),
            np.array([np.nan if one["divergence"] is None else one["divergence"] for one in told], dtype=np.float64),
        )

    def _choose(self) -> NDArray[np.float64]:
        """`(batch, genes)` of the largest expected improvement, each as if the one before had come out as expected."""
        rng = generator_for(self._seed, self._generation, "surrogate")
        measured = self._measured()
        chosen: list[NDArray[np.float64]] = []
        while len(chosen) < self._settings.batch:
            row, allocation, model = self._next(measured, rng)
            chosen.append(row)
            if len(chosen) < self._settings.batch:
                loss, _ = model.predict(allocation[None])
                measured = _believe(measured, allocation[None], loss)
        return np.stack(chosen)

    def choose_beside(self, pending: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """`(genes,)` of the largest expected improvement, as if those pending had come out as expected.

        Args:
            pending: `(n, genes)` asked for and not told yet.
            rng: where the draws come from.
        """
        measured = self._measured()
        with _one_thread():
            if len(pending):
                allocations = self.space.allocate(pending, self._problem)
                model = SurrogateModel(self._table)
                model.fit(_nearest(measured, self._complete(measured)))
                measured = _believe(measured, allocations, model.predict(allocations)[0])
            row, _, _ = self._next(measured, rng)
        return row

    def _next(
        self, measured: Measured, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.int8], SurrogateModel]:
        """One genome of the largest expected improvement, its allocation, and the model that expects it.

        Args:
            measured: what was told, and after it what is believed.
            rng: where the draws come from.
        """
        complete = self._complete(measured)
        failed = {np.array(one["widths"], dtype=np.int8).tobytes() for one in self._told if one["loss"] is None}
        model = SurrogateModel(self._table)
        model.fit(_nearest(measured, complete))
        goal = _Goal(model, self._problem, self._objective, measured, complete, failed)
        return (*self._best(goal, rng), model)

    def _complete(self, measured: Measured) -> NDArray[np.bool_]:
        """`(n,)` which were measured in full; those believed were not."""
        told = [one["complete"] for one in self._told if one["loss"] is not None]
        return np.array(told + [False] * (len(measured.loss) - len(told)), dtype=bool)

    def _best(self, goal: _Goal, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """The genome of the largest expected improvement that an evolution over the space finds, and its allocation."""
        size = self._settings.population
        genes = self._pool(goal, rng)
        allocations = self.space.allocate(genes, self._problem)
        value = goal(allocations)
        idle, best = 0, -np.inf
        for _ in range(self._settings.rounds):
            keep = _distinct_best(allocations, value, size)
            genes, allocations, value = genes[keep], allocations[keep], value[keep]
            idle = idle + 1 if value[0] <= best else 0
            best = max(best, float(value[0]))
            if idle >= PATIENCE:
                break
            made = self._children(genes, rng)
            new = self.space.allocate(made, self._problem)
            genes, allocations = np.concatenate([genes, made]), np.concatenate([allocations, new])
            value = np.concatenate([value, goal(new)])
        top = int(_distinct_best(allocations, value, 1)[0])
        return genes[top], allocations[top]

    def _pool(self, goal: _Goal, rng: np.random.Generator) -> NDArray[np.float64]:
        """Where the evolution starts: what was measured, random genomes, and the vertices of fronts."""
        size = self._settings.population
        rows = [self.space.sample(rng, size)]
        told = [row for row, one in zip(self._genes, self._told, strict=True) if one["loss"] is not None]
        if told:
            order = np.argsort(-goal.expected, kind="stable")[: size // 2]
            rows.append(np.array(told, dtype=np.float64)[order[order < len(told)]])
        if isinstance(self.space, DirectSpace):
            tables = [goal.model.table]
            if goal.incumbent is not None:
                tables.append(goal.model.unit_table(goal.incumbent))
            rows += [front_vertices(table, self._problem).astype(np.float64) for table in tables]
        return self.space.canonical(np.concatenate(rows))

    def _children(self, parents: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        size = self._settings.population
        places = np.minimum(rng.integers(0, len(parents), (2, size)), rng.integers(0, len(parents), (2, size)))
        first, second = parents[places[0]], parents[places[1]]
        crossed = np.where((rng.random(size) < 0.5)[:, None], self.space.cross(first, second, rng), first)
        if not isinstance(self.space, DirectSpace):
            return self.space.canonical(self.space.mutate(crossed, 0.15, rng))
        moved, _ = offspring(self.space, crossed, LevelSwitchSettings(moves=3, step_rate=0.5), rng)
        return self.space.canonical(np.concatenate([moved, _steps(self.space, parents[:1])]))


class _Goal:
    """Expected improvement of an allocation over the best that is known; measured ones have none."""

    def __init__(
        self,
        model: SurrogateModel,
        problem: Problem,
        objective: Objective,
        measured: Measured,
        complete: NDArray[np.bool_],
        failed: set[bytes],
    ) -> None:
        self.model = model
        self._problem = problem
        self._objective = objective
        self._known = failed | {row.tobytes() for row in measured.allocations}
        self.expected = self.fitness(measured.allocations).mean(axis=1) if len(measured.loss) else np.empty(0)
        self.incumbent: NDArray[np.int8] | None = None
        self.best = -np.inf
        if complete.any():
            place = int(np.argmax(np.where(complete, self.expected, -np.inf)))
            self.incumbent, self.best = measured.allocations[place], float(self.expected[place])

    def __call__(self, allocations: NDArray[np.int8]) -> NDArray[np.float64]:
        fitness = self.fitness(allocations)
        gain = fitness - self.best if np.isfinite(self.best) else fitness
        value = np.maximum(gain, 0.0).mean(axis=1) + 1e-6 * fitness.mean(axis=1)
        known = np.fromiter((row.tobytes() in self._known for row in allocations), dtype=bool, count=len(allocations))
        value[known] = -np.inf
        return np.asarray(value, dtype=np.float64)

    def fitness(self, allocations: NDArray[np.int8]) -> NDArray[np.float64]:
        """`(n, NODES)` fitness at quantiles of the predicted retention."""
        from scipy.special import ndtri

        quantiles = ndtri((np.arange(NODES) + 0.5) / NODES)
        mean, deviation = self.model.predict(allocations)
        retention = np.clip(np.exp(-(mean[:, None] + deviation[:, None] * quantiles)), 0.0, 1.0)
        found = all_cost_sums(self._problem, allocations)
        costs = found if found.ndim == 1 else found[:, 0]
        compression = self._problem.cost.reference / costs.astype(np.float64)
        bits = (costs - self._problem.cost.constant) / (self._problem.weights * self._problem.bit)
        shape = retention.shape
        smaller, size = (np.broadcast_to(column[:, None], shape) for column in (compression, bits))
        seen = amounts_of((self._problem,), found[:, None])
        named: dict[str, NDArray[Any]] = {name: np.broadcast_to(one, shape) for name, one in seen.items()}
        return fitness_of(self._objective, retention, smaller, size, named)


def prior_table(problem: Problem) -> NDArray[np.float64]:
    """`(units, P)` divergences to begin with: Fisher costs, else measured divergences, else losses.

    Raises:
        InputError: the profile has none of them for every width.
    """
    names = problem.menu.names
    for signal in TABLES:
        known = problem.widths.get(signal, {})
        zero = np.zeros(len(problem.units))
        columns = [known.get(name, zero if name == "FP32" else None) for name in names]
        if all(column is not None for column in columns):
            return np.stack([np.asarray(column) for column in columns], axis=1)
    raise InputError(
        f"search.kind: surrogate starts from a table of {' or '.join(TABLES)} for every width, and the profile of "
        f"{problem.name!r} has none for {', '.join(names)}; measure signals: [fisher]."
    )


def front_vertices(table: NDArray[np.float64], problem: Problem) -> NDArray[np.int8]:
    """Allocations that minimise table + price · bits, for prices from nothing to more than any width is worth.

    The vertices of the convex front of a separable table (Shoham & Gersho, IEEE Trans. ASSP 36(9), 1988).
    """
    cost = problem.cost.table / problem.bit
    forbidden = np.where(problem.allowed, 0.0, np.inf)
    saved = np.abs(cost[:, 1:] - cost[:, :-1]).ravel()
    rise = np.abs(table[:, :-1] - table[:, 1:]).ravel()[saved > 0] / saved[saved > 0]
    positive = rise[rise > 0]
    if not len(positive):
        return np.asarray(np.argmin(cost + forbidden, axis=1)[None], dtype=np.int8)
    prices = np.geomspace(positive.min() / 2.0, positive.max() * 2.0, PRICES)
    totals = table[None] + prices[:, None, None] * cost[None] + forbidden[None]
    vertices: NDArray[np.int8] = np.unique(totals.argmin(axis=2).astype(np.int8), axis=0)
    return vertices


def _steps(space: DirectSpace, parents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every single step of every unit, up and down."""
    units = parents.shape[1]
    rows = []
    for up in (True, False):
        moved = space.levels(parents, up=up)
        trials = np.repeat(parents[:, None], units, axis=1)
        trials[:, np.arange(units), np.arange(units)] = moved
        rows.append(trials.reshape(-1, units))
    return np.concatenate(rows)


def _distinct_best(allocations: NDArray[np.int8], value: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Rows of the `count` largest values, best first, none twice; earlier rows first among equals."""
    order = np.argsort(-value, kind="stable")
    seen: set[bytes] = set()
    kept = []
    for row in order.tolist():
        key = allocations[row].tobytes()
        if key not in seen:
            seen.add(key)
            kept.append(row)
            if len(kept) == count:
                break
    return np.array(kept, dtype=np.intp)


def _nearest(measured: Measured, complete: NDArray[np.bool_]) -> Measured:
    """The `MODELLED` measurements whose loss is nearest the median of the complete ones', all while there are few."""
    if len(measured.loss) <= MODELLED:
        return measured
    middle = float(np.median(measured.loss[complete])) if complete.any() else 0.0
    keep = np.sort(np.argsort(np.abs(measured.loss - middle), kind="stable")[:MODELLED])
    return Measured(
        measured.allocations[keep], measured.loss[keep], measured.standard_error[keep], measured.divergence[keep]
    )


def _believe(measured: Measured, allocations: NDArray[np.int8], losses: NDArray[np.float64]) -> Measured:
    return replace(
        measured,
        allocations=np.concatenate([measured.allocations, allocations]),
        loss=np.concatenate([measured.loss, losses]),
        standard_error=np.concatenate([measured.standard_error, np.zeros(len(losses))]),
        divergence=np.concatenate([measured.divergence, np.full(len(losses), np.nan)]),
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _one_thread() -> AbstractContextManager[Any]:
    """One BLAS thread: the order of float sums, and so the last bit, depends on how many there are."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
