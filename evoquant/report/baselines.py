"""Every strategy on every model of the seed suite, with the published figures beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.evaluate import score_genomes
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.seed_suite import DATA_SETS, SPLITS, seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.journey import agrees, beside
from evoquant.report.table import Table
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIFF = Cliff()
# (strategy, data set, split) → figures as printed.
PUBLISHED: dict[tuple[str, str, str], dict[str, str]] = {
    ("mixed_fp16_int8", "seed", "test"): {"fitness": "0.0935", "retention": "93.5%", "compression": "2.43x"},
    ("gradient_weighted", "seed", "test"): {"fitness": "0.0777", "retention": "77.7%"},
    ("sensitivity_0005", "seed-additive", "test"): {"fitness": "0.0916", "retention": "91.6%"},
    ("all_fp16", "seed-additive", "test"): {"fitness": "0.0811", "retention": "81.1%"},
    ("fp32_edges_push_95", "seed", "test"): {"fitness": "0.0936", "retention": "93.6%"},
    ("sensitivity_fp16_001", "seed", "test"): {"fitness": "3.4204", "retention": "99.9%", "compression": "1.72x"},
    ("wider_fp16_zone", "seed", "test"): {"fitness": "3.8273", "retention": "99.8%", "compression": "1.94x"},
    ("wider_fp16_zone", "seed", "train"): {"fitness": "3.8680"},
    ("greedy_sensitivity", "seed", "train"): {"fitness": "0.0499", "retention": "27.6%", "compression": "3.02x"},
    ("layer_type_aware", "seed", "train"): {"retention": "20.8%", "compression": "3.81x"},
}


def baseline_rows() -> list[dict[str, Any]]:
    """One row for every strategy, data set and model: computed figures, published ones, and whether they agree."""
    rows = []
    names = list(STRATEGIES)
    for data in DATA_SETS:
        for split in SPLITS:
            problem = compile_problem(seed_profile(split, DATA_SETS[data]), SEED_MENU)
            scores = score_genomes([STRATEGIES[name] for name in names], (problem,), CLIFF, "mean")
            for i, name in enumerate(names):
                figures = {
                    "fitness": float(scores.fitness[i]),
                    "retention": float(scores.retention[i, 0]),
                    "compression": float(scores.compression[i, 0]),
                }
                published = PUBLISHED.get((name, data, split), {})
                agreement = {key: agrees(value, figures[key]) for key, value in published.items()}
                rows.append(
                    {"strategy": name, "data": data, "split": split, **figures}
                    | ({"published": published, "agrees": agreement} if published else {})
                )
    return rows


def baseline_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as a table; a published figure that is not reproducible says no."""
    cells = []
    for row in rows:
        published = row.get("published", {})
        verdict = ""
        if published:
            verdict = "published" if all(row["agrees"].values()) else "published, not reproducible where it says no"
        cells.append(
            (
                row["strategy"],
                f"{row['data']}/{row['split']}",
                beside(published.get("fitness"), row["fitness"], ".6f"),
                beside(published.get("retention"), row["retention"], ".4%"),
                beside(published.get("compression"), row["compression"], ".4f", "x"),
                verdict,
            )
        )
    columns = ("Strategy", "Model", "Fitness", "Retention", "Compression", "Source")
    note = "In brackets: the published figure, and whether ours equals it when rounded to as many digits."
    return Table("Every strategy on every model of the seed suite", columns, cells, (note,))
