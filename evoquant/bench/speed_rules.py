"""Rules: the compiled pass against plain Python, a compiled scalar loop and NumPy, and how it grows.

All ways give the same sums, which is checked before anything is timed, and one thread does the work where no other
number is said.
"""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bench.contest import ROUNDS, Measure, Way, at_most_threads, interleaved, ratios
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.profiles.builtin import builtin_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of
from evoquant.scoring.threads import thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.rule import Rule
    from evoquant.scoring.problem import Problem

TOPIC = "rules"
GENOMES = 100_000
PYTHON_GENOMES, NUMPY_GENOMES = 200, 4_000  # of slow ways, a part
LAYERS = (1_000, 10_000, 100_000)
LAYERS_GENOMES = 4_000
POPULATIONS = (1_000, 10_000, 100_000, 1_000_000)
COMPILER = ("cc", "-O3", "-march=native", "-shared", "-fPIC")
SCALAR = Path(__file__).parent / "data" / "rule_scalar.c"
LOOPS = {"compiled scalar loop": "rule_sums", "compiled scalar loop, rungs made ready first": "rule_sums_ready"}

Sums = tuple["NDArray[np.int64]", "NDArray[np.int64]"]


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Figures of rules on the seed suite's 131 layers, one thread, and their growth with layers and population."""
    problem = compile_problem(builtin_profile("seed/train"), SEED_MENU)
    space = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
    random = space.canonical(space.sample(generator_for(0, 0, "bench"), GENOMES))
    with tempfile.TemporaryDirectory() as folder, at_most_threads(1):
        loops = scalar_loops(Path(folder))
        found = against_others(space, random, problem, loops, "random rules", rounds)
        children = evolved(space, random, problem)
        found += against_others(space, children, problem, loops, "children of the best", rounds)
        found += growth_with_layers(space, random[:LAYERS_GENOMES], problem, rounds)
        found += growth_with_population(space, random, problem, rounds)
    return found + with_more_threads(space, random, problem, rounds)


def against_others(
    space: RuleSpace,
    genes: NDArray[np.float64],
    problem: Problem,
    loops: Mapping[str, Callable[[RuleSpace, NDArray[np.float64], Problem], Sums]],
    what: str,
    rounds: int,
) -> list[Measure]:
    """The compiled pass against plain Python, which gets decoded rules, compiled scalar loops and NumPy."""
    expected = by_numpy(space, genes, problem)
    decoded = [space.decode(row) for row in genes[:PYTHON_GENOMES]]

    def decoded_by_python(space: RuleSpace, genes: NDArray[np.float64], problem: Problem) -> Sums:
        return by_python(space, decoded, problem)

    rivals: dict[str, tuple[Callable[[RuleSpace, NDArray[np.float64], Problem], Sums], int]]
    rivals = {
        "plain Python": (decoded_by_python, PYTHON_GENOMES),
        "NumPy": (by_numpy, NUMPY_GENOMES),
    } | {name: (loop, len(genes)) for name, loop in loops.items()}
    goals: dict[str, float | None] = {"plain Python": 300.0, "NumPy": None} | dict.fromkeys(loops, 4.0)
    remark = "one thread" if loops else "one thread; without compiled scalar loops, for there is no C compiler"
    ways = {"compiled pass": Way(lambda: space.sums(genes, problem), len(genes))}
    check(space.sums(genes, problem), expected, "compiled pass")
    for name, (call, count) in rivals.items():
        part = genes[:count]
        check(call(space, part, problem), (expected[0][:count], expected[1][:count]), name)
        ways[name] = Way(lambda call=call, part=part: call(space, part, problem), count)  # type: ignore[misc]
    rates = interleaved(ways, rounds)
    return ratios(
        TOPIC, rates, "compiled pass", goals, what=f"{what}, {len(problem.units)} layers, genomes/s", remark=remark
    )


