import json

import numpy as np

from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.islands import IslandSearch, IslandSettings, island_seed

EACH = GeneticSettings(population=10, elites=2)


def islands(space, **changes):
    settings = IslandSettings(**{"islands": 3, "every": 2, "migrants": 2, "genetic": EACH, **changes})
    return IslandSearch(space, seed=11, settings=settings)


def test_without_migration_it_equals_searches_of_their_own(rules, drive):
    together = drive(islands(rules, every=0), 5)
    for i in range(3):
        alone = drive(GeneticSearch(rules, seed=island_seed(11, i), settings=EACH), 5)
        for (batch, evaluations), (own, own_evaluations) in zip(together, alone, strict=True):
            rows = slice(i * len(own), (i + 1) * len(own))
            assert np.array_equal(batch.genes[rows], own.genes)
            assert batch.operators[rows] == own.operators
            assert np.array_equal(evaluations.fitness[rows], own_evaluations.fitness)


def test_islands_draw_from_streams_of_their_own(rules):
    genes = islands(rules).ask().genes
    assert not np.array_equal(genes[:10], genes[10:20])
    assert len({island_seed(seed, i) for seed in range(4) for i in range(8)}) == 32


def best_ids(state, count):
    columns = zip(
        [-f for f in state["fitness"]], state["parts"], state["cost"], state["ids"], state["genes"], strict=True
    )
    return [(row[:3], row[3], tuple(row[4])) for row in sorted(columns)[:count]]


def test_the_best_arrive_at_the_next_island_in_place_of_the_worst(rules, drive, evaluate):
    search, still = islands(rules), islands(rules, every=0)
    drive(search, 2)
    drive(still, 2)
    before, after = still.state()["islands"], search.state()["islands"]
    arrived = 0
    for i in range(3):
        assert len(after[i]["ids"]) == len(before[i]["ids"])
        here = {tuple(row) for row in before[i]["genes"]}
        new = set(after[i]["ids"]) - set(before[i]["ids"])
        for key, id_, genes in best_ids(before[i - 1], 1):  # without a tie the best is clear
            tied = sum(k == key for k, _, _ in best_ids(before[i - 1], 99))
            if tied == 1 and genes not in here:
                assert id_ in new
        assert new <= set(before[i - 1]["ids"])
        assert max(after[i]["fitness"]) == max(*before[i]["fitness"], *after[i]["fitness"])
        assert min(after[i]["fitness"]) >= min(before[i]["fitness"])
        arrived += len(new)
    assert arrived > 0


def test_parents_are_named_across_islands(rules, drive):
    search = islands(rules, every=1)
    genes_of, crossed_over = {}, 0
    for batch, _ in drive(search, 8):
        assert (batch.parents < batch.first_id).all()
        size = len(batch) // 3
        for row in range(len(batch)):
            genes_of[batch.first_id + row] = (row // size, batch.genes[row])
            parents = [p for p in batch.parents[row].tolist() if p >= 0]
            if batch.operators[row] == "copy":
                assert np.array_equal(genes_of[parents[0]][1], batch.genes[row])
            crossed_over += any(genes_of[p][0] != row // size for p in parents)
    assert crossed_over > 0


def test_a_whole_island_can_fail_and_be_settled_again(rules, evaluate):
    search = islands(rules, every=1)
    batch = search.ask()
    search.tell(evaluate(rules, batch, range(10)))  # the first island's
    state = search.state()["islands"]
    assert set(state[0]["ids"]) <= set(range(20, 30)) and state[0]["ids"]
    assert not set(range(10)) & {i for island in state for i in island["ids"]}


def test_failures_never_survive(rules, survives_failures):
    survives_failures(islands(rules))


def test_state_is_plain_data(rules, drive):
    search = islands(rules)
    drive(search, 3)
    assert json.loads(json.dumps(search.state())) == search.state()
