"""Conformance of objectives: what scoring, racing and surrogates rely on.

check_objective(MyObjective(floor=0.99))
check_objective(MyLimits(), costs=["latency"])    # one that sees several costs, with the names that it reads
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.scoring.protocol import SeesCosts
from evoquant.testing.clauses import ConformanceError, no_global_randomness, require, run_checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.scoring.objective import Objective

    Columns = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

CANDIDATES, MODELS = 40, 3
EDGES = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)  # of retention: the ends, and where floors lie


def check_objective(objective: Objective, *, may_fail: bool = False, seed: int = 0, costs: Sequence[str] = ()) -> None:
    """Put an objective through all that the protocol promises.

    One with `score_costs` is asked that, as campaigns do: its costs, `bits` and `effective_bits` among them, rise with
    the bits.

    Args:
        objective: made, with its options.
        may_fail: that it has no fitness (NaN) for some candidates is meant: campaigns count them as failed.
        seed: of the random columns that it scores.
        costs: names that its `score_costs` reads beside `bits`, `effective_bits` and `cost`.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    if isinstance(objective, SeesCosts):
        objective = _Seeing(objective, costs)
    checks = (check_arguments, check_shape, check_elementwise, check_failed, check_direction, check_floor)
    run_checks(checks if may_fail else (*checks, check_finite), objective, columns(seed))


class _Seeing:
    """An objective over several costs as one of size: its costs follow from the bits, element by element."""

    def __init__(self, objective: SeesCosts, names: Sequence[str]) -> None:
        self._objective = objective
        self._names = tuple(dict.fromkeys(("bits", "cost", *names)))
        if (floor := getattr(objective, "floor", None)) is not None:
            self.floor = floor

    def score(
        self, retention: NDArray[np.float64], compression: NDArray[np.float64], effective_bits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What `score_costs` gives; it must leave what it is given as it is."""
        costs: dict[str, NDArray[Any]] = {
            name: np.rint(effective_bits * 1000 * (place + 1)).astype(np.int64)
            for place, name in enumerate(self._names)
        }
        costs["effective_bits"] = effective_bits.copy()
        kept = {name: amounts.copy() for name, amounts in costs.items()}
        for amounts in costs.values():
            amounts.flags.writeable = False
        try:
            fitness = self._objective.score_costs(retention, compression, effective_bits, costs)
        except KeyError as error:
            raise ConformanceError(f"score_costs: reads {error}; name it in `costs`") from None
        same = set(costs) == set(kept) and all(np.array_equal(costs[name], kept[name]) for name in kept)
        require(same, "score_costs: changes its argument costs")
        return fitness


def columns(seed: int = 0) -> Columns:
    """`(n, models)` retention in [0, 1], compression and effective bits, edges of retention among them."""
    rng = generator_for(seed, 0, "conformance")
    retention = rng.uniform(0.0, 1.0, (CANDIDATES, MODELS))
    retention[: len(EDGES)] = np.array(EDGES)[:, None]
    effective_bits = rng.uniform(2.0, 32.0, (CANDIDATES, MODELS))
    return retention, 32.0 / effective_bits, effective_bits


def check_shape(objective: Objective, given: Columns) -> None:
    """Fitness has the arguments' shape, for any number of candidates and models, and none."""
    for rows in (CANDIDATES, 1, 0):
        for models in (MODELS, 1):
            part = [column[:rows, :models] for column in given]
            _scored(objective, *part)
    _scored(objective, *(column[:, 0] for column in given))


def check_arguments(objective: Objective, given: Columns) -> None:
    """What is scored stays as it is, also where it is read-only; the same gives the same."""
    kept = [column.copy() for column in given]
    with no_global_randomness("score"):
        first = _scored(objective, *(column.copy() for column in given)).copy()
    handed = [column.copy() for column in given]
    again = _scored(objective, *handed)
    for name, column, before in zip(("retention", "compression", "effective_bits"), handed, kept, strict=True):
        require(np.array_equal(column, before), f"score: changes its argument {name}")
    require(np.array_equal(again, first, equal_nan=True), "score: the same columns score differently the second time")
    for column in handed:
        column.flags.writeable = False
    try:
        _scored(objective, *handed)
    except ValueError as error:
        require("read-only" not in str(error), "score: writes into its arguments")
        raise


def check_elementwise(objective: Objective, given: Columns) -> None:
    """A candidate's fitness on a model depends on that candidate and model alone."""
    whole = _scored(objective, *given)
    backwards = _scored(objective, *(column[::-1, ::-1] for column in given))
    clause = "score: not elementwise: a candidate's fitness depends on "
    require(_same(backwards[::-1, ::-1], whole), clause + "its place")
    for row in range(CANDIDATES):
        alone = _scored(objective, *(column[row : row + 1] for column in given))
        require(_same(alone[0], whole[row]), clause + "the candidates beside it")
    for model in range(MODELS):
        alone = _scored(objective, *(column[:, model] for column in given))
        require(_same(alone, whole[:, model]), clause + "the models beside it")


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Equal but for what NumPy's vectorised functions round differently in an array's tail."""
    return np.allclose(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def check_failed(objective: Objective, given: Columns) -> None:
    """A candidate that failed on a model has a retention of NaN there, and changes nothing for the others."""
    retention = given[0].copy()
    retention[1::3] = np.nan
    there = ~np.isnan(retention)
    fitness = _scored(objective, retention, *given[1:])
    same = _same(fitness[there], _scored(objective, *given)[there])
    require(same, "score: a candidate that failed, whose retention is NaN, changes the fitness of another")


def check_finite(objective: Objective, given: Columns) -> None:
    """Fitness is a finite number wherever the columns are."""
    fitness = _scored(objective, *given)
    for row in np.flatnonzero(~np.isfinite(fitness))[:1].tolist():
        retention, compression, bits = (float(column.flat[row]) for column in given)
        where = f"for retention {retention:g}, compression {compression:g}, {bits:g} bits"
        require(False, f"score: {fitness.flat[row]} {where}; what is not finite counts as failed")


def check_direction(objective: Objective, given: Columns) -> None:
    """More is better: all retained at 2 bits is nowhere worse than nothing retained at 32."""
    bits = np.array([2.0, 32.0])
    good, bad = _scored(objective, np.array([1.0, 0.0]), 32.0 / bits, bits)
    require(not good < bad, f"score: less is better: {good:g} for all retained at 2 bits, {bad:g} for nothing at 32")


def check_floor(objective: Objective, given: Columns) -> None:
    """A number called `floor`, where there is one, is a retention: reports and gates draw it."""
    floor = getattr(objective, "floor", None)
    if isinstance(floor, (int, float)):
        require(0.0 <= floor <= 1.0, f"floor: {floor:g} is no retention; it is the least that the objective wants")


def _scored(
    objective: Objective,
    retention: NDArray[np.float64],
    compression: NDArray[np.float64],
    effective_bits: NDArray[np.float64],
) -> NDArray[np.float64]:
    fitness = objective.score(retention, compression, effective_bits)
    require(isinstance(fitness, np.ndarray), f"score: a {type(fitness).__name__}, not an array")
    expected = retention.shape
    require(fitness.shape == expected, f"score: shape {fitness.shape}, expected that of the arguments, {expected}")
    require(fitness.dtype == np.float64, f"score: {fitness.dtype}, not float64")
    return fitness
