"""Searches in somebody's own loop: what they ask, what may be told, and that a saved one goes on identically."""

import json
from functools import cache, partial

import numpy as np
import pytest

from evoquant.api.ask_space import search_space
from evoquant.api.asktell import ask_tell
from evoquant.campaign.config_search import BUILT_IN
from evoquant.errors import InputError, SearchError
from evoquant.genomes.strategies import STRATEGIES
from evoquant.scoring.objective import FeasibleFirst
from evoquant.scoring.separable import loss_sums, retention_of
from evoquant.search.replay import Replay, ReplayEntry

GENERATIONS = 6
OPTIONS = {
    "genetic": {"population": 6, "elites": 1},
    "random": {"population": 4},
    "nsga2": {"population": 6},
    "cmaes": {"population": 5},
    "map_elites": {"batch": 6},
    "islands": {"islands": 2, "every": 2, "migrants": 1, "genetic": {"population": 4, "elites": 1}},
    "level_switch": {"offspring": 4, "initial": 6},
    "surrogate": {"batch": 1, "population": 4, "rounds": 1},
}
NUMERIC_ONLY, DIRECT_ONLY = {("cmaes", "tree")}, {("level_switch", "rule"), ("level_switch", "tree")}
PAIRS = [
    (kind, genome)
    for kind in OPTIONS
    for genome in ("rule", "tree", "direct")
    if (kind, genome) not in NUMERIC_ONLY | DIRECT_ONLY
]


@cache
def space_of(genome):
    return search_space(genome, "seed/test")


def retention(genome, space):
    (problem,) = space.problems
    return float(retention_of(loss_sums(problem, genome.allocate(problem)[None]))[0])


def told(candidates, space):
    return [{"retention": retention(genome, space)} for genome in candidates]


def plain(genomes):
    return [genome.to_dict() for genome in genomes]


def small(kind, genome, **more):
    return ask_tell(kind, space_of(genome), seed=3, **OPTIONS[kind], **more)


def test_every_search_of_a_config_is_here():
    assert set(OPTIONS) == set(BUILT_IN)


