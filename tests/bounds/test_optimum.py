import hashlib
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from evoquant.bounds import relaxation
from evoquant.bounds.optimum import certify
from evoquant.bounds.relaxation import Level
from evoquant.errors import InputError, PrecisionError, ProfileError
from evoquant.genomes.rule import Rule
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.objective import BitBudget, Cliff, FeasibleFirst, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

SPLITS = ("train", "valid", "test")


def seed_problem(split):
    return compile_problem(seed_profile(split), SEED_MENU)


def fitness_of(problem, objective, allocations):
    retention = retention_of(loss_sums(problem, allocations))
    return score(objective, (problem,), retention[:, None], cost_sums(problem, allocations)[:, None]).fitness


def digest(problem, allocation):
    names = [problem.menu.names[width] for width in allocation]
    return hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest()


def small(losses, shapes=None, menu=("INT4", "INT8", "FP16"), **more):
    """A problem of one layer for each row of losses."""
    precisions = Menu.parse(menu)
    layers = tuple(
        LayerProfile(
            f"layer{i}", "Linear", shapes[i] if shapes else (8, 8), 0.0, loss=dict(zip(menu, row, strict=True)), **more
        )
        for i, row in enumerate(losses)
    )
    return compile_problem(ModelProfile("small", layers), precisions)


def test_the_most_loss_of_a_level_is_found_for_every_cost_at_once():
    level = Level(small([[0.1, 0.01, 0.0]]), FeasibleFirst(0.9), 2.0, 2**40)
    most = int(-np.log(0.9) * 2**40)
    low = np.array([0, most, most - 3, most - 10**6, 0])
    high = np.array([2**40, most, most + 5, most + 10**9, most - 7])
    # The second is known before the search begins, and the others at different times.
    found = level.most_loss(np.full(5, 64 * 8 * 1024), low, high)
    assert found.tolist() == [most, most, most, most, most - 7]


def test_the_only_choice_of_a_small_model_is_not_lost_to_rounding():
    losses = {"INT2": 0.0, "INT4": 0.0239, "INT8": 0.955, "FP16": 0.0, "FP32": 0.0167}
    layer = LayerProfile("a", "Linear", (2, 4), 0.5, loss=losses, allowed=("INT4", "FP32"))
    bound = certify(compile_problem(ModelProfile("one", (layer,)), SEED_MENU), Cliff())
    assert bound.allocation.tolist() == [1]
    assert bound.exact and bound.compression == 8.0


@pytest.mark.parametrize(
    ("split", "fitness", "compression", "retention"),
    [("train", 3.2392, 2.0000, 0.9810), ("valid", 3.4127, 2.0000, 0.9853), ("test", 4.2731, 3.153, 0.9678)],
)
def test_published_optima(split, fitness, compression, retention):
    bound = certify(seed_problem(split), Cliff())
    assert bound.exact
    assert bound.gap == 0.0
    assert bound.upper_bound == bound.fitness == pytest.approx(fitness, abs=5e-5)
    assert bound.compression == pytest.approx(compression, abs=5e-4)
    assert bound.retention == pytest.approx(retention, abs=5e-5)
    assert (bound.ties, bound.ties_complete) == (1, True)


def test_published_optimal_allocations():
    rule = Rule("FP16", protected=frozenset({"LayerNorm"}), protected_width="FP32")
    for split in ("train", "valid"):
        problem = seed_problem(split)
        np.testing.assert_array_equal(certify(problem, Cliff()).allocation, rule.allocate(problem))
    assert np.bincount(certify(seed_problem("test"), Cliff()).allocation, minlength=5).tolist() == [0, 0, 6, 19, 2]


