"""Real networks: what each way of allocating reaches, what it spends, and whether the difference can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL = 0.95
FLOOR = 0.95
OURS = "evoquant "
PLAIN = "plain evolution"
GOALS = {15: 0.95, 25: 0.98, 80: 1.0, 400: 1.0}  # passes → share of the best row's test fitness


def own_models_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Two tables for each task: every way's medians over seeds, and evoquant's goals beside what was reached."""
    tables = []
    for task in _names(rows, "task"):
        mine = [row for row in rows if row["task"] == task]
        tables += [_task_table(task, mine), _goal_table(task, mine)]
    return tables


def _task_table(task: str, rows: Sequence[dict[str, Any]]) -> Table:
    names = _names(rows, "name")
    best = best_way(rows)
    cells = []
    for name in names:
        mine = [row for row in rows if row["name"] == name]
        test = _figures(rows, name, "test", "fitness")
        share, low, high = paired_share(*_paired(rows, name, best))
        verdict = "—" if name == best else "ahead" if low > 1 else "behind" if high < 1 else "not distinguishable"
        retention = _figures(rows, name, "test", "retention")
        cells.append(
            (
                name + (" (best on selection)" if name == best else ""),
                str(len(mine)),
                f"{np.median([row['passes'] for row in mine]):.1f}",
                f"{np.median([row['allocations'] for row in mine]):g}",
                f"{np.median(_figures(rows, name, 'test', 'compression')):.2f}x",
                f"{_median(rows, name, 'calibration'):.2f}",
                f"{_median(rows, name, 'selection'):.2f}",
                f"{np.median(test):.2f}",
                f"{np.median(falls(rows, name)):+.1%}",
                f"{test.min():.2f} to {test.max():.2f}",
                f"{np.median(retention):.2%} ({retention.min():.2%})",
                f"{share_of_best(rows, name, best):.1%}",
                f"{share:.1%} ({low:.1%} to {high:.1%})",
                verdict,
            )
        )
    seeds = sorted({row["seed"] for row in rows})
    columns = (
        "Way",
        "Seeds",
        "Passes",
        "Allocations",
        "Compr.",
        "Calibration",
        "Selection",
        "Test",
        "fall",
        "over seeds",
        "Test retention (worst)",
        "of best",
        "paired (95%)",
        "",
    )
    notes = (
        f"Medians of fitness over {len(seeds)} seeds, each a new training, split and search. Passes: full ones over "
        "the calibration split, signals and FP32 reference included; those over the selection split (at most 32 "
        "finalists) are not. Fall: median over seeds of how much lower fitness is on test than on calibration data. "
        "Champions are chosen by calibration and selection data together, but for those that say otherwise. Paired: "
        "mean over seeds of the ratio of test fitness to that of the row with the best median on selection data, with "
        "its 95% t-interval.",
    )
    return Table(task, columns, cells, notes, frozenset(range(1, len(columns) - 1)))


def _goal_table(task: str, rows: Sequence[dict[str, Any]]) -> Table:
    best, cells = best_way(rows), []
    plain = [name for name in _names(rows, "name") if name.startswith(PLAIN)]
    for name in (name for name in _names(rows, "name") if name.startswith(OURS)):
        goal = GOALS[int(name.removesuffix(" passes").rpartition(" ")[2])]
        share = share_of_best(rows, name, best)
        _, low, high = paired_share(*_paired(rows, name, best))
        told = "" if low >= goal or high < goal or name == best else ", not distinguishable"
        retention = _figures(rows, name, "test", "retention")
        cells.append(
            (
                name,
                f"{goal:.0%}",
                f"{share:.1%}",
                ("met" if share >= goal else "missed") + told,
                f"{int((retention < FLOOR).sum())} of {len(retention)}",
                f"{np.median(falls(rows, name)):+.1%}",
                *(f"{np.median(falls(rows, other)):+.1%}" for other in plain),
            )
        )
    columns = (
        "Way",
        "Goal",
        "Reached",
        "",
        "Below the floor on test",
        "Fall",
        *(f"of {name}" for name in plain),
    )
    notes = (
        f"Goal and reached: median test fitness as a share of that of {best!r}, the row that is best on selection "
        "data, whatever it spent. Not distinguishable: the goal lies within the 95% interval of the paired share.",
    )
    return Table(f"{task}: goals", columns, cells, notes, frozenset({1, 2, 4, *range(5, len(columns))}))


def best_way(rows: Sequence[dict[str, Any]]) -> str:
    """The way with the best median on selection data, of those that all seeds have."""
    names = _names(rows, "name")
    most = max(len(_seeds(rows, name)) for name in names)
    return max(
        (name for name in names if len(_seeds(rows, name)) == most), key=lambda name: _median(rows, name, "selection")
    )


def _seeds(rows: Sequence[dict[str, Any]], name: str) -> list[int]:
    return sorted(int(row["seed"]) for row in rows if row["name"] == name)


def _paired(rows: Sequence[dict[str, Any]], name: str, best: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Test fitness of a way and of the best one, on the seeds of the former."""
    kept = set(_seeds(rows, name))
    chosen = [row for row in rows if int(row["seed"]) in kept]
    return _figures(chosen, name, "test", "fitness"), _figures(chosen, best, "test", "fitness")


def share_of_best(rows: Sequence[dict[str, Any]], name: str, best: str) -> float:
    """Median test fitness as a share of the best way's."""
    mine, theirs = _paired(rows, name, best)
    return float(np.median(mine) / np.median(theirs))


def falls(rows: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """`(seeds,)` share of the fitness on calibration data that is lost on test data."""
    before = _figures(rows, name, "calibration", "fitness")
    lost: NDArray[np.float64] = 1.0 - _figures(rows, name, "test", "fitness") / before
    return lost


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
