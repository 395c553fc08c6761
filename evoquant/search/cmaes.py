"""CMA-ES with margin on the numbers of a rule, restarted with a larger population whenever it converges.

Hamano, Saito, Nomura & Shirakawa, CMA-ES with margin: lower-bounding marginal probability for mixed-integer black-box
optimization, GECCO 2022 (`CMAwM` of the package `cmaes`); Auger & Hansen, A restart CMA evolution strategy with
increasing population size, CEC 2005. Fractions and thresholds are continuous, thresholds on a log scale; flags,
options and widths are integers. Every gene is scaled to [0, 1].
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.genomes.base import NumericOperators, tidy
from evoquant.rng import generator_for
from evoquant.search.base import FAILED, NO_PARENT, CandidateBatch, EvaluationBatch, Turn
from evoquant.search.unit import from_unit, is_number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from evoquant.genomes.base import Space

LARGEST_GROWTH = 16  # restarts grow the population at most so many times the first


@dataclass(frozen=True)
class CmaesSettings:
    """Settings of `CmaesSearch`.

    Attributes:
        population: of the first start; by default CMA-ES's own 4 + ⌊3 ln genes⌋.
        sigma: first standard deviation, as a share of each gene's range.
        growth: factor of the population at a restart; 1 restarts with the same.
    """

    population: int | None = None
    sigma: float = 0.3
    growth: float = 2.0


class CmaesSearch:
    """Maximises fitness; a failed candidate ranks below all others. See the module's docstring.

    The state holds the values told since the last restart and not the distribution: `restore` asks and tells them
    again, which gives the same numbers without saving the package's objects.
    """

    def __init__(self, space: Space, *, seed: int, settings: CmaesSettings | None = None) -> None:
        if not isinstance(space, NumericOperators):
            raise InputError(
                f"search.kind: cmaes varies numbers, and {space.kind} genomes are none; use it with genome.kind: rule "
                f"or direct, or search with genetic, map_elites or islands."
            )
        self.space = space
        self._seed = seed
        self._settings = settings or CmaesSettings()
        self._varied = tuple(j for j, gene in enumerate(space.genes) if gene.high > gene.low)
        if len(self._varied) < 2:
            raise InputError(
                f"search.kind: cmaes needs at least 2 genes that can vary, these genomes have {len(self._varied)}; "
                f"use search.kind: genetic."
            )
        self._next_id = 0
        self._turn = Turn()
        self._start(0)

    def ask(self) -> CandidateBatch:
        """A sample of the current distribution."""
        self._turn.ready()
        encoded = self._sample()
        n = len(encoded)
        self._turn.asked(n)
        genes = np.tile([gene.low for gene in self.space.genes], (n, 1))
        genes[:, self._varied] = from_unit([self.space.genes[j] for j in self._varied], encoded)
        genes = self.space.canonical(tidy(self.space.genes, genes))
        parents = np.full((n, 2), NO_PARENT, dtype=np.int64)
        return CandidateBatch(self._next_id, parents, ("cmaes",) * n, genes=genes)

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Move the distribution; start again where it has converged."""
        self._turn.told(len(evaluations))
        ok = (evaluations.status != FAILED) & np.isfinite(evaluations.fitness)  # an estimate ranks too
        values = None
        if ok.any():
            worst = float(-evaluations.fitness[ok].min()) + 1.0
            values = np.where(ok, -np.where(ok, evaluations.fitness, 0.0), worst).tolist()
        self._next_id += len(evaluations)
        self._tell(values)
        if self._converged():
            self._start(self._restarts + 1)

    def done(self) -> bool:
        """Never: the campaign decides."""
        return False

    def state(self) -> dict[str, Any]:
        """Restarts, and what has been told since the last one, generation by generation; None where all failed."""
        self._turn.settled()
        return {"next_id": self._next_id, "restarts": self._restarts, "told": list(self._told)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state: sample and tell again what was told since the last restart."""
        self._next_id = int(state["next_id"])
        self._start(int(state["restarts"]))
        for values in state["told"]:
            self._sample()
            self._tell(values)

    def _start(self, restart: int) -> None:
        from cmaes import CMAwM

        genes = [self.space.genes[j] for j in self._varied]
        rng = generator_for(self._seed, restart, "cmaes")
        first = self._settings.population or 4 + int(3 * np.log(len(genes)))
        self._restarts = restart
        self._told: list[list[float] | None] = []
        self._points: list[NDArray[np.float64]] = []
        self._cma = CMAwM(
            mean=rng.random(len(genes)),
            sigma=self._settings.sigma,
            bounds=np.tile([0.0, 1.0], (len(genes), 1)),
            steps=np.array([0.0 if is_number(g) else 1.0 / (g.high - g.low) for g in genes]),
            seed=int(rng.integers(2**32)),
            population_size=int(first * min(self._settings.growth**restart, LARGEST_GROWTH)),
        )

    def _sample(self) -> NDArray[np.float64]:
        with one_thread():
            pairs = [self._cma.ask() for _ in range(self._cma.population_size)]
        self._points = [raw for _, raw in pairs]
        return np.array([encoded for encoded, _ in pairs], dtype=np.float64)

    def _tell(self, values: list[float] | None) -> None:
        self._told.append(values)
        if values is not None:  # a generation that failed whole says nothing about where to go
            with one_thread():
                self._cma.tell(list(zip(self._points, values, strict=True)))

    def _converged(self) -> bool:
        """The package's criteria, or no better value in 10 + ⌈30 n / λ⌉ generations (cf. Auger & Hansen, 2005).

        The margin keeps integers moving, so that the spread of values alone never ends a start.
        """
        best = [min(values) for values in self._told if values is not None]
        patience = 10 + int(np.ceil(30 * len(self._varied) / self._cma.population_size))
        stagnant = len(best) > patience and min(best[-patience:]) >= min(best[:-patience])
        with one_thread():
            return stagnant or (len(best) > 0 and bool(self._cma.should_stop()))


def one_thread() -> AbstractContextManager[object]:
    """A context in which linear algebra runs in one thread: with more, its last bits depend on their number."""
    limits: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _libraries() -> Any:
    """The linear algebra libraries of this process; looking for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
