"""Small random models with all their allocations counted out, for agreement with brute force."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest

from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import Menu
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

WIDTHS = ("INT2", "INT3", "INT4", "INT4-channel", "INT4-g4", "INT8", "INT8-tensor", "FP16", "FP32")
SHAPES = ((4, 8), (8, 8), (16, 4))


class Stairs:
    """An own objective: monotone, with plateaus in both directions."""

    def score(self, retention, compression, effective_bits):
        return np.minimum(compression, 3.0) + np.floor(retention * 8.0) / 8.0


@dataclass(frozen=True)
class Case:
    problem: object
    pins: dict
    objectives: tuple

    @cached_property
    def allocations(self):
        options = [np.nonzero(row)[0] for row in self.problem.allowed]
        for name, width in self.pins.items():
            unit = self.problem.unit_of_layer[self.problem.layers.index(name)]
            options[unit] = [self.problem.menu.names.index(width)]
        return np.array(list(itertools.product(*options)), dtype=np.int8)

    @cached_property
    def cost(self):
        return cost_sums(self.problem, self.allocations)

    @cached_property
    def loss(self):
        return loss_sums(self.problem, self.allocations)

    def fitness(self, objective):
        return fitness_of(self.problem, objective, self.allocations)

    @cached_property
    def front(self):
        """(cost, loss) of the Pareto-optimal allocations, cost rising, found point by point."""
        points, least = [], None
        for cost, loss in sorted(set(zip(self.cost.tolist(), self.loss.tolist(), strict=True))):
            if least is None or loss < least:
                points.append((cost, loss))
                least = loss
        return points


def fitness_of(problem, objective, allocations):
    retention = retention_of(loss_sums(problem, allocations))
    return score(objective, (problem,), retention[:, None], cost_sums(problem, allocations)[:, None]).fitness


def random_case(seed):
    rng = np.random.default_rng(seed)
    menu = Menu.parse(rng.choice(WIDTHS, rng.integers(1, 5), replace=False).tolist())
    coarse, large = rng.random() < 0.6, rng.random() < 0.3
    layers = []
    for i in range(rng.integers(1, 7)):
        shape = (
            SHAPES[rng.integers(3)] if rng.random() < 0.7 else (int(rng.integers(1, 20)), 4 * int(rng.integers(1, 9)))
        )
        drawn = rng.random(len(menu)) if large else rng.normal(0.03, 0.05, len(menu))
        drawn = np.round(drawn * 20.0) / 20.0 if coarse else drawn
        if layers and coarse and rng.random() < 0.7:  # layers that can change places
            shape, drawn = layers[-1].shape, np.array([layers[-1].loss[name] for name in menu.names])
        allowed = None
        if rng.random() < 0.2:
            allowed = tuple(rng.choice(menu.names, rng.integers(1, len(menu) + 1), replace=False).tolist())
        tied = f"tied{rng.integers(2)}" if allowed is None and rng.random() < 0.2 else None
        loss = dict(zip(menu.names, drawn.tolist(), strict=True))
        layers.append(LayerProfile(f"l{i}", "Linear", shape, 0.0, loss=loss, allowed=allowed, tie_group=tied))
    problem = compile_problem(ModelProfile("random", tuple(layers), constant_bits=100 * int(rng.integers(2))), menu)
    pins = {}
    if rng.random() < 0.2:
        layer = rng.integers(len(layers))
        (allowed,) = np.nonzero(problem.allowed[problem.unit_of_layer[layer]])
        pins = {problem.layers[layer]: menu.names[rng.choice(allowed)]}
    objectives = (
        Cliff(float(rng.uniform(0.3, 0.99))),
        FeasibleFirst(float(rng.uniform(0.3, 0.99))),
        BitBudget(float(rng.uniform(2.0, 20.0))),
        Stairs(),
    )
    return Case(problem, pins, objectives)


@pytest.fixture(scope="session")
def cases():
    return [random_case(seed) for seed in range(240)]


@pytest.fixture(scope="session")
def uneven():
    """`uneven(n, scale)`: n layers of sizes that have nothing in common, losses times `scale`."""

    def make(n, scale=1.0, seed=0):
        rng = np.random.default_rng(seed)
        menu = Menu.parse(("INT2", "INT4", "INT8", "FP16", "FP32"))
        curve = np.array([0.2, 0.05, 0.005, 0.0002, 0.0]) * scale
        sides, noise = rng.integers(16, 4096, (n, 2)).tolist(), rng.uniform(0.5, 1.5, (n, 5))
        layers = tuple(
            LayerProfile(
                f"l{i}",
                "Linear",
                tuple(sides[i]),
                0.0,
                loss=dict(zip(menu.names, (curve * noise[i]).tolist(), strict=True)),
            )
            for i in range(n)
        )
        return compile_problem(ModelProfile("uneven", layers), menu)

    return make
