"""Any algorithm of pymoo as a search: by fitness, or for the front of retention and effective bits.

Blank & Deb, pymoo: multi-objective optimization in Python, IEEE Access 8, 2020. Genes are numbers in [0, 1]; flags,
options and widths are rounded, before pymoo looks for duplicates where an algorithm can repair. MixedVariableGA alone
varies options as categories and flags and widths as whole numbers. A failed candidate is worse than every other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.search.front import Front
from evoquant.search.outside import Outside, Told
from evoquant.search.outside_names import BY_FITNESS, FRONTS
from evoquant.search.unit import from_mixed, from_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT = 1000  # of a front


@dataclass(frozen=True)
class PymooSettings:
    """Settings of `PymooSearch`.

    Attributes:
        algorithm: a name of `outside_names.BY_FITNESS` or `FRONTS`, or a class like those.
        options: what it is made with, such as pop_size.
        front: look for the front of retention and effective bits, as those of `FRONTS` always do.
        floor: of retention on the front, a constraint.
    """

    algorithm: str | type = "GA"
    options: Mapping[str, Any] = field(default_factory=dict)
    front: bool = False
    floor: float = 0.0


class PymooSearch(Outside[PymooSettings]):
    """See the module's docstring."""

    kind = package = "pymoo"
    part, names = "algorithm", BY_FITNESS | FRONTS
    defaults = PymooSettings()

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` the nondominated of the front at or above the floor, from the fewest effective bits."""
        self._turn.settled()
        return self._found.genes.copy()

    def _make(self, restart: int) -> None:
        from pymoo.algorithms.base.local import LocalSearch
        from pymoo.core.termination import NoTermination

        from evoquant.search.pymoo_parts import MIXED, options_of, problem_of

        if restart == 0:
            self._front = self._settings.front or self._settings.algorithm in FRONTS
            self.reads = ("fitness", "retention", "effective_bits") if self._front else ("fitness",)
            self._floored = self._front and self._settings.floor > 0  # some algorithms take no constraint
            self._worst = np.zeros(2 if self._front else 1)
            self._found = Front(len(self.space.genes), KEPT)
        self._restart = restart
        made = self._class()
        self._mixed = made.__name__ == MIXED
        self._problem = problem_of(self._genes, len(self._worst), int(self._floored), self._mixed)
        start, rng = self._start[: None if restart == 0 else 0], generator_for(self._seed, 0, "sample")
        # As pymoo's own minimize does: parts that are default arguments are shared, and some remember things.
        self._algorithm = copy.deepcopy(made(**options_of(made, self._settings.options, self._genes, start, rng)))
        if not isinstance(self._algorithm, LocalSearch):  # which alone know when they have converged
            self._algorithm.termination = NoTermination()
        self._algorithm.setup(self._problem, seed=self._seed_of(restart), verbose=False)

    def _sample(self) -> NDArray[np.float64]:
        from pymoo.core.population import Population

        asked = self._algorithm.ask() if self._algorithm.has_next() else None
        if asked is None or (isinstance(asked, Population) and len(asked) == 0):
            self._make(self._restart + 1)
            asked = self._algorithm.ask()
        self._infills = asked
        self._population = population = asked if isinstance(asked, Population) else Population.create(asked)
        if self._mixed:
            rows = [[one[str(j)] for j in range(len(self._genes))] for one in population.get("X")]
            return from_mixed(self._genes, np.array(rows, dtype=np.float64))
        return from_unit(self._genes, np.clip(population.get("X").astype(np.float64), 0.0, 1.0))

    def _learn(self, told: Told, whole: NDArray[np.bool_]) -> None:
        values = np.column_stack([-told["retention"], told["effective_bits"]] if self._front else [-told["fitness"]])
        ok: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        if ok.any():
            self._worst = np.maximum(self._worst, values[ok].max(axis=0))
        self._population.set("F", np.where(ok[:, None], values, self._worst + 1.0))
        floor = self._settings.floor
        below = np.where(ok, floor - told["retention"], floor + 1.0) if self._floored else np.zeros(len(ok))
        self._population.set("G", below[:, None][:, : int(self._floored)], "H", np.empty((len(ok), 0)))
        for one in self._population:
            one.evaluated.update(("F", "G", "H"))
        self._algorithm.tell(infills=self._infills)
        if self._front:
            rows = ok & whole & (below <= 0)
            self._found.add(self._asked[rows], np.column_stack([told["retention"], told["effective_bits"]])[rows])
