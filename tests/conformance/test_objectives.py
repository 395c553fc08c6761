import random
from dataclasses import dataclass

import numpy as np
import pytest

from evoquant.scoring.limits import Limit, WithinLimits
from evoquant.scoring.objective import OBJECTIVES, BitBudget, Cliff, FeasibleFirst
from evoquant.testing import ConformanceError, check_objective

OURS = {
    "cliff": Cliff(),
    "cliff at 0.5": Cliff(0.5),
    "feasible_first": FeasibleFirst(0.99),
    "budget": BitBudget(4.5),
}
LIMITED = {
    "retention alone": WithinLimits(0.9),
    "bits per weight": WithinLimits(0.95, (Limit("effective_bits", "effective_bits", 9.5, ""),)),
    "three costs": WithinLimits(
        0.95,
        (
            Limit("latency", "latency", 40_000, "nanoseconds"),
            Limit("bytes", "bits", 20_000, "bytes", 8192),
            Limit("effective_bits", "effective_bits", 12.0, ""),
        ),
        "latency",
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_objective_conforms(name):
    check_objective(OURS[name])


@pytest.mark.parametrize("name", LIMITED)
def test_objective_over_several_costs_conforms(name):
    check_objective(LIMITED[name], costs=["latency"])


@dataclass(frozen=True)
class OwnCosts:
    """A sound one over several costs, which each of those below breaks in one way."""

    floor: float = 0.9

    def score(self, retention, compression, effective_bits):
        raise AssertionError("is not asked where costs are seen")

    def score_costs(self, retention, compression, effective_bits, costs):
        late = costs["latency"] > 20_000
        return np.where((retention >= self.floor) & ~late, compression, retention - 1.0 - late)


class RankedCosts(OwnCosts):
    def score_costs(self, retention, compression, effective_bits, costs):
        return retention - costs["bits"] / max(1, costs["bits"].max(initial=0))


class WritingCosts(OwnCosts):
    def score_costs(self, retention, compression, effective_bits, costs):
        costs["latency"] = costs["latency"] // 2
        return super().score_costs(retention, compression, effective_bits, costs)


class BackwardCosts(OwnCosts):
    def score_costs(self, retention, compression, effective_bits, costs):
        return costs["latency"] / 1e9


def test_an_objective_of_ones_own_over_several_costs_is_held_to_the_protocol():
    check_objective(OwnCosts(), costs=["latency"])
    broken = ((RankedCosts(), "not elementwise"), (WritingCosts(), "changes its argument costs"))
    for objective, clause in (*broken, (BackwardCosts(), "less is better")):
        with pytest.raises(ConformanceError, match=clause):
            check_objective(objective, costs=["latency"])
    with pytest.raises(ConformanceError, match="reads 'latency'"):
        check_objective(OwnCosts())


def test_all_objectives_are_tried():
    assert {type(objective) for objective in OURS.values()} == set(OBJECTIVES.values())


@dataclass(frozen=True)
class Own:
    """A sound one, which each of those below breaks in one way."""

    floor: float = 0.9

    def score(self, retention, compression, effective_bits):
        return np.where(retention >= self.floor, np.log1p(compression), retention - 1.0)


class Ranked(Own):
    """Fitness relative to the best of the batch."""

    def score(self, retention, compression, effective_bits):
        fitness = super().score(retention, compression, effective_bits)
        return fitness / np.abs(fitness).max() if fitness.size else fitness


class AcrossModels(Own):
    """The worst model decides for all."""

    def score(self, retention, compression, effective_bits):
        worst = retention.min(axis=-1, keepdims=True) if retention.ndim > 1 else retention
        return super().score(np.broadcast_to(worst, retention.shape), compression, effective_bits)


class ByPlace(Own):
    def score(self, retention, compression, effective_bits):
        fitness = super().score(retention, compression, effective_bits)
        return fitness + np.arange(fitness.size).reshape(fitness.shape)


class Writing(Own):
    def score(self, retention, compression, effective_bits):
        retention[retention < self.floor] = 0.0
        return super().score(retention, compression, effective_bits)


class WritingTheSame(Own):
    """Writes what stands there already: a fault as soon as what it gets is read-only."""

    def score(self, retention, compression, effective_bits):
        retention[...] = retention.clip(0.0, 1.0)
        return super().score(retention, compression, effective_bits)


class Summed(Own):
    def score(self, retention, compression, effective_bits):
        return super().score(retention, compression, effective_bits).mean(axis=-1)


class Single(Own):
    def score(self, retention, compression, effective_bits):
        return super().score(retention, compression, effective_bits).astype(np.float32)


class Listed(Own):
    def score(self, retention, compression, effective_bits):
        return super().score(retention, compression, effective_bits).tolist()


class Tossed(Own):
    def score(self, retention, compression, effective_bits):
        return super().score(retention, compression, effective_bits) + random.random()


class Worn:
    """Changes with every call."""

    calls = 0

    def score(self, retention, compression, effective_bits):
        self.calls += 1
        return compression + self.calls


class Infinite(Own):
    def score(self, retention, compression, effective_bits):
        return np.where(retention >= self.floor, compression, -np.inf)


class Undefined(Own):
    """Has no fitness for what keeps too little."""

    def score(self, retention, compression, effective_bits):
        return np.where(retention >= self.floor, compression, np.nan)


class Contagious(Own):
    """Passes a failure on to all."""

    def score(self, retention, compression, effective_bits):
        if np.isnan(retention).any():
            return np.full_like(retention, np.nan)
        return super().score(retention, compression, effective_bits)


class Upside(Own):
    """A cost: less is better."""

    def score(self, retention, compression, effective_bits):
        return effective_bits - retention


BROKEN = {
    Ranked: "not elementwise: .* the candidates beside it",
    AcrossModels: "not elementwise: .* the models beside it",
    ByPlace: "not elementwise: .* its place",
    Writing: "changes its argument retention",
    WritingTheSame: "writes into its arguments",
    Summed: r"shape \(40,\), expected that of the arguments, \(40, 3\)",
    Single: "float32, not float64",
    Listed: "a list, not an array",
    Tossed: "the global `random` module",
    Worn: "differently the second time",
    Infinite: "-inf for retention 0, .* counts as failed",
    Undefined: "nan for retention 0, .* counts as failed",
    Contagious: "changes the fitness of another",
    Upside: "less is better",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_suite_catches_each_sort_of_broken_objective(broken):
    with pytest.raises(ConformanceError, match=BROKEN[broken]):
        check_objective(broken())


def test_own_objectives_pass_and_a_floor_is_a_retention():
    check_objective(Own())
    check_objective(Undefined(), may_fail=True)
    with pytest.raises(ConformanceError, match=r"floor: 99 is no retention"):
        check_objective(Own(99))
