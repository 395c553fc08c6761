import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoquant.bounds.choices import choices_of, scores_at
from evoquant.bounds.limits import most_loss, rows_of, solve
from evoquant.bounds.optimum import certify
from evoquant.errors import InfeasibleError, InputError
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import Menu
from evoquant.scoring.cost import Cost, bits_cost
from evoquant.scoring.limits import EFFECTIVE_BITS, Limit, WithinLimits
from evoquant.scoring.objective import FeasibleFirst
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import retention_of

MENU = Menu.parse(["INT2", "INT4", "INT8", "FP32"])
NAMES = ("latency", "energy")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A cost that is any table at all, seeded; narrower need not be cheaper."""

    seed: int
    large: int

    def __call__(self, profile, menu, members):
        rng = np.random.default_rng(self.seed)
        table = rng.integers(0, self.large, (len(members), len(menu))) + 1
        return Cost("joules", table, int(rng.integers(5)), int(table.max(axis=1).sum()) + 10)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    layers = tuple(
        LayerProfile(
            f"l{i}",
            "Linear",
            (int(rng.integers(1, 400)), int(rng.integers(1, 400))),
            0.0,
            loss=dict(zip(MENU.names, np.sort(rng.uniform(-0.01, 0.2, len(MENU)))[::-1].tolist(), strict=True)),
            allowed=tuple(MENU.names[1:]) if rng.random() < 0.2 else None,
        )
        for i in range(draw(st.integers(1, 5)))
    )
    large = draw(st.sampled_from([5, 1000, 2**45]))
    makers = {"bits": bits_cost, **{name: Drawn(int(rng.integers(2**31)), large) for name in NAMES}}
    main = draw(st.sampled_from(["bits", "latency"]))
    return compile_problem(ModelProfile("m", layers), MENU, makers[main], makers), main


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0.5, 0.99), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(2.0, 32.0))
def test_the_programme_finds_what_trying_all_finds_and_bounds_it(drawn, floor, tight, tighter, bits):
    problem, main = drawn
    everything = np.array(list(itertools.product(range(len(MENU)), repeat=len(problem.units))), dtype=np.int8)
    everything = everything[problem.allowed[np.arange(len(problem.units)), everything].all(axis=1)]
    limits = [Limit(EFFECTIVE_BITS, EFFECTIVE_BITS, bits, "")]
    for name, share in zip(NAMES, (tight, tighter), strict=True):
        cost = problem.costs[name]
        low, high = int(cost.table.min(axis=1).sum()), int(cost.table.max(axis=1).sum())
        limits.append(Limit(name, name, cost.constant + low + int(share * (high - low)), "joules"))
    objective = WithinLimits(floor, tuple(limits), main)
    fitness = scores_at(problem, objective, everything).fitness
    if fitness.max() <= 0:
        with pytest.raises(InfeasibleError, match="no allocation keeps"):
            certify(problem, objective)
        return
    bound = certify(problem, objective)
    assert bound.upper_bound >= fitness.max()
    assert bound.fitness == scores_at(problem, objective, bound.allocation[None]).fitness[0] > 0
    assert bound.upper_bound >= bound.fitness == pytest.approx(fitness.max(), rel=1e-9)
    if bound.exact:
        assert bound.fitness == fitness.max()


def test_one_cost_alone_is_left_to_the_dynamic_programme(uneven):
    problem = uneven(12)
    known = certify(problem, FeasibleFirst(0.9))
    limit = Limit(EFFECTIVE_BITS, EFFECTIVE_BITS, known.effective_bits, "")
    bound = certify(problem, WithinLimits(0.9, (limit,)))
    assert (bound.cost, bound.exact) == (known.cost, True)
    assert "dynamic programme" in bound.method or "bounds leave no choice" in bound.method
    with pytest.raises(InfeasibleError, match=r"retention at least 0.9 and effective_bits at most .* together"):
        certify(problem, WithinLimits(0.9, (dataclasses.replace(limit, most=0.99 * known.effective_bits),)))


def test_limits_that_contradict_are_named_and_the_others_are_not():
    layers = tuple(LayerProfile(f"l{i}", "Linear", (8, 8), 0.0, loss={"INT4": 0.2, "FP32": 0.0}) for i in range(4))
    menu = Menu.parse(["INT4", "FP32"])
    problem = compile_problem(ModelProfile("m", layers), menu, bits_cost, {"bits": bits_cost, "energy": Drawn(1, 9)})
    roomy = Limit("energy", "energy", 1000, "joules")
    small = Limit("bytes", "bits", 8 * 1024 * 500, "bytes", 8 * 1024)
    with pytest.raises(InfeasibleError) as told:
        certify(problem, WithinLimits(0.95, (roomy, small)))
    assert "retention at least 0.95 and bytes at most 500 B together" in str(told.value)
    assert "energy" not in str(told.value)
    assert "bytes goes down to 128 B alone" in str(told.value)
    assert "with retention at least 0.95 bytes goes down to 1.024 kB" in str(told.value)
    none = Limit("energy", "energy", 2, "joules")
    with pytest.raises(InfeasibleError, match=r"energy at most 2 joules .goes down to .* at best"):
        certify(problem, WithinLimits(0.95, (none, small)))


def test_a_search_tree_that_is_cut_off_still_gives_a_bound_or_says_that_it_has_nothing(uneven):
    problem = uneven(40)
    energy = Drawn(3, 10**6)(None, problem.menu, range(40))
    problem = dataclasses.replace(problem, costs={"bits": problem.bits, "energy": energy})
    objective = WithinLimits(0.9, (Limit("energy", "energy", 14_000_000, "joules"),))
    whole = certify(problem, objective)
    choices = choices_of(problem)
    cut = solve(choices.cost, rows_of(choices, objective), choices.allowed, nodes=1)
    assert cut.least is not None
    assert cut.least + problem.cost.constant <= whole.cost


@pytest.mark.parametrize("floor", [0.5, 0.9, 0.95, 0.999999])
def test_the_most_loss_is_the_last_that_keeps_the_floor(floor):
    most = most_loss(floor)
    kept = retention_of(np.array([most, most + 1]))
    assert kept[0] >= floor > kept[1]


def test_an_objective_of_ones_own_over_several_costs_is_not_certified(uneven):
    class Own(FeasibleFirst):
        def score_costs(self, retention, compression, effective_bits, costs):
            return compression

    with pytest.raises(InputError, match="sees several costs"):
        certify(uneven(3), Own())
