"""A population of trees on one model: compiled, tree by tree with NumPy, and DEAP's compile-and-call.

DEAP is given its best: its trees are made beforehand, and what it compiles is called on arrays of all units and widths.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bench.contest import ROUNDS, Measure, Way, at_most_threads, interleaved, ratios
from evoquant.campaign.evaluate import SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.expression import LARGEST, OPERATOR
from evoquant.genomes.tree import TreeSpace
from evoquant.genomes.tree_numpy import settled, signal_values
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import Problem, compile_problem
from evoquant.search.genetic import GeneticSearch, GeneticSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

TREES = 1000
GENERATIONS = 15
SAMPLE = 200  # trees that the slow ways do
UNITS = (1_000, 10_000)
GOAL = 50.0
TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")
SIGNALS = ("loss", "bits", "share", "gradient_sensitivity", "position", "units", "model_loss")
OURS, NUMPY, DEAP = "the population compiled", "tree by tree with NumPy", "DEAP's compile-and-call"


def tree_space() -> TreeSpace:
    """Trees as a campaign on the seed suite has them by default."""
    return TreeSpace(SEED_MENU, TYPES, SIGNALS)


def problem_of(units: int | None = None) -> Problem:
    """The seed suite's train model, of 131 units, or its layers over and over until there are so many."""
    profile = seed_profile("train")
    if units is None:
        return compile_problem(profile, SEED_MENU)
    layers = tuple(
        dataclasses.replace(profile.layers[i % len(profile.layers)], name=f"layer {i}", position=i / (units - 1))
        for i in range(units)
    )
    return compile_problem(dataclasses.replace(profile, name=f"{units} layers", layers=layers), SEED_MENU)


def populations(problem: Problem) -> dict[str, NDArray[np.float64]]:
    """`(n, genes)` distinct trees: as they are sampled, and as a search has them after some generations."""
    space = tree_space()
    sampled = space.sample(generator_for(0, 0, "benchmark"), TREES)
    search = GeneticSearch(space, seed=0, settings=GeneticSettings(population=TREES))
    estimator = SeparableEstimator(space, (problem,), Cliff(), "mean", TREES)
    executor = LocalExecutor()
    estimator.use(executor)
    for _ in range(GENERATIONS):
        search.tell(estimator.evaluate(search.ask(), {}))
    evolved = search.ask().genes
    executor.close()
    assert evolved is not None
    return {"random": np.unique(sampled, axis=0), "evolved": np.unique(evolved, axis=0)}


def _clipped(values: Any) -> Any:
    return np.minimum(np.maximum(values, -LARGEST), LARGEST)


_ON_ARRAYS: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: _clipped(a + b),
    "sub": lambda a, b: _clipped(a - b),
    "mul": lambda a, b: _clipped(a * b),
    "div": lambda a, b: np.where(b == 0.0, 1.0, _clipped(a / b)),
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "sqrt": lambda a: np.sqrt(np.abs(a)),
    "square": lambda a: _clipped(a * a),
    "greater": np.greater,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
}


def by_deap(space: TreeSpace, rows: NDArray[np.float64], problem: Problem) -> Callable[[], NDArray[np.int8]]:
    """DEAP's way to allocate these trees, `(n, units)`; its trees are made here, so that calling it compiles and calls.

    `gp.compile` runs Python text; here that of trees whose every name is one of the tables above.
    """
    from deap import gp

    names = [*space.signals, *(f"is_{kind}" for kind in space.types)]
    made = gp.PrimitiveSet("cost", len(names))
    made.renameArguments(**{f"ARG{i}": name for i, name in enumerate(names)})
    for name, operator in OPERATOR.items():
        # Python's own words cannot be called; as in any tree that DEAP compiles, the functions have other names.
        made.addPrimitive(_ON_ARRAYS[name], len(operator.args), f"{name}_")

    def node(token: str | float) -> Any:
        if not isinstance(token, str):
            return gp.Terminal(token, False, object)
        return made.mapping[f"{token}_" if token in OPERATOR else token]

    trees = [gp.PrimitiveTree([node(token) for token in space.expression(row)]) for row in space.canonical(rows)]
    allowed = problem.allowed

    def allocate() -> NDArray[np.int8]:
        values = [signal_values(problem, name) for name in names]
        result = np.empty((len(trees), len(allowed)), dtype=np.int8)
        with np.errstate(all="ignore"):
            for i, tree in enumerate(trees):
                costs = np.broadcast_to(gp.compile(tree, made)(*values), allowed.shape)
                result[i] = np.where(allowed, costs, np.inf).argmin(axis=1)
        return result

    return allocate


