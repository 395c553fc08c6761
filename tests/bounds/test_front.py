import numpy as np
import pytest

from evoquant.bounds import front as front_module
from evoquant.bounds.front import pareto_front
from evoquant.errors import ProfileError
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of


def points(front):
    return list(zip(front.cost.tolist(), front.loss.tolist(), strict=True))


def check_allocations(problem, front, which):
    allocations = np.array([front.allocation(point) for point in which])
    np.testing.assert_array_equal(cost_sums(problem, allocations), front.cost[which])
    np.testing.assert_array_equal(loss_sums(problem, allocations), front.loss[which])
    assert problem.allowed[np.arange(len(problem.units)), allocations].all()


def covers(front, exact_points, floor=None):
    """Whether each exact point has a returned one that costs no more and has at most ε less retention."""
    for cost, loss in exact_points:
        retention = retention_of(np.array([loss]))[0]
        if floor is not None and retention < floor + front.epsilon:
            continue
        cheaper = front.retention[front.cost <= cost]
        if not len(cheaper) or cheaper.max() < retention - front.epsilon - 1e-12:
            return False
    return True


def test_agrees_with_brute_force(cases):
    for number, case in enumerate(cases):
        front = pareto_front(case.problem, pins=case.pins)
        assert points(front) == case.front, f"case {number}"
        assert front.exact
        assert front.epsilon == 0.0
        check_allocations(case.problem, front, np.arange(len(front)))
        np.testing.assert_array_equal(front.retention, retention_of(front.loss))
        assert not any(array.flags.writeable for array in (front.cost, front.loss, front.retention))


def test_a_floor_leaves_the_points_that_keep_it(cases):
    for case in cases[:150]:
        retentions = retention_of(np.array([loss for _, loss in case.front]))
        floor = float(np.sort(retentions)[len(retentions) // 2])
        front = pareto_front(case.problem, pins=case.pins, at_least=floor)
        kept = [point for point, r in zip(case.front, retentions, strict=True) if r >= floor]
        assert points(front) == kept


@pytest.mark.parametrize("limits", [{"memory": 1}, {"memory": 2000}, {"work": 1}])
def test_little_room_gives_a_front_with_a_proven_error(cases, limits):
    methods = set()
    for number, case in enumerate(cases):
        front = pareto_front(case.problem, pins=case.pins, **limits)
        methods.add(front.method)
        assert covers(front, case.front), f"case {number}: {front.method}"
        check_allocations(case.problem, front, np.arange(len(front)))
        if front.exact:
            assert points(front) == case.front
    assert {"dynamic programme, thinned out", "vertices of the convex envelope"} <= methods


def test_nearly_enough_room_gives_a_small_error():
    """It is small where there is nearly room enough."""
    problem = compile_problem(seed_profile("valid"), SEED_MENU)
    exact = points(pareto_front(problem))
    front = pareto_front(problem, memory=1_000_000)
    assert not front.exact
    assert 0.0 < front.epsilon < 1e-3
    assert covers(front, exact)
    assert len(front) < len(exact)


def test_a_floor_and_little_room(cases):
    for case in cases[:150]:
        floor = 0.8
        if retention_of(case.loss).max() < floor:
            continue
        front = pareto_front(case.problem, pins=case.pins, at_least=floor, memory=1)
        assert (front.retention >= floor).all()
        assert covers(front, case.front, floor)


def test_thinning_without_the_envelope_to_fall_back_on(cases, monkeypatch):
    """The error is added up rightly however coarse it becomes."""
    monkeypatch.setattr(front_module, "FEWEST", 2)
    thinned = 0
    for number, case in enumerate(cases):
        front = pareto_front(case.problem, pins=case.pins, memory=1)
        thinned += front.method == "dynamic programme, thinned out"
        assert covers(front, case.front), f"case {number}"
    assert thinned > 5


def test_the_seed_suite_fits():
    for split in ("train", "valid", "test"):
        problem = compile_problem(seed_profile(split), SEED_MENU)
        front = pareto_front(problem)
        assert front.exact
        assert (np.diff(front.cost) > 0).all()
        assert (np.diff(front.loss) < 0).all()
        check_allocations(problem, front, np.linspace(0, len(front) - 1, 50).astype(int))
        upper = pareto_front(problem, at_least=0.9)
        assert points(upper) == [p for p, r in zip(points(front), front.retention, strict=True) if r >= 0.9]


def test_ten_thousand_uneven_layers(uneven):
    problem = uneven(10_000, scale=0.0131)
    front = pareto_front(problem, at_least=0.9)
    assert front.epsilon < 1e-3
    assert not front.exact
    check_allocations(problem, front, [0, len(front) // 2, len(front) - 1])


def test_a_floor_that_nothing_keeps(cases):
    with pytest.raises(ProfileError, match=r"retention of 3 or more; the most is .*lower the floor"):
        pareto_front(cases[0].problem, at_least=3.0)
