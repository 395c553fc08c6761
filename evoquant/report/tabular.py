"""The benchmark on the frozen tables as tables: expected best after so many evaluations, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.table import Table
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2_000
CLOSE = (0.99, 0.95)


def tabular_table(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    """One frozen table's searches, in the order of `rows`.

    Args:
        about: the table's facts.
        rows: one for each search and seed, as `evoquant.bench.study` gives them.
    """
    mine = [row for row in rows if row["table"] == about["table"]]
    points = sorted(mine[0]["share"], key=int) if mine else []
    cells = []
    for name in dict.fromkeys(row["search"] for row in mine):
        runs = [row for row in mine if row["search"] == name]
        shares = {point: np.array([run["share"][point] for run in runs]) for point in points}
        last = shares[points[-1]]
        test = np.array([run["test"][points[-1]] for run in runs])
        cells.append(
            (
                name,
                str(len(runs)),
                *(_interval(shares[point]) for point in points),
                *(f"{float((last >= close).mean()):.0%}" for close in CLOSE),
                f"{test.mean():.3f}",
            )
        )
    columns = (
        "Search",
        "Seeds",
        *(f"Best after {point}" for point in points),
        *(f"Within {1 - close:.0%}" for close in CLOSE),
        "Test fitness",
    )
    title = f"{about['table']}: {about['units']} units, {about['allocations']:,} allocations"
    settings = {row["search"]: row["settings"] for row in mine if row["settings"]}
    listed = "; ".join(f"{name} {text}" for name, text in settings.items())
    notes = (*_notes(about), *([f"Settings: {listed}."] if listed else []))
    return Table(title, columns, cells, notes, frozenset(range(1, len(columns))))


def _notes(about: Mapping[str, Any]) -> tuple[str, ...]:
    within = about["within"]
    samples = ", ".join(f"{size:,} {split}" for split, size in about["samples"].items())
    return (
        f"Optimum {about['optimum']:.4f}, widths {about['allocation']} (0 is the narrowest), retention "
        f"{about['retention']:.4f}; its test fitness is {about['test']:.3f}, the best test fitness of any allocation "
        f"{about['best_test']:.3f}. {about['feasible']:.1%} of all allocations hold the floor; {within['1']} reach 99% "
        f"of the optimum, {within['3']} 97% and {within['5']} 95%. Samples: {samples}.",
        "Best: calibration fitness as a share of the optimum, mean over seeds (95% bootstrap interval of the mean). An "
        "evaluation is a distinct allocation measured on calibration; signals that a search reads count at their "
        "passes. Test fitness: of the best allocation after the last evaluation.",
    )


def _interval(values: NDArray[np.float64]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1%}"
    mean, low, high = mean_interval(values)
    return f"{mean:.1%} ({low:.1%}–{high:.1%})"


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean with its 95% bootstrap interval; one value has none, which is then that value."""
    draws = generator_for(0, len(values), "tabular").integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
