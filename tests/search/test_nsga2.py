import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoquant.bounds.front import pareto_front
from evoquant.scoring.hypervolume import hypervolume
from evoquant.search.front import nondominated, thinned
from evoquant.search.nsga2 import Nsga2Search, Nsga2Settings, crowded_order, survivors

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25).map(
    lambda pairs: np.array(pairs, dtype=np.float64) / [6, 1]
)


def dominates(a, b, floor=0.0):
    """Constrained domination by the book."""
    if a[0] < floor or b[0] < floor:
        return a[0] > b[0]
    return a[0] >= b[0] and a[1] <= b[1] and tuple(a) != tuple(b)


@given(POINTS)
def test_the_archive_holds_exactly_the_nondominated_points(points):
    kept = points[nondominated(points)]
    best = {tuple(p) for p in points if not any(dominates(q, p) for q in points)}
    assert {tuple(p) for p in kept} == best and len(kept) == len(best)
    assert (np.diff(kept[:, 1]) > 0).all()


THREE = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=25).map(
    lambda triples: np.array(triples, dtype=np.float64) / [4, 1, 1]
)


def dominates_in_all(a, b):
    return a[0] >= b[0] and (a[1:] <= b[1:]).all() and tuple(a) != tuple(b)


@given(THREE)
def test_the_archive_of_three_objectives_holds_exactly_the_nondominated_points(points):
    rows = nondominated(points)
    kept = points[rows]
    best = {tuple(p) for p in points if not any(dominates_in_all(q, p) for q in points)}
    assert {tuple(p) for p in kept} == best and len(kept) == len(best)
    assert (np.diff(kept[:, 1]) >= 0).all()
    assert all(row == min(np.flatnonzero((points == points[row]).all(axis=1))) for row in rows)


