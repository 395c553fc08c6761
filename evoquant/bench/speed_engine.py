"""The engine: whole generations of evoquant's genetic search against DEAP's `eaSimple` and pymoo's `GA`.

All search the same rules on the same model by the same objective, for as many generations of as many genomes, each with
its own operators. A rival is timed as its users write it, and with the whole population scored in one compiled call.
Quality is compared by the time until a fitness is reached: 99% of what evoquant ends with, in the median of the seeds.
"""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant import api
from evoquant.bench.contest import ROUNDS, Measure, ratios
from evoquant.campaign.evaluate import SeparableEstimator, separable_worker
from evoquant.errors import MissingExtraError
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.base import Gene, tidy
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.genomes.tree_operators import seeded
from evoquant.profiles.builtin import builtin_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.objective import Cliff, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of
from evoquant.search.genetic import GeneticSearch, GeneticSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.observer import Progress
    from evoquant.scoring.problem import Problem

TOPIC = "engine"
POPULATION, GENERATIONS = 1_000, 25
LARGE, LARGE_GENERATIONS = 100_000, 20
SHARE = 0.99
CAMPAIGN, BARE = "evoquant, a campaign with its journal", "evoquant, the search alone"
DEAP, DEAP_BATCH, PYMOO = "DEAP's eaSimple", "DEAP's eaSimple, scored in one call", "pymoo's GA, scored in one call"
CONFIG = """name: engine
models: {train: [seed/train]}
menu: [INT2, INT4, INT8, FP16, FP32]
objective: {kind: cliff, threshold: 0.95}
genome: {kind: rule, rungs: 3}
search: {kind: genetic, population: 1000}
executor: {kind: local}
"""


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Generations per second and time to quality at 1,000 genomes, and genomes per second at 100,000.

    Raises:
        MissingExtraError: pymoo is not installed.
    """
    task = Task()
    ways: dict[str, Callable[[int], Trace]] = {
        CAMPAIGN: campaign,
        BARE: task.bare,
        DEAP: lambda seed: task.deap(seed, batched=False),
        DEAP_BATCH: lambda seed: task.deap(seed, batched=True),
        PYMOO: task.pymoo,
    }
    for name in (CAMPAIGN, BARE, DEAP_BATCH, PYMOO):  # compilers and caches start
        ways[name](0)
    traces: dict[str, list[Trace]] = {name: [] for name in ways}
    for seed in range(1, rounds + 1):
        for name in ways if seed % 2 else reversed(ways):
            traces[name].append(ways[name](seed))
    goals = {DEAP: 20.0, DEAP_BATCH: None, PYMOO: 3.0}
    best = {name: statistics.median(trace.best[-1] for trace in found) for name, found in traces.items()}
    quality = "; ".join(f"{name}: {value:.4f}" for name, value in best.items())
    found = []
    for ours in (CAMPAIGN, BARE):
        rates = {name: [trace.rate for trace in of] for name, of in traces.items()}
        what = f"generations per second, {POPULATION} rules"
        wanted = goals if ours == CAMPAIGN else dict.fromkeys(goals)
        found += ratios(TOPIC, rates, ours, wanted, what=what, remark=f"median best after {GENERATIONS}: {quality}")
    return [*found, *to_quality(traces, goals, SHARE * best[CAMPAIGN]), large(rounds)]


class Trace:
    """Best fitness so far and the time, generation by generation."""

    def __init__(self) -> None:
        self.best: list[float] = []
        self.at: list[float] = []
        self._began = time.perf_counter()

    def note(self, fitness: float) -> None:
        """A generation whose best has this fitness has been evaluated."""
        self.best.append(max(fitness, self.best[-1] if self.best else -math.inf))
        self.at.append(time.perf_counter() - self._began)

    @property
    def rate(self) -> float:
        """Generations per second, from the end of the first."""
        return (len(self.at) - 1) / (self.at[-1] - self.at[0])

    def reached(self, fitness: float) -> tuple[float, bool]:
        """Seconds until this fitness and whether it was reached; else all seconds."""
        for value, seconds in zip(self.best, self.at, strict=True):
            if value >= fitness:
                return seconds, True
        return self.at[-1], False


class Watch:
    """An observer that keeps a trace, from the campaign's first generation on."""

    def __init__(self) -> None:
        self.trace: Trace | None = None

    def generation(self, progress: Progress) -> None:
        """Note the best so far."""
        if self.trace is None:
            self.trace = Trace()
            self.trace._began -= progress.seconds
        self.trace.note(progress.record["champion"]["fitness"])

    def message(self, text: str) -> None:
        """Nothing."""


