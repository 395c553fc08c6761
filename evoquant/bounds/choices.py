"""What each unit may take: allowed widths after pins, those worth taking, and sums turned into fitness."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import PrecisionError, ProfileError, suggestion
from evoquant.files import canonical_json
from evoquant.scoring.objective import score
from evoquant.scoring.separable import all_cost_sums, loss_sums, retention_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.scoring.objective import Objective, Scores
    from evoquant.scoring.problem import Problem


@dataclass(frozen=True, eq=False)
class Choices:
    """A problem's widths as points (cost, loss), smaller being better in both.

    Attributes:
        problem: whose.
        cost: `(units, P)` int64, the problem's cost table.
        loss: `(units, P)` int64.
        allowed: `(units, P)` bool, pins applied.
        useful: `(units, P)` bool: allowed, and no other allowed width is as cheap and loses as little; the narrowest of
            equal ones.
    """

    problem: Problem
    cost: NDArray[np.int64]
    loss: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    useful: NDArray[np.bool_]

    def sums(self, allocation: NDArray[np.int8]) -> tuple[int, int]:
        """Total cost (constant part included) and total loss of one `(units,)` allocation."""
        rows = np.arange(len(allocation))
        return (
            int(self.cost[rows, allocation].sum()) + self.problem.cost.constant,
            int(self.loss[rows, allocation].sum()),
        )


def choices_of(problem: Problem, pins: Mapping[str, str] | None = None) -> Choices:
    """The choices of a problem, some units pinned to a width.

    Args:
        problem: with losses for every width of its menu.
        pins: layer or unit name → precision name; a layer's pin holds for its whole tie group.

    Raises:
        ProfileError: the profile lacks losses; a pin names no layer, a width that its unit must not take, or differs
            from another pin of the same unit.
        PrecisionError: a pin's width is not on the menu.
    """
    loss = problem.separable_loss()
    allowed = _pinned(problem, pins or {})
    return Choices(problem, problem.cost.table, loss, allowed, _undominated(problem.cost.table, loss, allowed))


def scores_of(problem: Problem, objective: Objective, costs: NDArray[np.int64], losses: NDArray[np.int64]) -> Scores:
    """The shared scoring of `(n,)` total costs and losses on one model."""
    return score(objective, (problem,), retention_of(losses)[:, None], costs[:, None])


def scores_at(problem: Problem, objective: Objective, allocations: NDArray[np.int8]) -> Scores:
    """The shared scoring of `(n, units)` allocations on one model, with all that they cost."""
    retention = retention_of(loss_sums(problem, allocations))
    return score(objective, (problem,), retention[:, None], all_cost_sums(problem, allocations)[:, None])


def allocation_digest(problem: Problem, allocation: NDArray[np.int8]) -> str:
    """sha256 of the canonical JSON of the precision names, unit by unit."""
    names = problem.menu.names
    return hashlib.sha256(canonical_json([names[width] for width in allocation.tolist()]).encode()).hexdigest()


def _pinned(problem: Problem, pins: Mapping[str, str]) -> NDArray[np.bool_]:
    unit_of = {name: int(unit) for name, unit in zip(problem.layers, problem.unit_of_layer, strict=True)}
    unit_of |= {name: unit for unit, name in enumerate(problem.units)}
    allowed = problem.allowed.copy()
    for name, width in pins.items():
        if name not in unit_of:
            raise ProfileError(
                f"pin {name}={width}: {problem.name!r} has no layer {name!r}.{suggestion(name, unit_of)}"
            )
        unit = unit_of[name]
        try:
            choice = problem.menu.resolve(width)
        except PrecisionError as error:
            close = suggestion(width, problem.menu.names)
            raise PrecisionError(f"pin {name}={width}: {error}" + ("" if close in str(error) else close)) from None
        if not problem.allowed[unit, choice]:
            names = [p for p, free in zip(problem.menu.names, problem.allowed[unit], strict=True) if free]
            raise ProfileError(
                f"pin {name}={width}: {name!r} may only take {', '.join(names)}; pin it to one of these."
            )
        if not allowed[unit, choice]:
            raise ProfileError(
                f"pin {name}={width}: {problem.units[unit]!r} is pinned to another width already; layers that are tied "
                f"share a width, so pin them once."
            )
        allowed[unit] = False
        allowed[unit, choice] = True
    allowed.setflags(write=False)
    return allowed


def _undominated(cost: NDArray[np.int64], loss: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    useful = allowed.copy()
    widths = np.arange(cost.shape[1])
    for j in widths:
        own_cost, own_loss = cost[:, j, None], loss[:, j, None]
        no_worse = (cost <= own_cost) & (loss <= own_loss) & allowed
        better = (cost < own_cost) | (loss < own_loss) | (widths < j)
        useful[:, j] &= ~(no_worse & better).any(axis=1)
    useful.setflags(write=False)
    return useful
