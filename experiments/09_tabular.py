"""Searches on the frozen tables, 100 seeds each, beside the true optimum: results/tabular.jsonl and tabular.md.

python experiments/09_tabular.py
"""

from pathlib import Path

from evoquant.bench.study import SEARCHES, facts, run_study
from evoquant.bench.table import NAMES
from evoquant.report.study import write_rows
from evoquant.report.tabular import tabular_table

ROOT = Path(__file__).resolve().parent.parent
SEEDS = range(100)
HEAD = """# Searches where the truth is known

Made by `python experiments/09_tabular.py`; the tables of the truth by `evoquant bench tabular --rebuild FOLDER`.
level_switch, genetic, nsga2 and tpe begin with the uniform allocations; the settings of all but the surrogate were
chosen for these tables, on other seeds.

"""


def main() -> None:
    """Run every search on every table and keep rows and tables."""
    rows = run_study(NAMES, list(SEARCHES), SEEDS)
    write_rows(ROOT / "results/tabular.jsonl", rows)
    tables = [tabular_table(facts(name), rows).to_markdown() for name in NAMES]
    (ROOT / "results/tabular.md").write_text(HEAD + "\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