def campaign(
    seed: int, population: int = POPULATION, generations: int = GENERATIONS, watch: Watch | None = None
) -> Trace:
    """A whole campaign with everything that it writes; its trace begins with its first generation."""
    watch = watch or Watch()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "engine.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        overrides = [f"seed={seed}", f"search.population={population}", f"stop.generations={generations}"]
        api.run(config, out=Path(folder) / "run", overrides=overrides, observer=watch)
    assert watch.trace is not None
    return watch.trace


class Task:
    """What all ways have in common: the model, the rules and the objective."""

    def __init__(self) -> None:
        self.problem: Problem = compile_problem(builtin_profile("seed/train"), SEED_MENU)
        self.space = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
        self._sums = separable_worker((self.space, (self.problem,)))

    def fitness(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n,)` fitness of `(n, genes)` rows, in one call."""
        losses, costs = self._sums(self.space.canonical(rows))
        return score(Cliff(), (self.problem,), retention_of(losses), costs).fitness

    def one(self, row: Sequence[float]) -> float:
        """Fitness of one genome as one writes it: a rule, its allocation, its sums."""
        allocation = self.space.decode(np.array(row)).allocate(self.problem)[None]
        retention = float(retention_of(loss_sums(self.problem, allocation))[0])
        compression = self.problem.cost.reference / float(cost_sums(self.problem, allocation)[0])
        return 0.1 * retention if retention < 0.95 else compression * (1.0 + (min(retention, 1.0) - 0.95) / 0.05)

    def bare(self, seed: int) -> Trace:
        """evoquant's ask, evaluate and tell."""
        trace = Trace()
        search = GeneticSearch(self.space, seed=seed, settings=GeneticSettings(population=POPULATION))
        estimator = SeparableEstimator(self.space, (self.problem,), Cliff(), "mean", POPULATION)
        with LocalExecutor() as executor:
            estimator.use(executor)
            for _ in range(GENERATIONS):
                evaluations = estimator.evaluate(search.ask(), {})
                search.tell(evaluations)
                trace.note(float(evaluations.fitness.max()))
        return trace

    def deap(self, seed: int, *, batched: bool) -> Trace:
        """`eaSimple` on lists of genes: uniform crossover, evoquant's mutation gene by gene, tournaments of three."""
        from deap import algorithms, base, tools

        settings, rng = GeneticSettings(), generator_for(seed, 0, "deap")
        trace = Trace()

        def scored(evaluate: Callable[[Any], Any], people: Iterable[Any]) -> list[tuple[float, ...]]:
            some = list(people)
            found = (
                [(f,) for f in self.fitness(np.array(some)).tolist()] if batched else [evaluate(one) for one in some]
            )
            trace.note(max(fitness for (fitness,) in found))
            return found

        toolbox = base.Toolbox()
        toolbox.register("evaluate", lambda person: (self.one(person),))
        toolbox.register("map", scored)
        toolbox.register("mate", tools.cxUniform, indpb=0.5)
        toolbox.register("mutate", lambda person: (mutated(person, self.space.genes, settings.mutation_rate, rng),))
        toolbox.register("select", tools.selTournament, tournsize=settings.tournament)
        with seeded(rng):
            population = [_person(base, row) for row in self.space.sample(rng, POPULATION).tolist()]
            algorithms.eaSimple(population, toolbox, settings.crossover_rate, 1.0, GENERATIONS - 1, verbose=False)
        return trace

    def pymoo(self, seed: int) -> Trace:
        """`GA` as it comes, on real numbers: codes are rounded, thresholds varied on a log scale.

        Raises:
            MissingExtraError: pymoo is not installed.
        """
        try:
            from pymoo.algorithms.soo.nonconvex.ga import GA
            from pymoo.config import Config
            from pymoo.core.problem import Problem as Rival
            from pymoo.optimize import minimize
        except ImportError:
            raise MissingExtraError("measuring against pymoo", "pymoo", "bench") from None
        Config.warnings["not_compiled"] = False
        genes, task, trace = self.space.genes, self, Trace()
        log = np.array([gene.kind == "log" for gene in genes])
        whole = np.array([gene.kind in ("flag", "option", "width") for gene in genes])
        low, high = (np.array([getattr(gene, side) for gene in genes], dtype=np.float64) for side in ("low", "high"))
        low[log], high[log] = np.log(low[log]), np.log(high[log])

        class Rules(Rival):  # type: ignore[misc]
            def _evaluate(self, x: NDArray[np.float64], out: dict[str, Any], *_: Any, **__: Any) -> None:
                rows = np.where(whole, np.rint(x), x)
                rows[:, log] = np.exp(rows[:, log])
                fitness = task.fitness(tidy(genes, rows))
                trace.note(float(fitness.max()))
                out["F"] = -fitness[:, None]

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            problem = Rules(n_var=len(genes), n_obj=1, xl=low, xu=high)
            minimize(problem, GA(pop_size=POPULATION), ("n_gen", GENERATIONS), seed=seed, verbose=False)
        return trace


def _person(base: Any, row: list[float]) -> Any:
    class Fitness(base.Fitness):  # type: ignore[misc]
        weights = (1.0,)

    return _Person(row, Fitness())


class _Person(list[float]):
    """A list of genes with a fitness, as DEAP wants it."""

    def __init__(self, row: Iterable[float], fitness: Any) -> None:
        super().__init__(row)
        self.fitness = fitness

    def __deepcopy__(self, memo: Any) -> _Person:
        fitness = type(self.fitness)()
        fitness.wvalues = self.fitness.wvalues
        return _Person(self, fitness)


def mutated(person: Any, genes: Sequence[Gene], rate: float, rng: np.random.Generator) -> Any:
    """The list of genes, each changed with probability `rate` by a step of its kind as `mutate_genes` makes it."""
    draws = rng.random((3, len(genes))).tolist()
    for j, gene in enumerate(genes):
        if draws[0][j] >= rate:
            continue
        one, other = draws[1][j], draws[2][j]
        if gene.kind == "flag":
            person[j] = 1.0 - person[j]
        elif gene.kind == "option":
            person[j] = 0.0 if person[j] > 0 and one < 0.5 else 1.0 + int(other * gene.high)
        elif gene.kind == "width":
            step = person[j] + (1.0 if other < 0.5 else -1.0)
            drawn = float(int(other * (gene.high + 1)))
            person[j] = min(max(step, gene.low), gene.high) if one < 0.5 else drawn
        elif gene.kind == "fraction":
            value = person[j] + 0.05 * rng.normal() if one >= 0.2 else (0.0 if other < 0.5 else other * gene.high)
            person[j] = round(min(max(value, gene.low), gene.high), 3)
        else:
            drawn = math.exp(math.log(gene.low) + other * math.log(gene.high / gene.low))
            value = drawn if one < 0.2 else person[j] * math.exp(0.7 * rng.normal())
            person[j] = float(f"{min(max(value, gene.low), gene.high):.2g}")
    return person


def to_quality(
    traces: Mapping[str, Sequence[Trace]], goals: Mapping[str, float | None], fitness: float
) -> list[Measure]:
    """How many times sooner than each rival a campaign reaches this fitness; a rival that never does ended sooner."""
    ours = [trace.reached(fitness) for trace in traces[CAMPAIGN]]
    found = []
    for rival in goals:
        theirs = [trace.reached(fitness) for trace in traces[rival]]
        values = tuple(b / a for (a, _), (b, _) in zip(ours, theirs, strict=True))
        reached = (
            f"{CAMPAIGN} reached it {sum(r for _, r in ours)} of {len(ours)} times, {rival} {sum(r for _, r in theirs)}"
        )
        remark = f"{reached}; where it was not reached, until {GENERATIONS} generations were over"
        found.append(
            Measure(TOPIC, f"time to fitness {fitness:.4f}: {CAMPAIGN} against {rival}", values, "x", None, {}, remark)
        )
    return found


def large(rounds: int) -> Measure:
    """Genomes per second of a whole campaign at 100,000 a generation, from its first ask to its last journal line."""
    values, wholes = [], []
    campaign(0, LARGE, 2)
    for seed in range(rounds):
        began = time.perf_counter()
        trace = campaign(seed, LARGE, LARGE_GENERATIONS)
        wholes.append(LARGE * LARGE_GENERATIONS / (time.perf_counter() - began))
        values.append(LARGE * LARGE_GENERATIONS / trace.at[-1])
    remark = f"with reading the config, finalists and report {statistics.median(wholes):,.0f} a second"
    what = f"rule genomes a second, population {LARGE:,}, {LARGE_GENERATIONS} generations, ask to journal"
    return Measure(TOPIC, what, tuple(values), "1/s", 1e6, {}, remark)
