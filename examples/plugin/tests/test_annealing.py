import itertools
from functools import partial

from evoquant_example_plugin import Annealing

from evoquant.testing import check_search
from evoquant.testing.examples import evaluator, example_spaces


def test_annealing_keeps_the_protocol():
    check_search(partial(Annealing, chains=4))


def test_a_cold_chain_never_moves_to_something_worse():
    space = example_spaces()["direct"]
    tell = evaluator(space)
    search = Annealing(space, seed=1, chains=4, temperature=0.0)
    before = None
    for _ in range(10):
        search.tell(tell(search.ask()))
        fitness = search.state()["fitness"]
        assert before is None or all(now >= then for now, then in zip(fitness, before, strict=True))
        before = fitness


def test_a_hot_chain_does():
    space = example_spaces()["direct"]
    tell = evaluator(space)
    search = Annealing(space, seed=1, chains=4, temperature=1e9)
    seen = []
    for _ in range(10):
        search.tell(tell(search.ask()))
        seen.append(search.state()["fitness"])
    assert any(
        now < then for before, after in itertools.pairwise(seen) for then, now in zip(before, after, strict=True)
    )
