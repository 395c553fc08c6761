"""Any algorithm of pymoo as a search: by fitness, or for the front of retention and effective bits.

Blank & Deb, pymoo: multi-objective optimization in Python, IEEE Access 8, 2020. Genes are numbers in [0, 1]; flags,
options and widths are rounded, before pymoo looks for duplicates where an algorithm can repair. MixedVariableGA alone
varies options as categories and flags and widths as whole numbers. A failed candidate is worse than every other.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, quoted, suggestion
from evoquant.rng import generator_for
from evoquant.search.cmaes import from_unit
from evoquant.search.nsga2 import nondominated, thinned
from evoquant.search.outside import Outside, Told, accepted, found_class, name_of, snapped, to_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Gene, Genome, Space

NONCONVEX, MOO = "pymoo.algorithms.soo.nonconvex.", "pymoo.algorithms.moo."
BY_FITNESS = {
    **{name: NONCONVEX + name.lower() for name in ("GA", "DE", "PSO", "ES", "CMAES", "SRES", "ISRES", "BRKGA", "NRBO")},
    **{"BIPOPCMAES": NONCONVEX + "cmaes", "EPPSO": NONCONVEX + "pso_ep", "G3PCX": NONCONVEX + "g3pcx"},
    **{
        "NelderMead": NONCONVEX + "nelder",
        "PatternSearch": NONCONVEX + "pattern",
        "MixedVariableGA": "pymoo.core.mixed",
    },
}
FRONTS = {
    **{name: MOO + name.lower() for name in ("NSGA2", "NSGA3", "UNSGA3", "MOEAD", "SPEA2", "CTAEA", "GDE3", "CMOPSO")},
    **{"SMSEMOA": MOO + "sms", "AGEMOEA": MOO + "age", "AGEMOEA2": MOO + "age2", "MOPSO_CD": MOO + "mopso_cd"},
}
POPULATION = 100  # pymoo's own default
KEPT = 1000  # of a front


@dataclass(frozen=True)
class PymooSettings:
    """Settings of `PymooSearch`.

    Attributes:
        algorithm: a name of `BY_FITNESS` or `FRONTS`, or a class like those.
        options: what it is made with, such as pop_size.
        front: look for the front of retention and effective bits, as those of `FRONTS` always do.
        floor: of retention on the front, a constraint.
    """

    algorithm: str | type = "GA"
    options: Mapping[str, Any] = field(default_factory=dict)
    front: bool = False
    floor: float = 0.0


class PymooSearch(Outside):
    """See the module's docstring."""

    kind = package = "pymoo"

    def __init__(
        self, space: Space, *, seed: int, settings: PymooSettings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        self._settings = settings or PymooSettings()
        self._front = self._settings.front or self._settings.algorithm in FRONTS
        self._floored = self._front and self._settings.floor > 0  # some algorithms take no constraint
        if self._front:
            self.reads = ("fitness", "retention", "effective_bits")
        super().__init__(space, seed, start)

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` the nondominated of the front at or above the floor, from the fewest effective bits."""
        self._turn.settled()
        return self._kept.copy()

    def _make(self, restart: int) -> None:
        from pymoo.algorithms.base.local import LocalSearch
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination

        if restart == 0:
            self._worst = np.zeros(2 if self._front else 1)
            self._kept, self._points = np.empty((0, len(self.space.genes))), np.empty((0, 2))
        self._restart = restart
        made = found_class(self._settings.algorithm, BY_FITNESS | FRONTS, "algorithm", self.kind)
        self._mixed = made.__name__ == "MixedVariableGA"
        bounds = {"vars": _variables(self._genes)} if self._mixed else {"n_var": len(self._genes), "xl": 0.0, "xu": 1.0}
        self._problem = Problem(n_obj=len(self._worst), n_ieq_constr=int(self._floored), **bounds)
        # As pymoo's own minimize does: parts that are default arguments are shared, and some remember things.
        self._algorithm = copy.deepcopy(made(**self._options(made)))
        if not isinstance(self._algorithm, LocalSearch):  # which alone know when they have converged
            self._algorithm.termination = NoTermination()
        self._algorithm.setup(self._problem, seed=self._seed_of(restart), verbose=False)

    def _options(self, made: type) -> dict[str, Any]:
        from pymoo.algorithms.base.local import LocalSearch
        from pymoo.util.ref_dirs import get_reference_directions

        options, takes = dict(self._settings.options), accepted(made)
        _check_known(made, options)
        size = int(options.get("pop_size", POPULATION))
        if "ref_dirs" in takes:  # as many as the population, which some do not let be named beside them
            options.pop("pop_size", None)
            options["ref_dirs"] = get_reference_directions("das-dennis", 2, n_partitions=size - 1)
        if self._mixed:
            return options
        if "repair" in takes:
            options["repair"] = _rounding(self._genes)
        if "sampling" in takes and len(self._start) and self._restart == 0:
            random = generator_for(self._seed, 0, "sample").random((size, len(self._genes)))
            first = np.concatenate([to_unit(self._genes, self._start), random])[:size]
            options |= {"x0": first} if issubclass(made, LocalSearch) else {"sampling": _given(first)}
        return options

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
            values = np.array(rows, dtype=np.float64)
            numbers = [j for j, gene in enumerate(self._genes) if gene.kind in ("fraction", "log")]
            values[:, numbers] = from_unit([self._genes[j] for j in numbers], values[:, numbers])
            return values
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
            self._collect(ok & whole & (below <= 0), np.column_stack([told["retention"], told["effective_bits"]]))

    def _collect(self, rows: NDArray[np.bool_], points: NDArray[np.float64]) -> None:
        genes, points = np.concatenate([self._kept, self._asked[rows]]), np.concatenate([self._points, points[rows]])
        kept = thinned(points, nondominated(points), KEPT)
        self._kept, self._points = genes[kept], points[kept]

    def _name(self) -> str:
        return name_of(self._settings.algorithm)


def _check_known(made: type, options: Mapping[str, Any]) -> None:
    """Refuse an option that pymoo would pass over in silence.

    Raises:
        InputError: neither the algorithm nor a part of its module takes it.
    """
    from pymoo.algorithms.soo.nonconvex.cmaes import CMAES

    if issubclass(made, CMAES):  # hands them on to a package that refuses what it does not know
        return
    parts = [one for one in vars(sys.modules[made.__module__]).values() if isinstance(one, type)]
    known = {name for one in (made, *parts) for name in accepted(one)} - {"self", "args", "kwargs"}
    for key in options:
        if key not in known:
            raise InputError(
                f"search.options: pymoo's {made.__name__} has no option {quoted(key)}.{suggestion(key, known)}"
            )


def _variables(genes: Sequence[Gene]) -> dict[str, Any]:
    """Options as categories, numbers in [0, 1], all else as whole numbers."""
    from pymoo.core.variable import Choice, Integer, Real

    def variable(gene: Gene) -> Any:
        if gene.kind in ("fraction", "log"):
            return Real(bounds=(0.0, 1.0))
        low, high = int(gene.low), int(gene.high)
        return Choice(options=list(range(low, high + 1))) if gene.kind == "option" else Integer(bounds=(low, high))

    return {str(j): variable(gene) for j, gene in enumerate(genes)}


def _given(units: NDArray[np.float64]) -> Any:
    from pymoo.core.sampling import Sampling

    class Given(Sampling):  # type: ignore[misc]
        """These rows, whatever is asked for."""

        def _do(self, problem: Any, n_samples: int, **kwargs: Any) -> Any:
            return units

    return Given()


def _rounding(genes: Sequence[Gene]) -> Any:
    from pymoo.core.repair import Repair

    class Rounding(Repair):  # type: ignore[misc]
        """Whole numbers where genes are."""

        def _do(self, problem: Any, X: Any, **kwargs: Any) -> Any:
            return snapped(genes, X)

    return Rounding()