def growth_with_layers(space: RuleSpace, genes: NDArray[np.float64], problem: Problem, rounds: int) -> list[Measure]:
    """Genomes × layers per second of large models over those of the problem: 1 is linear, more is better.

    Rules at random, then those among them that read a signal, with every rung reading the first rung's.
    """
    problems = {f"{len(problem.units):,} layers": problem}
    problems |= {f"{layers:,} layers": enlarged(problem, layers) for layers in LAYERS}
    remark = (
        f"one thread, {len(genes):,} random rules; 1 is linear; bound by ladders of several signals, scored by masks"
    )
    found = _growth(_with_layers(space, genes, problems, rounds), "genomes × layers/s", remark)
    first, *_, largest = problems
    ladders = of_one_signal(space, genes)
    edges = ladders[:, len(space.types) + 1] > 0
    for what, rows in (("without edges", ladders[~edges]), ("with edges", ladders[edges])):
        rates = _with_layers(space, rows, {name: problems[name] for name in (first, largest)}, rounds)
        remark = f"one thread, {len(rows):,} rules whose ladder reads one signal, {what}; 1 is linear; prefix sums"
        found += _growth(rates, f"ladders of one signal {what}, genomes × layers/s", remark, goal=None)
    return found


def _with_layers(
    space: RuleSpace, genes: NDArray[np.float64], problems: dict[str, Problem], rounds: int
) -> dict[str, list[float]]:
    for one in problems.values():
        check(space.sums(genes, one), by_numpy(space, genes[:20], one), "compiled pass")
    ways = {
        name: Way(lambda one=one: space.sums(genes, one), len(genes) * len(one.units))  # type: ignore[misc]
        for name, one in problems.items()
    }
    return interleaved(ways, rounds)


