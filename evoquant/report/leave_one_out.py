"""Heuristics applied to a task that they were not evolved on, beside searches made on that task itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLITS = ("calibration", "selection", "test")


def leave_one_out_tables(rows: Sequence[dict[str, Any]], references: Sequence[str]) -> list[Table]:
    """A table for each task that was left out: medians over seeds, and test fitness as a share of each reference's.

    Args:
        rows: with task, seed, name and scores; a heuristic's also with its text and its share on the train models.
        references: names of rows to take shares of, seed by seed, where both are there.
    """
    return [_table(task, [row for row in rows if row["task"] == task], references) for task in _names(rows, "task")]


def _table(task: str, rows: Sequence[dict[str, Any]], references: Sequence[str]) -> Table:
    present = [name for name in references if any(row["name"] == name for row in rows)]
    cells = []
    for name in _names(rows, "name"):
        mine = [row for row in rows if row["name"] == name]
        retention = [row["scores"]["test"]["retention"] for row in mine]
        cells.append(
            (
                name,
                str(len(mine)),
                f"{mine[0]['train']:.1%}" if "train" in mine[0] else "",
                *(f"{np.median([row['scores'][split]['fitness'] for row in mine]):.2f}" for split in SPLITS),
                f"{np.median(retention):.2%} ({min(retention):.2%})",
                *(_shares(mine, [row for row in rows if row["name"] == reference]) for reference in present),
            )
        )
    columns = (
        "Way",
        "Seeds",
        "Least share of the optimum on train models",
        "Calibration",
        "Selection",
        "Test",
        "Test retention (worst)",
        *(f"Test, of {reference}: median (worst)" for reference in present),
    )
    texts = {row["name"]: row["text"] for row in rows if "text" in row}
    notes = (
        "Medians of fitness over seeds. Nothing was measured of this task's quantized network before these figures.",
        *(f"{name}: `{text}`" for name, text in texts.items()),
    )
    return Table(f"{task} left out", columns, cells, notes, frozenset(range(1, len(columns))))


def _shares(mine: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> str:
    known = {row["seed"]: row["scores"]["test"]["fitness"] for row in reference}
    shares = [row["scores"]["test"]["fitness"] / known[row["seed"]] for row in mine if row["seed"] in known]
    return f"{np.median(shares):.1%} ({min(shares):.1%})" if shares else ""


def _names(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))