@pytest.mark.parametrize(("kind", "genome"), PAIRS)
def test_a_saved_search_goes_on_identically_from_every_point(kind, genome, tmp_path):
    space, path = space_of(genome), tmp_path / "search.json"
    whole = small(kind, genome)
    asked, values, states = [], [], [whole.state()]
    for _ in range(GENERATIONS):
        asked.append(whole.ask())
        states.append(whole.state())
        values.append(told(asked[-1], space))
        whole.tell(values[-1])
        states.append(whole.state())
    for point, state in enumerate(states):
        path.write_text(json.dumps(state), encoding="utf-8")
        later = small(kind, genome).load(path)
        assert later.state() == state
        for generation in range(point // 2, GENERATIONS):
            candidates = later.open if later.open else later.ask()
            assert plain(candidates) == plain(asked[generation]), f"saved at {point}, other candidates in {generation}"
            assert candidates.ids == asked[generation].ids
            later.tell(values[generation])
        assert later.state() == states[-1]
        assert (later.best.genome, later.best.fitness) == (whole.best.genome, whole.best.fitness)


@pytest.mark.parametrize("kind", ["genetic", "surrogate"])
def test_a_steady_search_goes_on_identically_from_every_point(kind):
    space = space_of("direct")
    make = partial(small, kind, "direct", in_flight=3)

    def turn(search, step):
        """Ask for what may be asked, tell the last asked first."""
        seen = search.ask() if step % 2 == 0 else ()
        if step % 2:
            number, genome = search.open.ids[-1], search.open[-1]
            search.tell(told([genome], space), [number])
        return plain(seen)

    whole = make()
    seen, states = [], []
    for step in range(2 * GENERATIONS):
        states.append(whole.state())
        seen.append(turn(whole, step))
    for point, state in enumerate(states):
        later = make()
        later.restore(json.loads(json.dumps(state)))
        assert [turn(later, step) for step in range(point, 2 * GENERATIONS)] == seen[point:]
        assert later.state() == whole.state()
    assert whole.evaluations == GENERATIONS and len(whole.open) == 2


def test_it_asks_what_a_campaign_asks(tmp_path):
    from evoquant.api import run

    config = tmp_path / "same.yaml"
    config.write_text(
        "seed: 5\nmodels: {train: [seed/test], valid: [], test: []}\ngenome: {kind: rule, rungs: 2}\n"
        "search: {kind: genetic, population: 12, elites: 2}\nstop: {generations: 5}\nexecutor: {kind: local}\n",
        encoding="utf-8",
    )
    lines = (run(config, out=tmp_path / "run").path / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    space = search_space("rule", "seed/test", rungs=2)
    search = ask_tell("genetic", space, seed=5, population=12, elites=2)
    for line in map(json.loads, lines):
        search.tell(told(search.ask(), space))
        assert search.best.digest == line["champion"]["digest"]
        assert search.best.fitness == line["champion"]["fitness"]
    assert search.evaluations == sum(len(json.loads(line)["population"]["fitness"]) for line in lines)


def test_asking_twice():
    search = small("genetic", "rule")
    first = search.ask()
    with pytest.raises(SearchError, match=r"called twice: tell the 6 values of the last candidates first"):
        search.ask()
    assert plain(search.open) == plain(first)
    search.tell([1.0] * 6)


def test_telling_before_asking():
    for search in (small("genetic", "rule"), small("genetic", "rule", in_flight=2)):
        with pytest.raises(SearchError, match=r"tell\(\) was called before ask\(\)"):
            search.tell([1.0])


@pytest.mark.parametrize("count", [0, 5, 7])
def test_the_wrong_number_of_values(count):
    search = small("genetic", "rule")
    search.ask()
    with pytest.raises(SearchError, match=rf"takes 6 values, one for each candidate asked; got {count}\."):
        search.tell([1.0] * count)
    search.tell([1.0] * 6)
    assert search.evaluations == 6


def test_ids_put_values_in_order():
    values = [float(i) for i in range(6)]
    one, other = small("genetic", "rule"), small("genetic", "rule")
    ids = one.ask().ids
    one.tell(values)
    other.ask()
    other.tell(values[::-1], ids[::-1])
    assert one.state() == other.state()
    one.ask()
    with pytest.raises(SearchError, match=r"ids should be 6 to 10, each once; got \(?\[?0"):
        one.tell(values[: len(one.open)], list(range(len(one.open))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.ask(4), r"ask\(4\): 1 candidates may be asked; 2 of 3 in flight"),
        (lambda s: s.ask(0), r"ask\(0\): 1 candidates may be asked"),
        (lambda s: s.tell([1.0], [7]), r"7 is not in flight, or stands twice; ids: 0, 1"),
        (lambda s: s.tell([1.0, 2.0], [0, 0]), r"0 is not in flight, or stands twice"),
        (lambda s: s.tell([1.0]), r"takes 2 values, one for each candidate in flight; got 1: tell some .* ids"),
        (lambda s: s.tell([1.0, 2.0], [0]), r"one value for each id: 1 ids; got 2 values"),
    ],
)
def test_steady_searches_say_what_they_expect(call, message):
    search = small("genetic", "rule", in_flight=3)
    search.ask(2)
    before = search.state()
    with pytest.raises(SearchError, match=message):
        call(search)
    assert search.state() == before
    search.tell([None, 1.0])
    assert (search.evaluations, search.best.id) == (2, 1)


def test_a_generation_has_its_own_size():
    with pytest.raises(SearchError, match=r"ask\(3\): this search asks whole generations"):
        small("genetic", "rule").ask(3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["high"], r"value 1 of 6: fitness is 'high', and it should be a number, or None or NaN"),
        ([True], r"value 1 of 6: fitness is True"),
        ([[1.0]], r"value 1 of 6: fitness is \[1\.0\]"),
        ([1.0, {}], r"value 2 of 6: tell a fitness, or the retention .* \(got nothing\)"),
        ([{"fitnes": 1.0}], r"value 1 of 6: 'fitnes' is nothing that can be told\. Did you mean 'fitness'\?"),
        ([{1: 1.0}], r"value 1 of 6: '1' is nothing that can be told"),
        ([{"fitness": 1.0, "compression": 0}], r"compression is 0; it should be above 0"),
        ([{"retention": [0.9, 0.8]}], r"retention has 2 numbers, and there are 1 models"),
    ],
)
def test_a_value_that_is_none(values, message):
    search = small("genetic", "rule")
    search.ask()
    before = search.state()
    with pytest.raises(InputError, match=message) as caught:
        search.tell(values + [0.0] * (6 - len(values)))
    assert "\n" not in str(caught.value)
    assert search.state() == before


