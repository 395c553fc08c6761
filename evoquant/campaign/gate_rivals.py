"""Whom a champion has to beat: plain allocations of the same network, and ones that any search should beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.greedy import greedy
from evoquant.bounds.optimum import certify
from evoquant.errors import InputError
from evoquant.genomes.strategies import CHAMPION, strategy
from evoquant.rng import generator_for
from evoquant.scoring.divergence import separable_problem
from evoquant.scoring.separable import cost_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem

DRAWS = 16
SIMPLEST_FIRST = ("uniform", "rule", "tree", "greedy", "optimum", "direct")
BLIND = ("random", "shuffled")


@dataclass(frozen=True, eq=False)
class Contender:
    """An allocation with a name.

    Attributes:
        name: for people.
        kind: one of `SIMPLEST_FIRST`, or of `BLIND`: drawn without looking at the network.
        allocation: `(units,)` menu indices.
    """

    name: str
    kind: str
    allocation: NDArray[np.int8]


def rivals_of(
    problem: Problem, objective: Objective, champion: NDArray[np.int8], seed: int
) -> tuple[list[Contender], dict[str, str]]:
    """Uniform widths, the published rule, greedy, the separable optimum, random and shuffled allocations.

    Returns:
        The rivals, and by name why one is left out: no layer may take a uniform width; the published rule reads
        measured losses, which not every profile has; the optimum is not certified for every objective of one's own.
    """
    rivals, left_out = [], {}
    for width, name in enumerate(problem.menu.names):
        if problem.allowed[:, width].any():
            uniform = problem.repair_one(np.full(len(problem.units), width, dtype=np.int8))
            rivals.append(Contender(f"uniform {name}", "uniform", uniform))
        else:
            left_out[f"uniform {name}"] = "no layer may take this width"
    makers: tuple[tuple[str, str, Callable[[], NDArray[np.int8]]], ...] = (
        ("published rule", "rule", lambda: strategy(CHAMPION).allocate(problem)),
        ("greedy", "greedy", lambda: greedy(separable_problem(problem), objective)),
        ("separable optimum", "optimum", lambda: certify(separable_problem(problem), objective).allocation),
    )
    for name, kind, make in makers:
        try:
            rivals.append(Contender(name, kind, make()))
        except InputError as error:
            left_out[name] = str(error)
    return [*rivals, *blind_rivals(problem, champion, seed)], left_out


def blind_rivals(problem: Problem, champion: NDArray[np.int8], seed: int) -> list[Contender]:
    """16 random and 16 shuffled allocations that cost no more than the champion, where that is possible."""
    limit = int(cost_sums(problem, champion[None])[0])
    found = []
    for kind in BLIND:
        for number in range(DRAWS):
            rng = generator_for(seed, number, f"gate {kind}")
            if kind == "random":
                drawn = rng.integers(0, len(problem.menu), len(problem.units)).astype(np.int8)
            else:
                drawn = rng.permutation(champion)
            found.append(Contender(f"{kind} {number + 1}", kind, narrowed(problem, drawn, limit, rng)))
    return found


def narrowed(problem: Problem, allocation: NDArray[np.int8], limit: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """The `(units,)` allocation with units narrowed one step at a time, in random order, until it costs ≤ `limit`."""
    result = problem.repair_one(allocation).copy()
    table, allowed = problem.cost.table, problem.allowed
    cost = int(cost_sums(problem, result[None])[0])
    while cost > limit:
        steps = [
            (unit, to)
            for unit, width in enumerate(result.tolist())
            if (to := _narrower(table[unit], allowed[unit], width)) is not None
        ]
        if not steps:
            break
        for index in rng.permutation(len(steps)).tolist():
            unit, to = steps[index]
            cost -= int(table[unit, result[unit]] - table[unit, to])
            result[unit] = to
            if cost <= limit:
                break
    return result


def _narrower(costs: NDArray[np.int64], allowed: NDArray[np.bool_], width: int) -> int | None:
    """The next narrower allowed width that costs less."""
    return next((to for to in range(width - 1, -1, -1) if allowed[to] and costs[to] < costs[width]), None)
