"""NSGA-II's Pareto front beside the exact one, on each suite model: results/hypervolume.jsonl and hypervolume.md.

python experiments/08_hypervolume.py
"""

import tempfile
from pathlib import Path

from evoquant import api
from evoquant.report.study import hypervolume_row, hypervolume_table, write_rows

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("seed/train", "seed/valid", "seed/test")
SEEDS = range(3)


def main() -> None:
    """Run configs/nsga2.yaml, 200,000 evaluations from a random start, with each model and seed."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            api.Job(
                ROOT / "configs/nsga2.yaml",
                Path(folder) / f"{model.replace('/', '-')}-{seed}",
                (f"seed={seed}", f"models={{train: [{model}], valid: [], test: []}}"),
            )
            for model in MODELS
            for seed in SEEDS
        ]
        rows = [hypervolume_row(run) for run in api.run_all(jobs)]
    write_rows(ROOT / "results/hypervolume.jsonl", rows)
    head = "# NSGA-II beside the exact front\n\nMade by `python experiments/08_hypervolume.py`.\n\n"
    table = hypervolume_table(f"{len(SEEDS)} seeds each, 200,000 evaluations", rows)
    (ROOT / "results/hypervolume.md").write_text(head + table.to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