def test_figures_are_those_of_the_shared_scoring():
    problem = seed_problem("valid")
    for objective in (Cliff(), FeasibleFirst(), BitBudget(6.0)):
        bound = certify(problem, objective)
        allocation = bound.allocation[None]
        assert bound.allocation.dtype == np.int8
        assert not bound.allocation.flags.writeable
        assert bound.cost == cost_sums(problem, allocation)[0]
        assert bound.loss == loss_sums(problem, allocation)[0]
        assert bound.retention == retention_of(loss_sums(problem, allocation))[0]
        assert bound.fitness == fitness_of(problem, objective, allocation)[0]


def test_agrees_with_brute_force(cases):
    below_zero = several = 0
    for number, case in enumerate(cases):
        for objective in case.objectives:
            bound = certify(case.problem, objective, pins=case.pins)
            fitness = case.fitness(objective)
            best = fitness.max()
            cost = case.cost[fitness == best].min()
            tied = case.allocations[(fitness == best) & (case.cost == cost)]
            label = f"case {number}, {objective}"
            assert bound.exact, label
            assert bound.fitness == bound.upper_bound == best, label
            assert bound.cost == cost, label
            below_zero += best <= 0.0
            several += len(tied) > 1
            if len(tied) <= 1000:
                assert (bound.ties, bound.ties_complete) == (len(tied), True), label
                winner = min(tied.tolist(), key=lambda allocation: digest(case.problem, allocation))
                assert bound.allocation.tolist() == winner, label
    assert below_zero > 20  # the cases do try what they are meant to
    assert several > 40


def test_without_exactness_the_bound_still_holds(cases):
    open_ones = 0
    for number, case in enumerate(cases[:100]):
        for objective in case.objectives:
            best = case.fitness(objective).max()
            for limits in ({"states": 0}, {"states": 2}, {"work": 20}):
                bound = certify(case.problem, objective, pins=case.pins, **limits)
                assert bound.upper_bound >= best >= bound.fitness, f"case {number}, {objective}, {limits}"
                assert bound.exact == (bound.gap == 0.0)
                open_ones += not bound.exact
    assert open_ones > 100


def test_coarse_cells_make_the_bound_worse_and_never_wrong(cases, monkeypatch):
    tried = [(case, objective) for case in cases[:100] for objective in case.objectives]
    fine = [certify(case.problem, objective, pins=case.pins, states=0).upper_bound for case, objective in tried]
    monkeypatch.setattr(relaxation, "CELLS", relaxation.SPLIT)
    for (case, objective), bound in zip(tried, fine, strict=True):
        coarse = certify(case.problem, objective, pins=case.pins, states=0).upper_bound
        assert coarse >= bound - 1e-6 * abs(bound), (case.problem.loss, objective)
        assert certify(case.problem, objective, pins=case.pins).fitness == case.fitness(objective).max()


def test_no_random_allocation_beats_the_lagrangian_bound():
    problem = seed_problem("train")
    rng = np.random.default_rng(0)
    allocations = np.minimum(rng.integers(0, 9, (20_000, len(problem.units))), 4).astype(np.int8)
    allocations[10_000:] = np.maximum(allocations[10_000:], 3)
    for objective in (Cliff(), Cliff(0.9), FeasibleFirst(0.9), BitBudget(12.0)):
        bound = certify(problem, objective, states=0)
        assert fitness_of(problem, objective, allocations).max() <= bound.upper_bound
        assert certify(problem, objective).fitness <= bound.upper_bound
        assert bound.gap < 0.05


@pytest.mark.parametrize("objective", [Cliff(), FeasibleFirst(), BitBudget(6.0)])
def test_ten_thousand_uneven_layers(uneven, objective):
    problem = uneven(10_000, scale=0.0131)
    start = time.monotonic()
    bound = certify(problem, objective)
    assert bound.gap < 1e-3
    assert time.monotonic() - start < 60.0
    assert bound.fitness == fitness_of(problem, objective, bound.allocation[None])[0]


