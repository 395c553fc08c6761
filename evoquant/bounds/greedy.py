"""The greedy baseline: from the widest, narrow what loses least per bit saved, while the objective improves."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.choices import choices_of, scores_at, scores_of
from evoquant.scoring.protocol import SeesCosts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.bounds.choices import Choices
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem


def greedy(problem: Problem, objective: Objective, *, pins: Mapping[str, str] | None = None) -> NDArray[np.int8]:
    """`(units,)` menu indices of the greedy allocation.

    Every unit starts at its widest allowed width. A step narrows one unit to its next narrower allowed width that
    costs less, namely the unit whose step has the least separable loss per cost saved (of equal ones the first unit).
    Steps are taken while each one strictly raises the fitness; the first that does not ends it, and is not taken, even
    if later ones would raise it again.

    Args:
        problem: with losses for every width of its menu.
        objective: what has to improve.
        pins: layer or unit name → precision name.

    Raises:
        InputError: the profile lacks losses, or a pin cannot be kept.
    """
    choices = choices_of(problem, pins)
    allocation = np.array([np.nonzero(row)[0][-1] for row in choices.allowed], dtype=np.int8)
    cost, loss = choices.sums(allocation)
    steps = _steps(choices, allocation)
    costs = cost - np.cumsum([0, *(saved for _, _, saved, _ in steps)])
    losses = loss + np.cumsum([0, *(lost for _, _, _, lost in steps)])
    if isinstance(objective, SeesCosts):
        path = np.repeat(allocation[None], len(steps) + 1, axis=0)
        for place, (unit, width, _, _) in enumerate(steps):
            path[place + 1 :, unit] = width
        fitness = scores_at(problem, objective, path).fitness
    else:
        fitness = scores_of(problem, objective, costs, losses).fitness
    (worse,) = np.nonzero(~(fitness[1:] > fitness[:-1]))
    for unit, width, _, _ in steps[: int(worse[0]) if len(worse) else len(steps)]:
        allocation[unit] = width
    return allocation


def _steps(choices: Choices, allocation: NDArray[np.int8]) -> list[tuple[int, int, int, int]]:
    """All steps (unit, width, cost saved, loss added) in greedy order; the order does not depend on the objective."""
    allowed, cost, loss = choices.allowed.tolist(), choices.cost.tolist(), choices.loss.tolist()

    def narrower(unit: int, width: int) -> tuple[float, int, int, int, int] | None:
        for next_width in range(width - 1, -1, -1):
            saved = cost[unit][width] - cost[unit][next_width]
            if allowed[unit][next_width] and saved > 0:
                lost = loss[unit][next_width] - loss[unit][width]
                return lost / saved, unit, next_width, saved, lost
        return None

    heap = [step for unit, width in enumerate(allocation.tolist()) if (step := narrower(unit, width))]
    heapq.heapify(heap)
    steps = []
    while heap:
        _, unit, width, saved, lost = heap[0]
        steps.append((unit, width, saved, lost))
        following = narrower(unit, width)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, following)
    return steps
