import dataclasses

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.genomes.base import digest_of
from evoquant.genomes.direct import DirectSpace
from evoquant.rng import generator_for
from evoquant.search.level_switch import LevelSwitchSearch, LevelSwitchSettings, offspring


def moved(space, settings, n=400, seed=0):
    rng = generator_for(seed, 0, "test")
    before = space.canonical(space.sample(rng, n))
    after, stepped = offspring(space, before, settings, rng)
    return before, after, stepped


def test_a_switch_takes_one_unit_up_and_one_of_like_size_down(direct, problem):
    before, after, stepped = moved(direct, LevelSwitchSettings(moves=1, step_rate=0.0))
    assert not stepped.any()
    assert ((after - before).max(axis=1) == 1).all() and ((after - before).min(axis=1) == -1).all()
    assert ((after != before).sum(axis=1) == 2).all()
    size = problem.scalars["parameters"]
    up, down = (after - before).argmax(axis=1), (after - before).argmin(axis=1)
    ratio = size[up] / size[down]
    assert (ratio > 0.4).all() and (ratio < 2.5).all()  # norms never trade with matrices a thousand times as large
    assert (ratio == 1.0).mean() > 0.9


def test_switches_conserve_codes_and_nearly_the_size(direct, problem):
    # Between equal units, a switch trades one level for one level: the sum of codes is that of before.
    before, after, _ = moved(direct, LevelSwitchSettings(moves=4, step_rate=0.0))
    assert np.array_equal(before.sum(axis=1), after.sum(axis=1))
    changed = (before != after).sum(axis=1)
    assert changed.max() <= 8 and changed.max() > 2
    heavy = problem.scalars["parameters"] > 1e6
    drift = np.abs(after[:, heavy].sum(axis=1) - before[:, heavy].sum(axis=1))
    assert (drift == 0).all()


def test_a_step_moves_one_unit_one_level(direct):
    before, after, stepped = moved(direct, LevelSwitchSettings(moves=1, step_rate=1.0))
    assert stepped.all()
    assert (np.abs(after - before).sum(axis=1) == 1).all()
    assert 0.3 < ((after - before).sum(axis=1) > 0).mean() < 0.7


def test_the_share_of_steps_is_as_stated(direct):
    _, _, stepped = moved(direct, LevelSwitchSettings(moves=1, step_rate=0.3), n=2000)
    assert 0.25 < stepped.mean() < 0.35


def test_moves_skip_what_is_forbidden_and_never_use_it(restricted):
    space = DirectSpace(restricted)
    before, after, _ = moved(space, LevelSwitchSettings(moves=3, step_rate=0.5))
    assert restricted.allowed[np.arange(len(restricted.units)), after.astype(int)].all()
    jumps = (after - before)[:, ::5]
    assert set(np.unique(jumps)) >= {-2.0, 0.0, 2.0}  # from INT4 to FP16 and back, over the forbidden INT8


def test_where_nothing_can_move_nothing_does(problem):
    space = DirectSpace(dataclasses.replace(problem, allowed=np.eye(5, dtype=bool)[np.full(len(problem.units), 2)]))
    before, after, _ = moved(space, LevelSwitchSettings(step_rate=0.5), n=50)
    assert np.array_equal(before, after)


def test_the_first_generation_holds_the_uniform_allocations(direct):
    batch = LevelSwitchSearch(direct, seed=0, settings=LevelSwitchSettings(initial=9)).ask()
    assert batch.genes[:5].tolist() == [[float(code)] * 131 for code in range(5)]
    assert batch.operators == ("start",) * 5 + ("random",) * 4


def test_the_parent_is_the_best_ever_seen_in_the_one_order(direct, drive):
    search = LevelSwitchSearch(direct, seed=4, settings=LevelSwitchSettings(offspring=6, initial=6))
    seen, parents = [], []
    for _ in range(25):
        [(batch, evaluations)] = drive(search, 1)
        if seen:
            parents.append(min(seen)[-1])
            assert set(batch.parents[:, 0].tolist()) == {parents[-1]}
        for row in range(len(batch)):
            digest = digest_of(direct.decode(batch.genes[row]))
            key = (-evaluations.fitness[row], evaluations.parts[row], evaluations.cost[row], digest)
            seen.append((*key, batch.first_id + row))
    assert len(set(parents)) > 5


def test_other_genomes_are_refused_with_the_remedy(rules):
    with pytest.raises(InputError, match=r"rule genomes.*genome\.kind: direct"):
        LevelSwitchSearch(rules, seed=0)


def test_failures_are_never_the_parent(direct, survives_failures):
    survives_failures(LevelSwitchSearch(direct, seed=3, settings=LevelSwitchSettings(offspring=6, initial=8)))


def test_it_respects_allowed_from_the_start(restricted, drive):
    search = LevelSwitchSearch(DirectSpace(restricted), seed=0, settings=LevelSwitchSettings(offspring=8))
    for batch, _ in drive(search, 6, model=restricted):
        assert restricted.allowed[np.arange(131), batch.genes.astype(int)].all()
