"""How far heuristics are from the certified optimum, also on models that no search has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.bounds.greedy import greedy
from evoquant.bounds.optimum import certify
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.builtin import any_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.table import Table
from evoquant.scoring.objective import Cliff, score
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.report.data import RunData
    from evoquant.scoring.problem import Problem

    Allocator = Callable[[Problem], NDArray[np.int8]]

CLIFF = Cliff()
GREEDY = "greedy, loss per bit"
PUBLISHED = "published champion"


def baselines() -> dict[str, Allocator]:
    """Uniform widths, the published champion, and the greedy descent that solves every model anew."""
    found: dict[str, Allocator] = {f"uniform {name}": _uniform(i) for i, name in enumerate(SEED_MENU.names)}
    found[PUBLISHED] = STRATEGIES["wider_fp16_zone"].allocate
    found[GREEDY] = lambda problem: greedy(problem, CLIFF)
    return found


def strategies() -> dict[str, Allocator]:
    """Every named strategy."""
    return {name: genome.allocate for name, genome in STRATEGIES.items()}


def stated() -> dict[str, Any]:
    """Label of a baseline or a named strategy → its genome as JSON; those without one say all in their label."""
    genomes = {name: genome.to_dict() for name, genome in STRATEGIES.items()}
    return {**genomes, PUBLISHED: genomes["wider_fp16_zone"]}


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
        rows.append(
            {
                "model": name,
                "layers": len(problem.layers),
                "optimum": bound.upper_bound,
                "gap": bound.gap,
                "fitness": _fitness(found, problem),
            }
        )
    return rows


def fitness_rows(found: Mapping[str, Allocator], models: Sequence[str]) -> list[dict[str, Any]]:
    """One row a model: each allocator's fitness, as in `share_rows`, without the optimum."""
    return [
        {"model": name, "fitness": _fitness(found, compile_problem(any_profile(name), SEED_MENU))} for name in models
    ]


def _fitness(found: Mapping[str, Allocator], problem: Problem) -> dict[str, float]:
    allocations = np.stack([allocate(problem) for allocate in found.values()])
    retention = retention_of(loss_sums(problem, allocations))
    fitness = score(CLIFF, (problem,), retention[:, None], cost_sums(problem, allocations)[:, None]).fitness
    return dict(zip(found, fitness.tolist(), strict=True))


def champion_row(run: RunData) -> dict[str, Any]:
    """One finished run as plain data: what its champion is, and its share of the optimum where it was trained."""
    assert run.champion is not None
    scores = run.champion.scores
    return {
        "campaign": run.config.name,
        "seed": run.config.seed,
        "config_hash": run.config_hash,
        "evaluations": run.journal[-1]["evaluations"]["asked"],
        "parts": run.champion.genome.parts,
        "champion": run.champion.genome.text,
        "genome": run.champion.genome.to_dict(),
        "share_of_optimum": {split: figures["share_of_optimum"] for split, figures in scores.items()},
        "fitness": {split: figures["fitness"] for split, figures in scores.items()},
    }


def groups_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Campaign → labels of its champions, as in `champions_of`."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["campaign"], []).append(_label(row))
    return found


def champions_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Allocator]:
    """Label → allocator of every champion of `champion_row`s."""
    return {_label(row): genome_from_dict(row["genome"], _label(row)).allocate for row in rows}


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['campaign']} {row['seed']}"


