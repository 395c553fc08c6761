"""How far heuristics are from the certified optimum, also on models that no search has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bounds.greedy import greedy
from evoquant.bounds.optimum import certify
from evoquant.campaign.build import any_profile
from evoquant.genomes.strategies import STRATEGIES
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.tables import Table
from evoquant.scoring.objective import Cliff, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome
    from evoquant.scoring.problem import Problem

    Allocator = Callable[[Problem], NDArray[np.int8]]

CLIFF = Cliff()
GREEDY = "greedy, loss per bit"


def baselines() -> dict[str, Allocator]:
    """Uniform widths, the published champion, and the greedy descent that solves every model anew."""
    found: dict[str, Allocator] = {f"uniform {name}": _uniform(i) for i, name in enumerate(SEED_MENU.names)}
    found["published champion"] = STRATEGIES["wider_fp16_zone"].allocate
    found[GREEDY] = lambda problem: greedy(problem, CLIFF)
    return found


def strategies() -> dict[str, Allocator]:
    """Every named strategy."""
    return {name: genome.allocate for name, genome in STRATEGIES.items()}


def allocators(genomes: Mapping[str, Genome]) -> dict[str, Allocator]:
    """Genomes under their labels."""
    return {label: genome.allocate for label, genome in genomes.items()}


def share_rows(found: Mapping[str, Allocator], models: Sequence[str]) -> list[dict[str, Any]]:
    """One row a model: its certified optimum (with the gap) and each allocator's fitness, under the published cliff.

    Args:
        found: label → a function from a model to its allocation.
        models: profile names or files.
    """
    rows = []
    for name in models:
        problem = compile_problem(any_profile(name), SEED_MENU)
        bound = certify(problem, CLIFF)
        allocations = np.stack([allocate(problem) for allocate in found.values()])
        retention = retention_of(loss_sums(problem, allocations))
        fitness = score(CLIFF, (problem,), retention[:, None], cost_sums(problem, allocations)[:, None]).fitness
        rows.append(
            {
                "model": name,
                "layers": len(problem.layers),
                "optimum": bound.upper_bound,
                "gap": bound.gap,
                "fitness": dict(zip(found, fitness.tolist(), strict=True)),
            }
        )
    return rows


def shares(rows: Sequence[Mapping[str, Any]], label: str) -> NDArray[np.float64]:
    """`(models,)` fitness as a share of the certified optimum."""
    return np.array([row["fitness"][label] / row["optimum"] for row in rows])


def spread_table(title: str, rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> Table:
    """Median, 5th percentile and minimum of the share of the optimum, over models and the labels of each group."""
    cells = []
    for name, labels in groups.items():
        values = np.concatenate([shares(rows, label) for label in labels])
        low, middle = np.quantile(values, [0.05, 0.5])
        below = np.mean([row["fitness"][label] < 0.1 for row in rows for label in labels])
        cells.append((name, f"{middle:.2%}", f"{low:.2%}", f"{values.min():.2%}", f"{below:.1%}", str(len(labels))))
    columns = ("Heuristic", "Median", "5th percentile", "Worst", "Below the cliff", "Champions")
    return Table(title, columns, cells, numeric=frozenset(range(1, len(columns))))


def gap_table(title: str, rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> Table:
    """Fitness and share of the certified optimum on each model; the median where a group has several labels."""
    cells = [("certified optimum", *(f"{row['optimum']:.4f} (100%)" for row in rows))]
    for name, labels in groups.items():
        figures = []
        for row in rows:
            fitness = float(np.median([row["fitness"][label] for label in labels]))
            figures.append(f"{fitness:.4f} ({fitness / row['optimum']:.1%})")
        cells.append((name, *figures))
    columns = ("Heuristic", *(row["model"] for row in rows))
    return Table(title, columns, cells, numeric=frozenset(range(1, len(columns))))


def _uniform(width: int) -> Allocator:
    def allocate(problem: Problem) -> NDArray[np.int8]:
        return problem.repair_one(np.full(len(problem.units), width, dtype=np.int8))

    return allocate
