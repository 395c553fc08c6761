import json

import numpy as np
import pytest

from evoquant.errors import SearchError
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.genomes.strategies import strategy_rule
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.search.base import CENSORED, FAILED, OK, EvaluationBatch
from evoquant.search.genetic import GeneticSearch, GeneticSettings
from evoquant.search.steady import SteadyGenetic, in_order_of_arrival
from evoquant.search.steady_surrogate import SteadySurrogate
from evoquant.search.surrogate import SurrogateSettings

RULES = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2)
PROBLEM = compile_problem(seed_profile("train"), SEED_MENU)
DIRECT = DirectSpace(PROBLEM)


def genetic(in_flight=3, start=(), space=RULES, **settings):
    settings = {"population": 6, "elites": 2, **settings}
    return SteadyGenetic(space, seed=1, in_flight=in_flight, settings=GeneticSettings(**settings), start=start)


def surrogate(in_flight=3, start=()):
    settings = SurrogateSettings(batch=2, population=16, rounds=3)
    parts = {"problem": PROBLEM, "objective": Cliff(), "settings": settings, "start": start}
    return SteadySurrogate(DIRECT, seed=1, in_flight=in_flight, **parts)


def scored(candidate, fitness=None, status=OK):
    value = float(np.sin(candidate.genes).sum()) if fitness is None else fitness
    one = np.array([value])
    table = np.array([[0.9 + 0.01 * np.sin(value)]])
    return EvaluationBatch(
        fitness=one,
        parts=np.array([1]),
        cost=np.array([int(100 * candidate.genes.sum())]),
        retention=table,
        compression=table,
        effective_bits=table,
        status=np.array([status], dtype=np.int8),
        reasons={},
        digest=lambda row: candidate.genes.tobytes().hex(),
        standard_error=np.array([0.01]),
        divergence=np.array([0.05]),
    )


def fly(search, order, count):
    """Keep the search full and tell `count` arrivals, whichever in flight `order` picks; all that was asked."""
    flying, seen = {}, []
    for turn in range(count):
        while len(flying) < search.in_flight:
            candidate = search.ask()
            flying[candidate.first_id] = candidate
            seen.append([candidate.first_id, candidate.genes.tolist(), candidate.parents.tolist(), candidate.operators])
        number = sorted(flying)[order(turn) % len(flying)]
        search.tell(scored(flying.pop(number)), number)
    return seen


MAKE = {"genetic": genetic, "surrogate": surrogate}
TURNS = {"genetic": 40, "surrogate": 8}


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_asked_follows_from_the_order_of_arrival(kind):
    first_first = fly(MAKE[kind](), lambda turn: 0, TURNS[kind])
    assert first_first == fly(MAKE[kind](), lambda turn: 0, TURNS[kind])
    assert first_first != fly(MAKE[kind](), lambda turn: -1, TURNS[kind])
    assert [one[0] for one in first_first] == list(range(len(first_first)))


@pytest.mark.parametrize("kind", MAKE)
def test_a_state_with_candidates_in_flight_goes_on_the_same(kind):
    search, copy = MAKE[kind](), MAKE[kind]()
    fly(search, lambda turn: turn, TURNS[kind])
    waiting = search.ask()
    copy.restore(json.loads(json.dumps(search.state())))
    for one in (search, copy):
        one.tell(scored(waiting), waiting.first_id)
    for _ in range(3):
        expected, got = search.ask(), copy.ask()
        assert (expected.genes == got.genes).all()
        assert (expected.parents == got.parents).all()
        search.tell(scored(expected))
        copy.tell(scored(got))


def test_no_more_are_asked_than_may_be_in_flight_and_only_these_are_told():
    search = genetic(in_flight=2)
    first, second = search.ask(), search.ask()
    with pytest.raises(SearchError, match="2 candidates are in flight"):
        search.ask()
    search.tell(scored(second), 1)
    with pytest.raises(SearchError, match=r"candidate 1 is not in flight: .* in flight: 0"):
        search.tell(scored(second), 1)
    with pytest.raises(SearchError, match="one candidate; got 0"):
        search.tell(scored(first).__class__(**{**vars(scored(first)), "fitness": np.empty(0)}), 0)
    search.tell(scored(first))
    with pytest.raises(SearchError, match="in flight: none"):
        search.tell(scored(first))