@pytest.mark.parametrize("values", [1.0, "123456", {"fitness": 1.0}, None, np.float64(1.0), np.array(1.0)])
def test_values_are_a_list(values):
    search = small("genetic", "rule")
    search.ask()
    with pytest.raises(InputError, match=r"tell\(\) takes a list of values"):
        search.tell(values)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("nsga2", 1.0, r'nsga2 compares retention and effective_bits; tell {"retention": …} \(got fitness\)'),
        ("surrogate", {"fitness": 1.0}, r'surrogate compares retention; tell {"retention": …} \(got fitness\)'),
    ],
)
def test_a_search_names_what_it_needs(kind, value, message):
    search = small(kind, "direct")
    n = len(search.ask())
    with pytest.raises(InputError, match=message):
        search.tell([value] * n)


def test_what_can_be_told_is_the_same_in_all_its_forms():
    forms = (
        lambda n: [0.5] * n,
        lambda n: np.full(n, 0.5),
        lambda n: np.full(n, 0.5, dtype=np.float32),
        lambda n: ({"fitness": 0.5} for _ in range(n)),
    )
    states = []
    for form in forms:
        search = small("genetic", "tree")
        for _ in range(3):
            search.tell(form(len(search.ask())))
        states.append(search.state())
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize(
    "failed",
    [None, float("nan"), float("inf"), -float("inf"), {"fitness": None}, {"fitness": 9.0, "retention": None}, 10**400],
)
def test_failures_are_lived_with_and_are_never_the_best(failed):
    search = small("genetic", "direct")
    search.tell([failed] * len(search.ask()))
    assert search.best is None
    n = len(search.ask())
    search.tell([failed, 2.0] + [1.0] * (n - 2))
    assert (search.best.fitness, search.best.told) == (2.0, {"fitness": 2.0})
    search.ask()
    json.dumps(search.state(), allow_nan=False)


def test_the_objective_makes_a_fitness_of_retention():
    space = space_of("direct")
    for objective in ({"kind": "feasible_first", "floor": 0.5}, FeasibleFirst(0.5)):
        search = ask_tell("random", space, population=4, objective=objective)
        search.ask()
        search.tell([{"retention": r} for r in (0.1, 0.6, 0.2, 0.3)])
        (problem,) = space.problems
        chosen = problem.cost.table[np.arange(len(problem.units)), search.best.genome.allocate(problem)].sum()
        assert (search.best.id, search.best.fitness) == (1, problem.cost.reference / chosen)
        assert set(space.widths(search.best.genome)) == set(problem.layers)


def test_told_sizes_go_before_those_of_the_profile():
    search = ask_tell("map_elites", space_of("rule"), batch=4, objective={"kind": "feasible_first", "floor": 0.5})
    search.ask()
    search.tell([{"retention": 0.9, "compression": c} for c in (2.0, 5.0, 3.0, 1.0)])
    assert (search.best.id, search.best.fitness) == (1, 5.0)
    search.ask()
    search.tell([{"retention": 0.9, "effective_bits": 1.0}, None, None, None])
    assert (search.best.id, search.best.fitness) == (4, 32.0)
    other = ask_tell("random", space_of("rule"), population=2, objective={"kind": "budget", "effective_bits": 8})
    other.ask()
    other.tell([{"retention": 0.9, "effective_bits": 16.0}, {"retention": 0.7, "compression": 4.0}])
    assert (other.best.id, other.best.fitness) == (1, 0.7)


def test_archives():
    search = small("nsga2", "rule")
    space = space_of("rule")
    search.tell(told(search.ask(), space))
    assert {json.dumps(one) for one in plain(search.archive())}
    search.ask()
    with pytest.raises(SearchError, match="6 candidates are open"):
        search.archive()
    with pytest.raises(InputError, match="genetic keeps no archive; nsga2 and map_elites do"):
        small("genetic", "rule").archive()


def test_the_end_of_a_search():
    space = space_of("direct")
    generations = [[ReplayEntry("a", STRATEGIES["hybrid"], 0)]] * 2
    search = ask_tell(Replay(generations), space)
    while not search.done():
        search.tell([1.0] * len(search.ask()))
    with pytest.raises(SearchError, match=r"after 2 evaluations the search has nothing new to ask"):
        search.ask()
    later = ask_tell(Replay(generations), space)
    later.restore(search.state())
    assert later.done() and later.best.genome == STRATEGIES["hybrid"]