def test_ties_beyond_the_limit_prefer_the_least_loss_and_are_flagged():
    losses = [[0.02 + i / 1000, 0.01, 0.0] for i in range(12)]
    problem = small(losses)
    every = certify(problem, FeasibleFirst(0.85), ties=10_000)
    some = certify(problem, FeasibleFirst(0.85), ties=10)
    assert every.ties_complete
    assert every.ties > 10
    assert not some.ties_complete
    assert (some.fitness, some.cost) == (every.fitness, every.cost)
    assert some.loss < every.loss
    equal = certify(small([[0.02, 0.01, 0.0]] * 12), FeasibleFirst(0.85), ties=10)
    assert (equal.ties, equal.ties_complete) == (10, False)
    again = certify(small([[0.02, 0.01, 0.0]] * 12), FeasibleFirst(0.85), ties=10)
    np.testing.assert_array_equal(equal.allocation, again.allocation)


def test_a_menu_of_one_precision():
    bound = certify(small([[0.01], [0.02]], menu=("INT8",)), Cliff())
    assert bound.exact
    assert bound.allocation.tolist() == [0, 0]


def test_below_the_cliff_everywhere_the_least_loss_wins():
    problem = small([[0.9, 0.8, 0.7], [0.9, 0.5, 0.6]])
    bound = certify(problem, Cliff())
    assert bound.allocation.tolist() == [2, 1]
    assert bound.fitness == pytest.approx(0.1 * 0.3 * 0.5)


def test_where_retention_vanishes_the_cheapest_wins():
    problem = small([[1.0, 1.0, 0.9999]] * 200)
    bound = certify(problem, Cliff())
    assert bound.fitness == 0.0
    assert bound.allocation.tolist() == [0] * 200
    assert bound.ties_complete


def test_pins_hold_for_the_whole_tie_group():
    problem = small([[0.01, 0.0, 0.0]] * 3, tie_group="qkv")
    assert certify(problem, FeasibleFirst(0.5)).allocation.tolist() == [0]
    assert certify(problem, FeasibleFirst(0.5), pins={"layer1": "FP16"}).allocation.tolist() == [2]
    assert certify(problem, FeasibleFirst(0.5), pins={"qkv": "INT8"}).allocation.tolist() == [1]
    with pytest.raises(ProfileError, match="'qkv' is pinned to another width already"):
        certify(problem, FeasibleFirst(0.5), pins={"layer0": "INT8", "layer1": "FP16"})


@pytest.mark.parametrize(
    ("pins", "error", "message"),
    [
        ({"layr1": "INT8"}, ProfileError, "pin layr1=INT8.*no layer 'layr1'. Did you mean 'layer1'"),
        ({"layer1": "INT7"}, PrecisionError, "pin layer1=INT7.*has no INT7. Did you mean"),
        ({"layer1": "eight"}, PrecisionError, "pin layer1=eight.*unknown precision"),
        ({"layer1": "INT4"}, ProfileError, "pin layer1=INT4: 'layer1' may only take INT8, FP16"),
    ],
)
def test_pins_that_cannot_be_kept(pins, error, message):
    problem = small([[0.1, 0.0, 0.0]] * 2, allowed=("INT8", "FP16"))
    with pytest.raises(error, match=message):
        certify(problem, Cliff(), pins=pins)


def test_objectives_that_no_bound_holds_for_are_refused():
    problem = seed_problem("valid")
    backwards = SimpleNamespace(score=lambda retention, compression, bits: -compression - retention)
    with pytest.raises(InputError, match="never falls with retention or rises with cost"):
        certify(problem, backwards)
    undefined = SimpleNamespace(score=lambda retention, compression, bits: retention * np.nan)
    with pytest.raises(InputError, match="gives NaN"):
        certify(problem, undefined)


def test_losses_are_needed():
    problem = compile_problem(ModelProfile("bare", (LayerProfile("a", "Linear", (4, 4), 0.0),)), SEED_MENU)
    with pytest.raises(ProfileError, match="has no loss for INT2"):
        certify(problem, Cliff())
