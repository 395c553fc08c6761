"""Cost tables against the real thing: sums of parts beside whole networks, and fronts of three objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.table import Table
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Row = Mapping[str, Any]

NS = "nanoseconds"


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's: the correlation of ranks, equal values with the mean of theirs."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[place]
    return ranks


def prediction_table(rows: Sequence[Row]) -> Table:
    """A line for each network and target: latency and bytes, predicted against measured."""
    cells = []
    for table in (row for row in rows if row["part"] == "table"):
        mine = [row for row in rows if row["part"] == "allocation" and _same(row, table)]
        predicted, measured, spread = (
            np.array([row[key] for row in mine], dtype=np.float64)
            for key in ("predicted_ns", "measured_ns", "spread_ns")
        )
        errors = np.abs(measured / predicted - 1)
        counted, stored = (np.array([row[key] for row in mine]) for key in ("predicted_bytes", "stored_bytes"))
        cells.append(
            (
                table["network"],
                table["target"],
                str(len(mine)),
                f"{amount_text(measured.min(), NS)} to {amount_text(measured.max(), NS)}",
                f"{float(np.median(spread / measured)):.1%}",
                f"{rank_correlation(predicted, measured):.3f}",
                f"{float(np.median(errors)):.1%}",
                f"{errors.max():.1%}",
                f"{int(np.abs(counted - stored).max()):,}",
                f"{amount_text(stored.min(), 'bytes')} to {amount_text(stored.max(), 'bytes')}",
            )
        )
    columns = (
        *("Network", "Target", "Allocations", "Measured latency", "Spread"),
        *("Rank correlation", "Median error", "Largest error", "Bytes off, most", "Bytes in the file"),
    )
    notes = (
        "Predicted: the sum of the parts. Spread: interquartile range of a network's own rounds, median over networks. "
        "Error: measured over predicted, less 1, without its sign. None of these networks is among those that the "
        "tables were fitted to. A table orders allocations as far as the rank correlation says; the error says whether "
        "its milliseconds can be believed.",
        *_machines(rows),
    )
    title = "Predicted against measured"
    return Table(title, columns, cells, notes, frozenset({2, 4, 5, 6, 7, 8}))


def uniform_table(rows: Sequence[Row]) -> Table:
    """Networks of one width: what a width costs on a target, and the sum of the parts beside it."""
    cells = [
        (
            table["network"],
            table["target"],
            one["width"],
            amount_text(one["predicted"], NS),
            f"{amount_text(one['measured'], NS)} ± {amount_text(one['spread'], NS)}",
            f"{one['measured'] / one['predicted'] - 1:+.1%}",
        )
        for table in rows
        if table["part"] == "table"
        for one in table["uniform"]
    ]
    columns = ("Network", "Target", "Width", "Sum of the parts", "Measured", "Difference")
    note = (
        "The layers are measured one by one, in other memory and with other things in the caches than in the network; "
        "the differences are what does not add up. The table was fitted to these very networks (its constant part, or "
        "its scale, is the median of theirs), so that one of them is off by nothing."
    )
    return Table("One width throughout", columns, cells, (note,), frozenset({3, 4, 5}))


def front_table(rows: Sequence[Row], target: str) -> Table:
    """What fronts of two and of three objectives know: the least of each cost at each floor of retention."""
    mine = [row for row in rows if row["part"] == "front" and row["target"] == target]
    floors = [one["floor"] for one in mine[0]["least"]]
    cells = []
    for row in mine:
        least = [
            f"{amount_text(one['bytes'], 'bytes')}, {amount_text(one['latency_ns'], NS)}" if one["points"] else "none"
            for one in row["least"]
        ]
        cells.append((", ".join(row["objectives"]), str(row["points"]), f"{row['share']:.1%}", *least))
    columns = ("Objectives", "Points", "Share of the box", *(f"Retention {floor:.1%}" for floor in floors))
    notes = (
        "The fewest bytes and the least latency (by the table) of any point at or above a floor of retention; they "
        "need not be of one point. The box: from nothing to the FP32 network's bytes and latency, retention from 0.9 "
        "to 1; its share is what a front's points dominate of it, each with both of its costs.",
    )
    return Table(f"Fronts of the MLP on {target}", columns, cells, notes, frozenset(range(1, len(columns))))


def _same(row: Row, other: Row) -> bool:
    return bool(row["network"] == other["network"] and row["target"] == other["target"])


def _machines(rows: Sequence[Row]) -> list[str]:
    tables = [row for row in rows if row["part"] == "table"]
    runtimes = ", ".join(dict.fromkeys(str(row["runtime"]) for row in tables))
    processors = ", ".join(dict.fromkeys(str(row["machine"]["processor"]) for row in tables))
    noise = ", ".join(f"{amount_text(row['noise_ns'], NS)} ({row['network']}, {row['target']})" for row in tables)
    return [
        f"{runtimes}; {processors}, one thread; medians of the process's own processor time: the machine is shared.",
        f"Noise, by which a table is refused where allocations differ by less than twice as much: {noise}.",
    ]
