"""Many seeds of one campaign, summed up: who reaches a level, after how many evaluations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.files import canonical_json, read_text, write_atomic
from evoquant.report.table import Table

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
        test = np.array([row["fitness"]["test"] for row in mine if "test" in row["fitness"]])
        train = np.array([row["fitness"]["train"] for row in mine])
        first, third = np.quantile(train, [0.25, 0.75])
        cells.append(
            (
                name,
                f"{int(np.isfinite(needed).sum())} of {len(mine)}",
                _count(low),
                _count(middle),
                _count(high),
                str(mine[0]["evaluations"]),
                f"{first:.4f}",
                f"{np.median(train):.4f}",
                f"{third:.4f}",
                *(f"{value:.4f}" for value in ((test.min(), np.median(test), test.max()) if len(test) else ())),
                *([""] * (0 if len(test) else 3)),
            )
        )
    columns = (
        "Campaign",
        "Reached",
        "First quartile",
        "Median",
        "Third quartile",
        "Budget",
        "Train, Q1",
        "Train, median",
        "Train, Q3",
        "Test, min",
        "Test, median",
        "Test, max",
    )
    return Table(title, columns, cells, notes, frozenset(range(1, len(columns))))


def hypervolume_row(run: RunData) -> dict[str, Any]:
    """One finished run of a search that keeps a front of one model, as plain data."""
    assert run.archive is not None and run.config.models is not None
    return {
        "campaign": run.config.name,
        "model": run.config.models.train[0],
        "seed": run.config.seed,
        "config_hash": run.config_hash,
        "evaluations": run.journal[-1]["evaluations"]["asked"],
        "points": run.archive["of"],
        **run.archive["hypervolume"],
    }


def hypervolume_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """The share of the exact front's hypervolume: worst, median and best seed of each model."""
    cells = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        share = np.array([row["share"] for row in mine])
        points = np.median([row["points"] for row in mine])
        cells.append(
            (
                model,
                f"{mine[0]['exact_front']:.4f}",
                str(mine[0]["exact_points"]),
                f"{points:g}",
                *(f"{value:.3%}" for value in (share.min(), np.median(share), share.max())),
            )
        )
    columns = ("Model", "Exact hypervolume", "Points", "Found, median", "Share, worst", "Median", "Best")
    note = "Area dominated for 2 to 32 effective bits and retention from 0.90 to 1; reference point (32, 0.90)."
    return Table(title, columns, cells, (note,), frozenset(range(1, len(columns))))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write raw rows as JSON lines."""
    write_atomic(path, "".join(canonical_json(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, [] where there is none.

    Raises:
        InputError: a line is no JSON object.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is no JSON object; take the file from git, or measure it anew.")
        rows.append(row)
    return rows


def _count(value: float) -> str:
    return f"{int(value)}" if np.isfinite(value) else "not reached"
