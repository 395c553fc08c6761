"""Many seeds of one campaign, summed up: who reaches a level, after how many evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.files import canonical_json, write_atomic
from evoquant.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evoquant.report.data import RunData


def study_row(run: RunData, level: float) -> dict[str, Any]:
    """One finished run as plain data: scores, and the evaluation that first reached `level` in train fitness."""
    assert run.champion is not None
    reached = None
    for record in run.journal:
        if record["champion"] is not None and record["champion"]["fitness"] >= level:
            first = [
                i
                for i, fitness in enumerate(record["population"]["fitness"])
                if fitness is not None and fitness >= level
            ]
            reached = record["population"]["first_id"] + first[0] + 1
            break
    return {
        "campaign": run.config.name,
        "seed": run.config.seed,
        "config_hash": run.config_hash,
        "evaluations": run.journal[-1]["evaluations"]["asked"],
        "reached_after": reached,
        "fitness": {split: figures["fitness"] for split, figures in run.champion.scores.items()},
        "champion": run.champion.genome.text,
    }


def study_table(title: str, rows: Sequence[dict[str, Any]], notes: tuple[str, ...] = ()) -> Table:
    """Share that reached the level, evaluations needed (runs that never did count as above all), test fitness."""
    cells = []
    for name in dict.fromkeys(row["campaign"] for row in rows):
        mine = [row for row in rows if row["campaign"] == name]
        needed = np.array([np.inf if row["reached_after"] is None else row["reached_after"] for row in mine])
        low, middle, high = np.quantile(needed, [0.25, 0.5, 0.75], method="higher")
        test = np.array([row["fitness"]["test"] for row in mine])
        train = np.array([row["fitness"]["train"] for row in mine])
        cells.append(
            (
                name,
                f"{int(np.isfinite(needed).sum())} of {len(mine)}",
                _count(low),
                _count(middle),
                _count(high),
                str(mine[0]["evaluations"]),
                f"{np.median(train):.4f}",
                f"{test.min():.4f}",
                f"{np.median(test):.4f}",
                f"{test.max():.4f}",
            )
        )
    columns = (
        "Campaign",
        "Reached",
        "First quartile",
        "Median",
        "Third quartile",
        "Budget",
        "Train, median",
        "Test, min",
        "Test, median",
        "Test, max",
    )
    return Table(title, columns, cells, notes, frozenset(range(1, len(columns))))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write raw rows as JSON lines."""
    write_atomic(path, "".join(canonical_json(row) + "\n" for row in rows))


def _count(value: float) -> str:
    return f"{int(value)}" if np.isfinite(value) else "not reached"
