"""Heuristics from three tasks on the fourth, unmeasured: results/leave_one_out.jsonl and leave_one_out.md.

Takes the searches that experiments/10_own_models.py has finished (all seeds that every task has) and its caches. About
a minute for each task and seed.

python experiments/11_leave_one_out.py
"""

import sys
from pathlib import Path

from evoquant.bench.leave_one_out import Source, leave_out, searched
from evoquant.files import write_atomic
from evoquant.report.leave_one_out import leave_one_out_tables
from evoquant.report.study import write_rows
from evoquant.report.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("fashion_cnn", "fashion_vit", "char_lm", "tabular")
SEEDS = range(5)
REFERENCES = {passes: f"evoquant direct, {passes} passes" for passes in (80, 400)}
HEAD = "# A heuristic on a task that it has not seen\n\nMade by `python experiments/11_leave_one_out.py`.\n\n"


def main() -> None:
    """Leave each task out in turn."""
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs/own_models"
    folders = {(task, seed): runs / f"{task}-{seed}" for task in TASKS for seed in SEEDS}
    done = {key for key, path in folders.items() if (path / "evoquant-direct-80-passes/champion.json").is_file()}
    seeds = [seed for seed in SEEDS if all((task, seed) in done for task in TASKS)]
    sources = {
        task: [
            Source(
                ROOT / f"configs/{task}.yaml",
                seed,
                folders[task, seed] / "evoquant-direct-80-passes",
                runs / f"cache-{task}-{seed}",
            )
            for seed in seeds
        ]
        for task in TASKS
    }
    rows = []
    for task in TASKS:
        others = [source for other in TASKS if other != task for source in sources[other]]
        rows += leave_out(sources[task], others, ROOT / "runs/leave_one_out")
        for passes, name in REFERENCES.items():
            for source in sources[task]:
                run = source.run.with_name(f"evoquant-direct-{passes}-passes")
                if (run / "champion.json").is_file():
                    rows.append(searched(source, run, name))
    write_rows(ROOT / "results/leave_one_out.jsonl", rows)
    tables = leave_one_out_tables(rows, list(REFERENCES.values()))
    write_atomic(ROOT / "results/leave_one_out.md", HEAD + markdown(tables))


if __name__ == "__main__":
    main()