def by_numpy(space: TreeSpace, rows: NDArray[np.float64], problem: Problem) -> Callable[[], NDArray[np.int8]]:
    """The reference: `(n, units)` one tree after another."""
    return lambda: np.array([settled(space.expression(row), problem) for row in space.canonical(rows)])


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Ratios for a random and an evolved population on the seed suite's train model, and how time grows with units.

    Raises:
        AssertionError: two ways allocate differently.
    """
    space, problem = tree_space(), problem_of()
    known = populations(problem)
    measures = []
    with at_most_threads(1):
        for name, rows in known.items():
            measures += _race(space, rows, problem, name, rounds)
    measures += _growth(space, known["evolved"], problem, rounds)
    return measures


def _race(space: TreeSpace, rows: NDArray[np.float64], problem: Problem, name: str, rounds: int) -> list[Measure]:
    sample = generator_for(0, 0, "benchmark sample").permutation(len(rows))[:SAMPLE]
    rivals = {NUMPY: by_numpy(space, rows[sample], problem), DEAP: by_deap(space, rows[sample], problem)}
    found = space.allocate(rows, problem)
    for way, call in rivals.items():
        assert np.array_equal(found[sample], call()), f"{way} allocates differently"
    ways = {OURS: Way(lambda: space.allocate(rows, problem), len(rows))}
    ways |= {way: Way(call, len(sample)) for way, call in rivals.items()}
    nodes = space.lengths(rows).mean()
    return ratios(
        "trees",
        interleaved(ways, rounds),
        OURS,
        {DEAP: GOAL, NUMPY: None},
        what=f"{len(rows)} {name} trees of {nodes:.0f} nodes on {len(problem.units)} units, one core",
        remark=f"DEAP and NumPy on {len(sample)} of them; the same allocations",
    )


def _growth(space: TreeSpace, rows: NDArray[np.float64], problem: Problem, rounds: int) -> list[Measure]:
    """Trees and units a second on larger models against the smallest, and with all cores against one."""
    few = rows[:SAMPLE]
    problems = {len(p.units): p for p in (problem, *(problem_of(units) for units in UNITS))}
    names = {units: f"{units:,} units" for units in problems}
    ways = {
        names[units]: Way(lambda p=p: space.allocate(few, p), len(few) * units)  # type: ignore[misc]
        for units, p in problems.items()
    }
    smallest, *larger = names.values()
    measures: list[Measure] = []
    with at_most_threads(1):
        rates = interleaved(ways, rounds)
        for name in larger:
            measures += ratios(
                "trees", rates, name, {smallest: 1.0}, what="trees × units a second", remark="1 is growth in line"
            )
    largest = problems[max(problems)]
    cores: Sequence[str] = ("all cores", "one core")
    pair = {name: Way(_with_threads(space, rows, largest, one=name == cores[1]), len(rows)) for name in cores}
    return measures + ratios(
        "trees",
        interleaved(pair, rounds),
        cores[0],
        {cores[1]: None},
        what=f"{len(rows)} trees on {max(problems):,} units",
    )


def _with_threads(space: TreeSpace, rows: NDArray[np.float64], problem: Problem, *, one: bool) -> Callable[[], Any]:
    def call() -> Any:
        with at_most_threads(1 if one else None):
            return space.allocate(rows, problem)

    return call