def test_it_begins_with_the_first_generation_of_the_generational_search():
    start = [strategy_rule("all_fp16")]
    settings = GeneticSettings(population=6, elites=2)
    first = GeneticSearch(RULES, seed=1, settings=settings, start=start).ask()
    search = genetic(in_flight=6, start=start)
    asked = [search.ask() for _ in range(6)]
    assert (np.concatenate([one.genes for one in asked]) == first.genes).all()
    assert [one.operators[0] for one in asked] == list(first.operators)


def test_parents_are_named_by_the_order_of_arrival():
    search = genetic()
    flying = {}
    arrived = []
    for turn in range(60):
        while len(flying) < 3:
            one = search.ask()
            flying[one.first_id] = one
            assert (one.parents < len(arrived)).all()
            for parent in one.parents[0][one.parents[0] >= 0]:
                if one.operators[0] == "copy":
                    assert (arrived[parent].genes == one.genes).all()
        number = sorted(flying)[-1 if turn % 2 else 0]
        arrived.append(flying.pop(number))
        search.tell(scored(arrived[-1]), number)
    batch = in_order_of_arrival(arrived, 0)
    assert batch.asked != tuple(sorted(batch.asked))
    assert set(batch.asked) <= set(range(63))
    assert {"crossover", "mutation"} <= set(batch.operators)


def members(search):
    return search.state()["members"]


def test_the_worst_goes_and_copies_and_failures_do_not_enter():
    search = genetic(in_flight=1, population=3, elites=1, immigrant_rate=1.0)
    for fitness in (3.0, 1.0, 2.0):
        search.tell(scored(search.ask(), fitness))
    assert [one[2] for one in members(search)] == [3.0, 2.0, 1.0]
    search.tell(scored(search.ask(), np.nan, FAILED))
    search.tell(scored(search.ask(), 2.5))
    assert [one[2] for one in members(search)] == [3.0, 2.5, 2.0]
    one = search.ask()
    twin = one.__class__(one.first_id, one.parents, one.operators, genes=np.array([members(search)[1][1]]))
    search._open[one.first_id] = twin
    search.tell(scored(twin, 9.0))
    assert [one[2] for one in members(search)] == [3.0, 2.5, 2.0]


def test_an_elite_stays_below_estimates_of_those_cut_short():
    search = genetic(in_flight=1, population=3, elites=1, immigrant_rate=1.0)
    search.tell(scored(search.ask(), 1.0))
    for fitness in (5.0, 6.0, 7.0, 8.0):
        search.tell(scored(search.ask(), fitness, CENSORED))
    assert [one[2] for one in members(search)] == [8.0, 7.0, 1.0]


def test_all_failing_is_no_end():
    search = genetic(in_flight=2, population=2, elites=1)
    for _ in range(8):
        search.tell(scored(search.ask(), np.nan, FAILED))
    assert search.ask().operators == ("random",)


def test_the_surrogate_asks_for_nothing_twice_while_it_is_in_flight():
    search = surrogate(in_flight=6, start=[strategy_rule("all_fp16")])
    asked = [search.ask() for _ in range(6)]
    assert asked[0].operators == ("start",)
    rows = {one.genes.tobytes() for one in asked}
    assert len(rows) == 6
    assert not search.done()


def test_the_surrogate_ends_when_nothing_new_is_told():
    search = surrogate(in_flight=1)
    first = search.ask()
    search.tell(scored(first))
    for _ in range(12):  # six rounds of two
        assert not search.done()
        number = search.ask().first_id
        search._open[number] = first
        search.tell(scored(first), number)
    assert search.done()


def test_copies_among_the_start_do_not_end_the_surrogate():
    genome = DIRECT.decode(surrogate().ask().genes[0])
    search = surrogate(in_flight=1, start=[genome] * 20)
    for _ in range(20):
        search.tell(scored(search.ask()))
    assert not search.done()
