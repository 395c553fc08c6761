"""Every strategy on every model of the seed suite: results/baselines.jsonl and results/baselines.md.

python experiments/02_baselines.py
"""

from pathlib import Path

from evoquant.report.baselines import baseline_rows, baseline_table
from evoquant.report.study import write_rows

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Score all strategies and keep rows and table."""
    rows = baseline_rows()
    write_rows(ROOT / "results/baselines.jsonl", rows)
    head = "# Strategies on the seed suite\n\nMade by `python experiments/02_baselines.py`.\n\n"
    (ROOT / "results/baselines.md").write_text(head + baseline_table(rows).to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
