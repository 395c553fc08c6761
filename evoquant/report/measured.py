"""Baselines beside the champion of a measured campaign, each measured the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.build import build_campaign
from evoquant.campaign.finals_measured import judge_of, measured_figures
from evoquant.genomes.strategies import strategy
from evoquant.models.base import Split
from evoquant.report.table import Table
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.report.data import RunData

SPLITS: tuple[Split, ...] = ("calibration", "selection", "test")
EVOLVED = "evolved champion"


def measured_rows(run: RunData, baselines: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each baseline and for the champion: figures on calibration, selection and test, budget and reuse.

    The network comes from the cache, outcomes from the store; what is missing is measured.
    """
    assert run.champion is not None
    campaign = build_campaign(run.config, cache_folder(run.config.cache, run.path))
    try:
        rows: list[dict[str, Any]] = []
        judge = judge_of(campaign)
        for name in (*baselines, EVOLVED):
            genome = run.champion.genome if name == EVOLVED else strategy(name)
            allocation = genome.allocate(judge.problem)
            scores = {split: measured_figures(judge, allocation, split) for split in SPLITS}
            rows.append(
                {
                    "campaign": run.config.name,
                    "seed": run.config.seed,
                    "config_hash": run.config_hash,
                    "name": name,
                    "text": genome.text,
                    "scores": scores,
                }
            )
    finally:
        campaign.close()
    asked = run.journal[-1]["evaluations"]
    rows[-1] |= {"evaluations": asked, "budget": run.champion.provenance["budget"]}
    return rows


def measured_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Medians over the seeds, and the range of test fitness."""
    cells = []
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]

        def median(split: str, key: str, mine: list[dict[str, Any]] = mine) -> float:
            return float(np.median([row["scores"][split][key] for row in mine]))

        fitness = [row["scores"]["test"]["fitness"] for row in mine]
        low = float(np.median([row["scores"]["test"]["interval"][0] for row in mine]))
        high = float(np.median([row["scores"]["test"]["interval"][1] for row in mine]))
        spent, reuse = "0", ""
        if "budget" in mine[0]:
            spent = f"{np.median([sum(row['budget'].values()) for row in mine]):g}"
            reuse = f"{np.median([1 - r['evaluations']['distinct'] / r['evaluations']['asked'] for r in mine]):.0%}"
        cells.append(
            (
                name,
                f"{median('test', 'compression'):.3f}x",
                f"{median('calibration', 'retention'):.2%}",
                f"{median('test', 'retention'):.2%}",
                f"{low:.2%} to {high:.2%}",
                f"{median('calibration', 'fitness'):.3f}",
                f"{median('test', 'fitness'):.3f}",
                f"{min(fitness):.3f} to {max(fitness):.3f}",
                spent,
                reuse,
            )
        )
    columns = (
        "Heuristic",
        "Compression",
        "Calibration retention",
        "Test retention",
        "95% interval",
        "Calibration fitness",
        "Test fitness",
        "over seeds",
        "Passes",
        "Reused",
    )
    seeds = len({row["seed"] for row in rows})
    return Table(f"Medians over {seeds} seeds", columns, cells, numeric=frozenset(range(1, len(columns))))
