"""Retention by an estimator of one's own, as the whole numbers that the separable one gives.

So everything above is the same: sums travel from workers, and one function in the driver makes retention of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, shown_value
from evoquant.scoring.problem import LOSS_UNITS
from evoquant.scoring.separable import loss_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem
    from evoquant.scoring.protocol import RetentionModel

LEAST = 2.0**-30  # retention below this counts as this
UNKNOWN = np.iinfo(np.int64).min
"""Stands for the loss of an allocation whose retention is no number from 0 up."""


def losses_of(problem: Problem, allocations: NDArray[np.int8], model: RetentionModel | None) -> NDArray[np.int64]:
    """`(n,)` losses of `(n, units)` allocations: the separable ones, or those of an estimator of one's own."""
    return loss_sums(problem, allocations) if model is None else estimated_losses(model, problem, allocations)


def estimated_losses(model: RetentionModel, problem: Problem, allocations: NDArray[np.int8]) -> NDArray[np.int64]:
    """`(n,)` −ln(retention) of `(n, units)` allocations, in units of 2^−40; `UNKNOWN` where that is no number.

    Raises:
        InputError: what the estimator gave is no `(n,)` array of numbers.
    """
    read_only = allocations.view()
    read_only.setflags(write=False)
    retention: Any = model.retention(problem, read_only)
    n = len(allocations)
    if not isinstance(retention, np.ndarray) or retention.shape != (n,) or retention.dtype.kind != "f":
        kind = isinstance(retention, np.ndarray)
        got = f"{retention.dtype} {retention.shape}" if kind else shown_value(retention)
        raise InputError(
            f"estimator: retention() of {type(model).__name__} should give float64 of shape (n,) = ({n},) (got {got}); "
            f"evoquant.testing.check_estimator tries it."
        )
    values = retention.astype(np.float64)
    known = np.isfinite(values) & (values >= 0.0)
    losses = np.rint(-np.log(np.maximum(np.where(known, values, 1.0), LEAST)) * LOSS_UNITS).astype(np.int64)
    return np.where(known, losses, UNKNOWN)
