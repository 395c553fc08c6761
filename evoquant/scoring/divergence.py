"""A network without measured losses as a separable problem: its divergences stand in for them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import ProfileError
from evoquant.scoring.problem import LARGEST_LOSS, LOSS_UNITS, integer_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.scoring.problem import Problem

TABLES = ("divergence", "fisher")  # measured before estimated
MOST = integer_loss(LARGEST_LOSS)


def separable_problem(problem: Problem) -> Problem:
    """The problem itself where it has losses, else `divergence_problem` of it."""
    return problem if problem.loss is not None else divergence_problem(problem)


def divergence_problem(problem: Problem) -> Problem:
    """The problem with −ln(1 − s) := divergence in nats (measured one at a time, else the Fisher cost).

    Divergences of single units add up to that of an allocation nearly (0.95 to 1.10 of it on small networks), losses
    of retention do not. So this table ranks allocations of one size well; what it gives for retention,
    exp(−divergence), is a rough figure, and what comes of it has to be measured.

    Raises:
        ProfileError: the profile has neither for every width of the menu.
    """
    names = [name for name in problem.menu.names if name != "FP32"]
    for kind in TABLES:
        table = problem.widths.get(kind, {})
        if all(name in table for name in names):
            return dataclasses.replace(problem, loss=_integers(table, problem))
    raise ProfileError(
        f"profile {problem.name!r} has no loss, divergence or fisher for every width of {', '.join(names)}; profile it "
        f"with one of these signals."
    )


def _integers(table: Mapping[str, NDArray[np.float64]], problem: Problem) -> NDArray[np.int64]:
    nothing = np.zeros(len(problem.units))
    nats = np.stack([table.get(name, nothing) for name in problem.menu.names], axis=1)
    integers: NDArray[np.int64] = np.minimum(np.rint(nats * LOSS_UNITS), MOST).astype(np.int64)
    integers.setflags(write=False)
    return integers
