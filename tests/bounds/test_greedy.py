import time

import numpy as np

from evoquant.bounds.greedy import greedy
from evoquant.scoring.objective import Cliff, FeasibleFirst, score
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of


def fitness_of(problem, objective, allocation):
    retention = retention_of(loss_sums(problem, allocation[None]))
    return score(objective, (problem,), retention[:, None], cost_sums(problem, allocation[None])[:, None]).fitness[0]


def plainly(problem, objective):
    """The same, step by step as it is described."""
    loss, cost, allowed = problem.loss.tolist(), problem.cost.table.tolist(), problem.allowed
    allocation = np.array([np.nonzero(row)[0][-1] for row in allowed], dtype=np.int8)
    while True:
        steps = []
        for unit, width in enumerate(allocation.tolist()):
            narrower = [j for j in range(width) if allowed[unit, j] and cost[unit][j] < cost[unit][width]]
            if narrower:
                j = narrower[-1]
                per_cost = (loss[unit][j] - loss[unit][width]) / (cost[unit][width] - cost[unit][j])
                steps.append((per_cost, unit, j))
        if not steps:
            return allocation
        _, unit, width = min(steps)
        changed = allocation.copy()
        changed[unit] = width
        if fitness_of(problem, objective, changed) <= fitness_of(problem, objective, allocation):
            return allocation
        allocation = changed


def test_agrees_with_the_plain_description(cases):
    moved = 0
    for number, case in enumerate(cases):
        for objective in case.objectives:
            allocation = greedy(case.problem, objective)
            np.testing.assert_array_equal(allocation, plainly(case.problem, objective), f"case {number}, {objective}")
            moved += allocation.sum() > 0
    assert moved > 100


def test_pins_are_kept_and_the_rest_goes_on(cases):
    for case in cases:
        for name, width in case.pins.items():
            unit = case.problem.unit_of_layer[case.problem.layers.index(name)]
            allocation = greedy(case.problem, FeasibleFirst(0.5), pins=case.pins)
            assert case.problem.menu.names[allocation[unit]] == width


def test_ten_thousand_layers_take_seconds(uneven):
    problem = uneven(10_000, scale=0.0131)
    start = time.monotonic()
    allocation = greedy(problem, Cliff())
    assert time.monotonic() - start < 20.0
    assert fitness_of(problem, Cliff(), allocation) > 3.0