def test_log_row(rows: Sequence[Mapping[str, Any]], suite: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a look at TEST saw: whose champions (configs by hash), and their shares of its optimum, worst to best."""
    test = suite[-1]
    return {
        "model": test["model"],
        "campaigns": {
            name: {
                "config_hash": sorted({row["config_hash"] for row in rows if row["campaign"] == name}),
                "share_of_optimum": sorted(float(shares([test], label)[0]) for label in labels),
            }
            for name, labels in groups_of(rows).items()
        },
    }


def carry_table(title: str, rows: Sequence[Mapping[str, Any]], suite: Sequence[Mapping[str, Any]]) -> Table:
    """How the champions of each campaign do on the suite's last model: quartiles, and how many reach 99% and 98%."""
    test = suite[-1]
    cells = []
    for name, labels in groups_of(rows).items():
        mine = [row for row in rows if row["campaign"] == name]
        share = np.array([shares([test], label)[0] for label in labels])
        fitness = np.array([test["fitness"][label] for label in labels])
        low, middle, high = np.quantile(share, [0.25, 0.5, 0.75])
        cells.append(
            (
                name,
                f"{np.median([row['share_of_optimum']['train'] for row in mine]):.2%}",
                f"{np.median([row['share_of_optimum']['valid'] for row in mine]):.2%}",
                f"{share.min():.2%}",
                f"{low:.2%}",
                f"{middle:.2%}",
                f"{high:.2%}",
                f"{int((share >= 0.99).sum())} of {len(labels)}",
                f"{fitness.min():.4f}",
                f"{np.median([row['parts'] for row in mine]):g}",
            )
        )
    columns = ("Campaign", "Train", "Valid", "TEST, worst", "Q1", "Median", "Q3", "≥ 99%", "Worst fitness", "Parts")
    return Table(title, columns, cells, numeric=frozenset(range(1, len(columns))))


def champions_table(title: str, rows: Sequence[Mapping[str, Any]], suite: Sequence[Mapping[str, Any]]) -> Table:
    """Every champion, with its share of the optimum on train and valid models and on the suite's last model."""
    cells: list[tuple[str, ...]] = [
        (
            row["campaign"],
            str(row["seed"]),
            f"{row['share_of_optimum']['train']:.2%}",
            f"{row['share_of_optimum']['valid']:.2%}",
            f"{shares([suite[-1]], _label(row))[0]:.2%}",
            row["champion"],
        )
        for row in rows
    ]
    columns = ("Campaign", "Seed", "Train", "Valid", "TEST", "Champion")
    return Table(title, columns, cells, numeric=frozenset({1, 2, 3, 4}))


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


def ceiling_row(run: RunData) -> dict[str, Any]:
    """The best that one search found on the very model it searched, as plain data."""
    assert run.champion is not None and run.config.models is not None
    return {
        "campaign": run.config.name,
        "seed": run.config.seed,
        "config_hash": run.config_hash,
        "model": run.config.models.train[0],
        "ceiling": run.champion.scores["train"]["fitness"],
        "text": run.champion.genome.text,
    }


def gap_table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    ceilings: Sequence[Mapping[str, Any]],
) -> Table:
    """Fitness and share of the certified optimum on each model: medians of groups, the best of ceilings, best last.

    Args:
        title: of the table.
        rows: `share_rows` of the models.
        groups: name → labels in `rows`; several for the champions of several seeds.
        ceilings: `ceiling_row`s, on the same models.
    """
    lines: list[tuple[str, list[float]]] = [
        (
            f"{name} (median of {len(labels)})" if len(labels) > 1 else name,
            [float(np.median([row["fitness"][label] for label in labels])) for row in rows],
        )
        for name, labels in groups.items()
    ]
    for name in dict.fromkeys(row["campaign"] for row in ceilings):
        mine = [row for row in ceilings if row["campaign"] == name]
        best = [max(c["ceiling"] for c in mine if c["model"] == row["model"]) for row in rows]
        lines.append((f"{name}: searched on the model itself", best))
    lines.append(("certified optimum", [row["optimum"] for row in rows]))
    cells = [
        (name, *(f"{value:.4f} ({value / row['optimum']:.1%})" for value, row in zip(values, rows, strict=True)))
        for name, values in sorted(lines, key=lambda line: line[1][-1])
    ]
    columns = ("Heuristic", *(row["model"] for row in rows))
    gap = max(row["gap"] for row in rows)
    note = f"The optimum over all allocations is certified with a gap of {gap:.1%}. Rows are sorted by the last column."
    return Table(title, columns, cells, (note,), frozenset(range(1, len(columns))))


def _uniform(width: int) -> Allocator:
    def allocate(problem: Problem) -> NDArray[np.int8]:
        return problem.repair_one(np.full(len(problem.units), width, dtype=np.int8))

    return allocate
