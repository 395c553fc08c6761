"""What the tests of other libraries' searches share."""

import json

import numpy as np

from evoquant.testing.examples import evaluator, example_problem

PROBLEM = example_problem()


def run(one, generations, evaluate=None):
    """Ask and tell so often: genes and evaluations of each generation."""
    seen = []
    for _ in range(generations):
        batch = one.ask()
        evaluations = (evaluate or evaluator(one.space, PROBLEM))(batch)
        one.tell(evaluations)
        seen.append((batch.genes, evaluations))
    return seen


def goes_on(make, generations, stop):
    """One whose state was taken after `stop` generations asks what one asks that was never stopped; it, at the end."""
    whole = run(make(), generations)
    first, second = make(), make()
    run(first, stop)
    second.restore(json.loads(json.dumps(first.state())))
    for (genes, _), (again, _) in zip(whole[stop:], run(second, generations - stop), strict=True):
        assert np.array_equal(genes, again)
    return second
