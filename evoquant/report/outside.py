"""Other people's optimisers beside ours as tables: medians, quartiles, and a two-sided test against each of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.compare_statistics import (
    Contrast,
    holm,
    paired_contrast,
    smallest_paired,
    unpaired_contrast,
)
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Row = dict[str, Any]
LEVEL = 0.05


def suite_table(title: str, rows: Sequence[Row], ours: Sequence[str], budget: int) -> Table:
    """Rules on the seed suite: how many runs reached the optimum, after how many evaluations."""
    needed = _values(rows, lambda row: budget + 1 if row["reached_after"] is None else row["reached_after"])
    tests = _tests({name: -values for name, values in needed.items()}, ours, paired=False)
    cells = []
    for name, values in needed.items():
        train = np.array([row["fitness"]["train"] for row in rows if row["search"] == name])
        reached = int((values <= budget).sum())
        quartiles = [_count(value, budget) for value in np.quantile(values, [0.25, 0.5, 0.75], method="higher")]
        cells.append((name, f"{reached} of {len(values)}", *quartiles, f"{np.median(train):.4f}", *tests[name]))
    columns = ("Search", "Reached", "Q1", "Median", "Q3", "Train fitness, median", *_headings(tests, ours))
    return Table(title, columns, cells, (), frozenset(range(1, len(columns))))


def truth_table(title: str, rows: Sequence[Row], ours: Sequence[str]) -> Table:
    """One frozen table: shares of the optimum after so many measured allocations."""
    points = sorted(rows[0]["share"], key=int)
    last = _values(rows, lambda row: row["share"][points[-1]])
    tests = _tests(last, ours, paired=False)
    cells = []
    for name, values in last.items():
        early = [np.median([row["share"][point] for row in rows if row["search"] == name]) for point in points[:-1]]
        test = np.median([row["test"] for row in rows if row["search"] == name])
        quartiles = [f"{value:.2%}" for value in np.quantile(values, [0.25, 0.5, 0.75])]
        seeds = str(len(values))
        cells.append((name, seeds, *(f"{value:.2%}" for value in early), *quartiles, f"{test:.3f}", *tests[name]))
    columns = (
        "Search",
        "Seeds",
        *(f"Median after {point}" for point in points[:-1]),
        *(f"{word} after {points[-1]}" for word in ("Q1", "Median", "Q3")),
        "Test fitness, median",
        *_headings(tests, ours),
    )
    return Table(title, columns, cells, (), frozenset(range(1, len(columns))))


def network_table(title: str, rows: Sequence[Row], ours: Sequence[str]) -> Table:
    """One real network: the best on calibration, and the champion on test."""
    best = _values(rows, lambda row: row["best"])
    tests = _tests(best, ours, paired=True)
    cells = []
    for name, values in best.items():
        mine = [row for row in rows if row["search"] == name]
        quartiles = [f"{value:.3f}" for value in np.quantile(values, [0.25, 0.5, 0.75])]
        champion = [f"{value:.3f}" for value in np.quantile([row["test"] for row in mine], [0.25, 0.5, 0.75])]
        cells.append((name, *quartiles, *champion, *tests[name]))
    columns = (
        "Search",
        *(f"Best, {word}" for word in ("Q1", "median", "Q3")),
        *(f"Champion on test, {word}" for word in ("Q1", "median", "Q3")),
        *_headings(tests, ours),
    )
    seeds = len(next(iter(best.values())))
    note = (
        f"Tests pair the seeds, each a network and a split of its own; of {seeds} the smallest p that there can be is "
        f"{smallest_paired(seeds):.3f}, before the correction."
    )
    return Table(title, columns, cells, (note,), frozenset(range(1, len(columns))))


def _values(rows: Sequence[Row], value: Callable[[Row], float]) -> dict[str, NDArray[np.float64]]:
    """Search → a value of each seed, in the order of the rows."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["search"], []).append(float(value(row)))
    return {name: np.array(values) for name, values in found.items()}


def _headings(tests: dict[str, list[str]], ours: Sequence[str]) -> list[str]:
    return [f"against {name}" for name in ours if name in tests]


def _tests(values: dict[str, NDArray[np.float64]], ours: Sequence[str], *, paired: bool) -> dict[str, list[str]]:
    """Search → how it does against each of ours, where more is better; p after Holm's correction for each of ours."""
    cells: dict[str, list[str]] = {name: [] for name in values}
    contrast = paired_contrast if paired else unpaired_contrast
    for own in (name for name in ours if name in values):
        found = {name: contrast(mine, values[own]) for name, mine in values.items() if name != own}
        corrected = dict(zip(found, holm([one.p for one in found.values()]), strict=True))
        for name in values:
            cells[name].append("" if name == own else _verdict(found[name], corrected[name]))
    return cells


def _verdict(contrast: Contrast, p: float) -> str:
    """Better, worse or no difference that the runs show."""
    if p > LEVEL:
        return f"p {p:.2f}"
    return (
        f"{'better' if contrast.superiority > 1 / 2 else 'worse'}, p {p:.3f}"
        if p >= 5e-4
        else (f"{'better' if contrast.superiority > 1 / 2 else 'worse'}, p < 0.001")
    )


def _count(value: float, budget: int) -> str:
    return str(int(value)) if value <= budget else "not reached"
