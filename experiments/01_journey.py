"""The published journey, replayed: results/journey.jsonl and results/journey.md.

python experiments/01_journey.py
"""

import tempfile
from pathlib import Path

from evoquant import api
from evoquant.report.data import load_run
from evoquant.report.study import write_rows
from evoquant.report.tables import markdown, run_tables

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run configs/journey.yaml and keep its journal and tables."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = api.run(ROOT / "configs/journey.yaml", out=Path(folder) / "journey")
        run = load_run(outcome.path)
        write_rows(ROOT / "results/journey.jsonl", run.journal)
        head = "# The published journey\n\nMade by `python experiments/01_journey.py`.\n\n"
        (ROOT / "results/journey.md").write_text(head + markdown(run_tables(run)), encoding="utf-8")


if __name__ == "__main__":
    main()
