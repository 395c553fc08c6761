"""Conformance of estimators of retention: what workers, finalists and resumed campaigns rely on.

check_estimator(MyEstimator(strength=2.0))
check_estimator(MyEstimator(), problem)          on a model that has what it reads
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from evoquant.rng import generator_for
from evoquant.testing.clauses import no_global_randomness, require, run_checks
from evoquant.testing.examples import example_problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem
    from evoquant.scoring.protocol import RetentionModel

ALLOCATIONS = 33


def check_estimator(
    estimator: RetentionModel, problem: Problem | None = None, *, may_fail: bool = False, seed: int = 0
) -> None:
    """Put an estimator of retention through all that the protocol promises.

    Args:
        estimator: made, with its options; asked as `estimator.retention(problem, allocations)`.
        problem: a model that has the signals it reads; by default the published test model, with and without forbidden
            widths and layers that share theirs.
        may_fail: that it says NaN, or less than 0, of some allocations is meant: campaigns count them as failed.
        seed: of the random allocations.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    problems = (example_problem(), example_problem(restricted=True)) if problem is None else (problem,)
    for one in problems:
        allocations = random_allocations(one, seed)
        checks = (check_arguments, check_shape, check_alone, check_travel)
        run_checks(checks if may_fail else (*checks, check_values), estimator, one, allocations)


def random_allocations(problem: Problem, seed: int = 0) -> NDArray[np.int8]:
    """`(n, units)` allowed menu indices: uniform narrowest and widest first, then random ones, one of them twice."""
    rng = generator_for(seed, 0, "conformance")
    shape = (ALLOCATIONS, len(problem.units))
    drawn = rng.integers(0, len(problem.menu), shape).astype(np.int8)
    drawn[0], drawn[1] = 0, len(problem.menu) - 1
    drawn[-1] = drawn[2]
    return problem.repair(drawn)


def check_shape(estimator: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> None:
    """`(n,)` float64, one number an allocation, also of one and of none."""
    for rows in (len(allocations), 1, 0):
        _estimated(estimator, problem, allocations[:rows])


def check_values(estimator: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> None:
    """Every allowed allocation has a finite retention from 0 up; anything else is a failed candidate."""
    retention = _estimated(estimator, problem, allocations)
    require(np.isfinite(retention).all(), f"retention: not all are finite: {retention[~np.isfinite(retention)][:3]}")
    require((retention >= 0).all(), f"retention: {retention.min(initial=0):g} is below 0")


def check_arguments(estimator: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> None:
    """Allocations stay as they are, also where they are read-only; the same gives the same, at any time."""
    before = allocations.copy()
    with no_global_randomness("the estimator"):
        first = _estimated(estimator, problem, allocations).copy()
    require(np.array_equal(allocations, before), "retention: changes its argument allocations")
    again = _estimated(estimator, problem, allocations)
    require(
        np.array_equal(again, first, equal_nan=True), "retention: the same allocations have another one the second time"
    )
    frozen = allocations.copy()
    frozen.flags.writeable = False
    try:
        _estimated(estimator, problem, frozen)
    except ValueError as error:
        require("read-only" not in str(error), "retention: writes into its argument allocations")
        raise


def check_alone(estimator: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> None:
    """An allocation's retention is its own, to the last bit: workers cut batches as their number has it."""
    whole = _estimated(estimator, problem, allocations)
    clause = "retention: depends on the batch: an allocation has another one "
    backwards = _estimated(estimator, problem, allocations[::-1])
    require(np.array_equal(backwards[::-1], whole, equal_nan=True), clause + "in another order of the batch")
    for row in range(len(allocations)):
        alone = _estimated(estimator, problem, allocations[row : row + 1])
        require(
            np.array_equal(alone, whole[row : row + 1], equal_nan=True),
            clause + f"by itself ({alone[0]!r}) than among others ({whole[row]!r})",
        )
    for parts in (2, 3):
        pieces = [_estimated(estimator, problem, part) for part in np.array_split(allocations, parts)]
        require(
            np.array_equal(np.concatenate(pieces), whole, equal_nan=True),
            clause + f"where the batch is cut into {parts}",
        )


def check_travel(estimator: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> None:
    """An estimator can be copied to another process, and says the same there, whatever it was asked before."""
    try:
        copied = copy.deepcopy(estimator)
    except Exception as error:
        require(False, f"the estimator cannot be copied to a worker: {error}")
    here, there = _estimated(estimator, problem, allocations), _estimated(copied, problem, allocations)
    require(
        np.array_equal(there, here, equal_nan=True),
        "retention: a copy of the estimator, as a worker gets one, says something else",
    )


def _estimated(estimator: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> NDArray[np.float64]:
    retention: NDArray[np.float64] = estimator.retention(problem, allocations)
    require(isinstance(retention, np.ndarray), f"retention: a {type(retention).__name__}, not an array")
    expected = (len(allocations),)
    require(retention.shape == expected, f"retention: shape {retention.shape}, expected (n,) = {expected}")
    require(retention.dtype == np.float64, f"retention: {retention.dtype}, not float64")
    return retention
