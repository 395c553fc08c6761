"""evoquant beside today's ways on four real networks, five seeds each: results/own_models.jsonl and own_models.md.

Each seed is a new training, a new split and a new search. What is finished is kept in runs/own_models, so that an
interrupted experiment goes on where it stopped; what takes longest, rules and trees with 400 passes, comes last. About
two hours on two cores.

python experiments/10_own_models.py [TASK …]
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from evoquant.bench.own_models import Study, campaign_rows, run_study
from evoquant.files import canonical_json, write_atomic
from evoquant.report.own_models import own_models_tables
from evoquant.report.study import write_rows
from evoquant.report.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "runs/own_models"
TASKS = ("fashion_cnn", "fashion_vit", "char_lm", "tabular")
SEEDS = range(5)
BUDGETS = {"direct": (400, 80, 25, 15), "rule": (80, 25, 15), "tree": (80, 25, 15)}
LATER = {"rule": (400,), "tree": (400,)}
HEAD = "# A network of one's own\n\nMade by `python experiments/10_own_models.py`.\n\n"


def one(study: Study) -> None:
    """Run a study and keep its rows."""
    write_atomic(WORK / f"{study.name}.json", canonical_json(run_study(study)))


def later(study: Study) -> None:
    """Run the longest campaigns of a study and keep their rows."""
    write_atomic(WORK / f"{study.name}-later.json", canonical_json(campaign_rows(study)))


def rendered() -> None:
    """What is finished, as rows and tables."""
    files = [WORK / f"{task}-{seed}{part}.json" for part in ("", "-later") for task in TASKS for seed in SEEDS]
    rows = [row for file in files if file.is_file() for row in json.loads(file.read_text(encoding="utf-8"))]
    write_rows(ROOT / "results/own_models.jsonl", rows)
    (ROOT / "results/own_models.md").write_text(HEAD + markdown(own_models_tables(rows)), encoding="utf-8")


def main() -> None:
    """Run what is missing, then render everything."""
    tasks = sys.argv[1:] or TASKS
    WORK.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for run, budgets, part in ((one, BUDGETS, ""), (later, LATER, "-later")):
            studies = [Study(ROOT / f"configs/{task}.yaml", seed, WORK, budgets) for seed in SEEDS for task in tasks]
            list(pool.map(run, [study for study in studies if not (WORK / f"{study.name}{part}.json").is_file()]))
            rendered()


if __name__ == "__main__":
    main()
