"""Real networks: what each way of allocating reaches, what it spends, and whether the difference can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL = 0.95


def own_models_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """A table for each task: medians over seeds, and the paired share of the row that is best on selection data."""
    return [_task_table(task, [row for row in rows if row["task"] == task]) for task in _names(rows, "task")]


def _task_table(task: str, rows: Sequence[dict[str, Any]]) -> Table:
    names = _names(rows, "name")
    best = max(names, key=lambda name: _median(rows, name, "selection"))
    cells = []
    for name in names:
        mine = [row for row in rows if row["name"] == name]
        test = _figures(rows, name, "test", "fitness")
        share, low, high = paired_share(test, _figures(rows, best, "test", "fitness"))
        verdict = "—" if name == best else "ahead" if low > 1 else "behind" if high < 1 else "not distinguishable"
        retention = _figures(rows, name, "test", "retention")
        cells.append(
            (
                name + (" (best on selection)" if name == best else ""),
                f"{np.median([row['passes'] for row in mine]):.1f}",
                f"{np.median([row['allocations'] for row in mine]):g}",
                f"{np.median(_figures(rows, name, 'test', 'compression')):.2f}x",
                f"{_median(rows, name, 'calibration'):.2f}",
                f"{_median(rows, name, 'selection'):.2f}",
                f"{np.median(test):.2f}",
                f"{test.min():.2f} to {test.max():.2f}",
                f"{np.median(retention):.2%} ({retention.min():.2%})",
                f"{np.median(test) / _median(rows, best, 'test'):.1%}",
                f"{share:.1%} ({low:.1%} to {high:.1%})",
                verdict,
            )
        )
    seeds = sorted({row["seed"] for row in rows})
    columns = (
        "Way",
        "Passes",
        "Allocations",
        "Compr.",
        "Calibration",
        "Selection",
        "Test",
        "over seeds",
        "Test retention (worst)",
        "of best",
        "paired (95%)",
        "",
    )
    notes = (
        f"Medians of fitness over {len(seeds)} seeds, each a new training, split and search. Passes: full ones over "
        "the calibration split, signals and FP32 reference included; those over the selection split (at most 32 "
        "finalists) are not. Paired: mean over seeds of the ratio of test fitness to that of the row with the best "
        "median on selection data, with its 95% t-interval.",
    )
    return Table(task, columns, cells, notes, frozenset(range(1, len(columns) - 1)))


def paired_share(mine: NDArray[np.float64], best: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of the seeds' ratios with its 95% t-interval; one seed has no interval, which is then without bounds."""
    ratios = mine / best
    mean = float(ratios.mean())
    if len(ratios) < 2:
        return mean, float("-inf"), float("inf")
    from scipy.special import stdtrit

    half = float(stdtrit(len(ratios) - 1, 0.5 + LEVEL / 2) * ratios.std(ddof=1) / np.sqrt(len(ratios)))
    return mean, mean - half, mean + half


def _names(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _figures(rows: Sequence[dict[str, Any]], name: str, split: str, key: str) -> NDArray[np.float64]:
    mine = sorted((row for row in rows if row["name"] == name), key=lambda row: int(row["seed"]))
    return np.array([row["scores"][split][key] for row in mine], dtype=np.float64)


def _median(rows: Sequence[dict[str, Any]], name: str, split: str) -> float:
    return float(np.median(_figures(rows, name, split, "fitness")))