def growth_with_population(
    space: RuleSpace, genes: NDArray[np.float64], problem: Problem, rounds: int
) -> list[Measure]:
    """Genomes per second of large populations over those of a small one: 1 is linear, more is better."""
    largest = np.tile(genes, (-(-POPULATIONS[-1] // len(genes)), 1))
    ways = {
        f"{n:,} genomes": Way(lambda n=n: space.sums(largest[:n], problem), n)  # type: ignore[misc]
        for n in POPULATIONS
    }
    return _growth(interleaved(ways, rounds), "genomes/s", "one thread, 131 layers; 1 is linear")


def _growth(rates: dict[str, list[float]], what: str, remark: str, goal: float | None = 1.0) -> list[Measure]:
    first, *others = rates
    found = []
    for name in others:
        found += ratios(TOPIC, rates, name, {first: goal}, what=what, remark=remark)
    return found


def with_more_threads(space: RuleSpace, genes: NDArray[np.float64], problem: Problem, rounds: int) -> list[Measure]:
    """All cores against one."""
    with at_most_threads(None):
        cores = thread_count()
    if cores < 2:
        return []

    def with_threads(count: int) -> None:
        with at_most_threads(count):
            space.sums(many, problem)

    many = np.tile(genes, (4, 1))
    ways = {f"{n} threads": Way(lambda n=n: with_threads(n), len(many)) for n in (1, cores)}  # type: ignore[misc]
    return ratios(TOPIC, interleaved(ways, rounds), f"{cores} threads", {"1 threads": None}, what="genomes/s")


def evolved(space: RuleSpace, genes: NDArray[np.float64], problem: Problem) -> NDArray[np.float64]:
    """`(n, genes)` like a later generation: crossed and mutated from the hundred smallest that retain 95%."""
    losses, costs = space.sums(genes, problem)
    best = genes[np.argsort(np.where(retention_of(losses) >= 0.95, costs, np.iinfo(np.int64).max))[:100]]
    rng = generator_for(0, 1, "bench")
    first, second = best[rng.integers(0, len(best), (2, len(genes)))]
    return space.canonical(space.mutate(space.cross(first, second, rng), 0.1, rng))


def of_one_signal(space: RuleSpace, genes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of the canonical `(n, genes)` that have rungs, each rung reading the first one's signal."""
    first = len(space.types) + 3
    rows = genes[genes[:, first] > 0]
    for column in range(first, first + 3 * space.rungs, 3):
        rows[:, column] = np.where(rows[:, column] > 0, rows[:, first], 0)
    return rows


def enlarged(problem: Problem, layers: int) -> Problem:
    """The problem with its units again and again, each time with other values of the signals."""
    rng = generator_for(0, layers, "bench")
    again = np.arange(layers) % len(problem.units)
    assert problem.loss is not None
    factor = np.exp(rng.normal(0.0, 0.5, layers))
    return dataclasses.replace(
        problem,
        layers=tuple(f"layer {i}" for i in range(layers)),
        units=tuple(f"layer {i}" for i in range(layers)),
        unit_of_layer=np.arange(layers),
        types=problem.types[again],
        position=np.linspace(0.0, 1.0, layers),
        scalars={name: values[again] * factor for name, values in problem.scalars.items()},
        widths={
            kind: {name: values[again] * factor for name, values in table.items()}
            for kind, table in problem.widths.items()
        },
        loss=problem.loss[again],
        cost=dataclasses.replace(problem.cost, table=problem.cost.table[again]),
        allowed=problem.allowed[again],
    )


def by_numpy(space: RuleSpace, genes: NDArray[np.float64], problem: Problem) -> Sums:
    """Sums through allocations."""
    allocations = space.allocate(genes, problem)
    return loss_sums(problem, allocations), cost_sums(problem, allocations)


def by_python(space: RuleSpace, rules: Sequence[Rule], problem: Problem) -> Sums:
    """One rule and one layer at a time, over lists."""
    types, position = problem.types.tolist(), problem.position.tolist()
    signals = {name: problem.signal(name).tolist() for name in space.signals}
    loss, cost = problem.separable_loss().tolist(), problem.cost.table.tolist()
    index = {name: i for i, name in enumerate(problem.menu.names)}
    losses, costs = [], []
    for rule in rules:
        ladder = [(signals[rung.signal], rung.above, index[rung.width]) for rung in rule.rungs]
        otherwise, edges = index[rule.otherwise], rule.edges
        edge_width = index[rule.edge_width] if rule.edge_width is not None else 0
        protected_width = index[rule.protected_width] if rule.protected_width is not None else 0
        total_loss, total_cost = 0, problem.cost.constant
        for unit, kind in enumerate(types):
            if kind in rule.protected:
                width = protected_width
            elif edges and (position[unit] < edges or position[unit] > 1.0 - edges):
                width = edge_width
            else:
                width = otherwise
                for values, above, wanted in ladder:
                    if values[unit] > above:
                        width = wanted
                        break
            total_loss += loss[unit][width]
            total_cost += cost[unit][width]
        losses.append(total_loss)
        costs.append(total_cost)
    return np.array(losses), np.array(costs)


def scalar_loops(folder: Path) -> dict[str, Callable[[RuleSpace, NDArray[np.float64], Problem], Sums]]:
    """Name → a loop of `rule_scalar.c`, compiled into a folder; none where there is no C compiler."""
    if shutil.which(COMPILER[0]) is None:
        return {}
    library = folder / "rule_scalar.so"
    subprocess.run([*COMPILER, "-o", str(library), str(SCALAR)], check=True, capture_output=True)
    compiled = ctypes.CDLL(str(library))
    return {name: _scalar_loop(getattr(compiled, function)) for name, function in LOOPS.items()}


def _scalar_loop(loop: Any) -> Callable[[RuleSpace, NDArray[np.float64], Problem], Sums]:
    loop.restype = None

    def call(space: RuleSpace, genes: NDArray[np.float64], problem: Problem) -> Sums:
        column = {kind: i for i, kind in enumerate(space.types)}
        types = np.array([column.get(kind, -1) for kind in problem.types.tolist()], dtype=np.int32)
        arrays = [
            np.ascontiguousarray(some)
            for some in (
                *(types, problem.position, np.array([problem.signal(name) for name in space.signals])),
                *(problem.separable_loss().T, problem.cost.table.T),
            )
        ]
        rows, sums = np.ascontiguousarray(genes), np.empty((2, len(genes)), dtype=np.int64)
        counts = (ctypes.c_int64(n) for n in (len(genes), len(space.types), space.rungs))
        loop(*counts, _at(rows), ctypes.c_int64(len(problem.units)), *map(_at, arrays), _at(sums[0]), _at(sums[1]))
        return sums[0], sums[1] + problem.cost.constant

    return call


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def check(found: Sums, expected: Sums, name: str) -> None:
    """Check that a way gives the sums that it should, of as many genomes as are expected.

    Raises:
        AssertionError: it does not.
    """
    for some, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(some[: len(wanted)], wanted, err_msg=name)
