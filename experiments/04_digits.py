"""Measured retention on a real network over five seeds: results/digits.jsonl and results/digits.md.

Each seed is a new training, a new split and a new search.

python experiments/04_digits.py
"""

import tempfile
from pathlib import Path

from evoquant import api
from evoquant.report.data import load_run
from evoquant.report.measured import measured_rows, measured_table
from evoquant.report.study import write_rows

ROOT = Path(__file__).resolve().parent.parent
BASELINES = ("uniform_int8", "uniform_int4", "all_fp16", "wider_fp16_zone")
SEEDS = range(5)


def main() -> None:
    """Run configs/digits.yaml with each seed and measure the baselines beside its champion."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            out = Path(folder) / f"digits-{seed}"
            overrides = [f"seed={seed}", f"task.seed={seed}", f"cache={folder}/cache", "executor.kind=local"]
            api.run(ROOT / "configs/digits.yaml", out=out, overrides=overrides)
            rows += measured_rows(load_run(out), BASELINES)
    write_rows(ROOT / "results/digits.jsonl", rows)
    champions = "".join(f"- seed {row['seed']}: {row['text']}\n" for row in rows if "budget" in row)
    head = "# Digits: measured retention\n\nMade by `python experiments/04_digits.py`.\n\n"
    text = head + measured_table(rows).to_markdown() + "\nThe evolved champions:\n\n" + champions
    (ROOT / "results/digits.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