@given(THREE, st.sampled_from([0.0, 0.5]))
def test_survivors_of_three_objectives_follow_constrained_domination(points, floor):
    ranks = crowded_order(points, floor)
    assert len(set(survivors(points, floor, max(1, len(points) // 2)).tolist())) == max(1, len(points) // 2)
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            below = a[0] < floor or b[0] < floor
            if (a[0] > b[0]) if below else dominates_in_all(a, b):
                assert ranks[i] < ranks[j]


def test_three_objectives_are_thinned_where_points_crowd_and_the_ends_stay():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(60, 3))
    points[:, 0] = (points[:, 1] + points[:, 2]) / 2  # none dominates another
    front = nondominated(points)
    kept = thinned(points, front, 12)
    assert len(front) == 60 and len(kept) == 12
    for axis in range(3):
        assert {int(points[:, axis].argmin()), int(points[:, axis].argmax())} <= set(kept.tolist())

    def nearest(rows):
        apart = ((points[rows][:, None] - points[rows][None]) ** 2).sum(axis=2)
        return np.sort(apart + np.eye(len(rows)), axis=1)[:, 0].min()

    assert nearest(kept) > 10 * nearest(front)
    assert thinned(points, front, 60).tolist() == front.tolist()


@given(POINTS, st.sampled_from([0.0, 0.5]))
def test_survivors_and_parents_follow_constrained_domination(points, floor):
    ranks = crowded_order(points, floor)
    chosen = survivors(points, floor, max(1, len(points) // 2)).tolist()
    assert len(chosen) == len(set(chosen)) == max(1, len(points) // 2)
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            if dominates(a, b, floor):
                assert ranks[i] < ranks[j]
                if j in chosen and tuple(a) not in {tuple(points[k]) for k in chosen}:
                    pytest.fail(f"{b} was chosen and {a}, which dominates it, was not")


def test_in_a_front_the_ends_and_the_lonely_come_first():
    points = np.array([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0], [0.6, 6.0], [0.9, 9.0]])
    places = crowded_order(points, 0.0)
    assert places[0] == places[4] == 0
    assert places[3] < places[2] and places[2] < places[1]


def test_thinning_takes_the_points_that_add_least_and_keeps_the_ends():
    points = np.array([[0.10, 1.0], [0.50, 2.0], [0.501, 2.1], [0.90, 8.0], [0.95, 9.0]])
    assert thinned(points, nondominated(points), 4).tolist() == [0, 1, 3, 4]
    assert thinned(points, nondominated(points), 2).tolist() == [0, 4]
    assert thinned(points, nondominated(points), 9).tolist() == [0, 1, 2, 3, 4]


def test_the_archive_is_the_front_of_all_that_was_seen_and_its_hypervolume_rises(direct, drive):
    search = Nsga2Search(direct, seed=1, settings=Nsga2Settings(population=24, mutation_rate=0.02))
    seen, areas = [], []
    for _ in range(12):
        [(_, evaluations)] = drive(search, 1)
        seen.append(np.column_stack([evaluations.retention.mean(axis=1), evaluations.effective_bits.mean(axis=1)]))
        areas.append(hypervolume(search.front[:, 1], search.front[:, 0], floor=0.0))
    everything = np.concatenate(seen)
    assert np.array_equal(search.front, everything[nondominated(everything)])
    assert areas == sorted(areas) and areas[-1] > areas[0]
    assert len(search.archive()) == len(search.front)


def test_the_archives_rows_score_what_the_front_says(direct, drive, evaluate):
    from evoquant.search.base import NO_PARENT, CandidateBatch

    search = Nsga2Search(direct, seed=1, settings=Nsga2Settings(population=12, archive=5))
    drive(search, 5)
    rows = search.archive()
    assert 2 <= len(rows) <= 5
    batch = CandidateBatch(0, np.full((len(rows), 2), NO_PARENT), ("kept",) * len(rows), genes=rows)
    scores = evaluate(direct, batch)
    assert np.array_equal(search.front[:, 1], scores.effective_bits[:, 0])
    assert np.array_equal(search.front[:, 0], scores.retention[:, 0])


def test_a_floor_is_reached_from_random_allocations_and_kept(direct, drive):
    def best(floor):
        search = Nsga2Search(
            direct, seed=2, settings=Nsga2Settings(population=40, crossover_rate=0.5, mutation_rate=0.02, floor=floor)
        )
        drive(search, 80)
        return search

    bounded = best(0.9)
    assert len(bounded.archive()) > 2
    assert (bounded.front[:, 0] >= 0.9).all()
    free = best(0.0)
    assert (free.front[:, 0] < 0.9).any()
    assert hypervolume(bounded.front[:, 1], bounded.front[:, 0]) > hypervolume(free.front[:, 1], free.front[:, 0])


def test_failures_never_survive(direct, survives_failures):
    search = Nsga2Search(direct, seed=3, settings=Nsga2Settings(population=8))
    survives_failures(search)
    assert np.isfinite(search.front).all() and len(search.archive())


def test_means_over_the_models(rules, problem, drive):
    from evoquant.campaign.evaluate import SeparableEstimator
    from evoquant.execution.local import LocalExecutor
    from evoquant.profiles.seed_suite import seed_profile
    from evoquant.quantization.precision import SEED_MENU
    from evoquant.scoring.objective import Cliff
    from evoquant.scoring.problem import compile_problem

    models = (problem, compile_problem(seed_profile("valid"), SEED_MENU))
    estimator = SeparableEstimator(rules, models, Cliff(), "mean", 64)
    estimator.use(LocalExecutor())
    search = Nsga2Search(rules, seed=0, settings=Nsga2Settings(population=10))
    evaluations = estimator.evaluate(search.ask(), {})
    assert evaluations.retention.shape == (10, 2)
    search.tell(evaluations)
    means = np.column_stack([evaluations.retention.mean(axis=1), evaluations.effective_bits.mean(axis=1)])
    assert np.array_equal(search.front, means[nondominated(means)])


def test_it_comes_near_the_exact_front(direct, problem, drive):
    # With 200,000 evaluations it is above 99.9%; a tenth of that has to do here.
    exact = pareto_front(problem, at_least=0.9)
    settings = Nsga2Settings(population=50, crossover_rate=0.5, mutation_rate=0.01, floor=0.9)
    search = Nsga2Search(direct, seed=0, settings=settings)
    drive(search, 300)
    found = hypervolume(search.front[:, 1], search.front[:, 0])
    assert 0.85 < found / hypervolume(exact.effective_bits, exact.retention) <= 1.0


def test_whoever_is_below_the_floor_is_behind_widths_that_cost_many_times_what_fp32_does():
    points = np.array([[0.9, 5e3], [0.4, 1.0], [0.3, 2.0]])  # a slow kernel, and two below the floor
    assert crowded_order(points, 0.5).tolist() == [0, 1, 2]
    assert survivors(points, 0.5, 1).tolist() == [0]
