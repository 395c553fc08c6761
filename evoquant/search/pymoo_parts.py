"""What pymoo's algorithms are made with: genes as its variables, whole numbers repaired, a first population given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.algorithms.base.local import LocalSearch
from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.variable import Choice, Integer, Real
from pymoo.util.ref_dirs import get_reference_directions

from evoquant.search.outside_names import accepted, check_known
from evoquant.search.unit import is_number, snapped, to_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Gene

POPULATION = 100  # pymoo's own default
MIXED = "MixedVariableGA"  # alone takes variables of several types


class Given(Sampling):  # type: ignore[misc]
    """These `(n, genes)` rows in [0, 1], whatever is asked for."""

    def __init__(self, units: NDArray[np.float64]) -> None:
        super().__init__()
        self._units = units

    def _do(self, problem: Any, n_samples: int, **kwargs: Any) -> NDArray[np.float64]:
        return self._units


class Rounding(Repair):  # type: ignore[misc]
    """Whole numbers where genes are."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        super().__init__()
        self._genes = genes

    def _do(self, problem: Any, X: Any, **kwargs: Any) -> NDArray[np.float64]:
        return snapped(self._genes, X)


def problem_of(genes: Sequence[Gene], objectives: int, constraints: int, mixed: bool) -> Any:
    """These genes as numbers in [0, 1]; `mixed`: options as categories, numbers in [0, 1], all else whole."""

    def variable(gene: Gene) -> Any:
        if is_number(gene):
            return Real(bounds=(0.0, 1.0))
        low, high = int(gene.low), int(gene.high)
        return Choice(options=list(range(low, high + 1))) if gene.kind == "option" else Integer(bounds=(low, high))

    bounds: dict[str, Any] = {"n_var": len(genes), "xl": 0.0, "xu": 1.0}
    if mixed:
        bounds = {"vars": {str(j): variable(gene) for j, gene in enumerate(genes)}}
    return Problem(n_obj=objectives, n_ieq_constr=constraints, **bounds)


def options_of(
    made: type, given: Mapping[str, Any], genes: Sequence[Gene], start: NDArray[np.float64], rng: np.random.Generator
) -> dict[str, Any]:
    """What an algorithm is made with: what a user gave, directions of a front, repair, `(k, genes)` to begin with.

    Raises:
        InputError: it has no option that was given.
    """
    options, takes = dict(given), accepted(made)
    if not issubclass(made, CMAES):  # hands them on to a package that refuses what it does not know
        check_known(made, options, "pymoo")
    size = int(options.get("pop_size", POPULATION))
    if "ref_dirs" in takes:  # as many as the population, which some do not let be named beside them
        options.pop("pop_size", None)
        options["ref_dirs"] = get_reference_directions("das-dennis", 2, n_partitions=size - 1)
    if made.__name__ == MIXED:
        return options
    if "repair" in takes:
        options["repair"] = Rounding(genes)
    if "sampling" in takes and len(start):
        first = np.concatenate([to_unit(genes, start), rng.random((size, len(genes)))])[:size]
        options |= {"x0": first} if issubclass(made, LocalSearch) else {"sampling": Given(first)}
    return options
