"""Heuristics that carry over, 20 seeds each: results/transfer.jsonl, unseen.jsonl, test_log.jsonl and transfer.md.

Trees and rules are evolved on random families and the train model and chosen on a kind of models that the search never
saw. Their champions then meet 50 models of still other kinds, and TEST, once; results/test_log.jsonl lists every time.

python experiments/07_transfer.py
"""

import tempfile
from pathlib import Path

from evoquant import api
from evoquant.report import transfer
from evoquant.report.study import append_row, write_rows
from evoquant.report.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ("transfer_tree", "transfer_rule")
SEEDS = range(20)
UNSEEN = [f"family/{kind}/{i}" for kind in ("mixture_of_experts", "unet") for i in range(25)]
SUITE = ("seed/train", "seed/valid", "seed/test")


def main() -> None:
    """Run both campaigns with each seed and keep rows and tables."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            api.Job(ROOT / f"configs/{name}.yaml", Path(folder) / f"{name}-{seed}", (f"seed={seed}",))
            for name in CONFIGS
            for seed in SEEDS
        ]
        rows = [transfer.champion_row(run) for run in api.run_all(jobs)]
    write_rows(ROOT / "results/transfer.jsonl", rows)
    found = transfer.baselines() | transfer.champions_of(rows)
    groups = {name: [name] for name in transfer.baselines()} | transfer.groups_of(rows)
    unseen = transfer.share_rows(found, UNSEEN)
    write_rows(ROOT / "results/unseen.jsonl", unseen)
    suite = transfer.share_rows(found, SUITE)
    append_row(ROOT / "results/test_log.jsonl", transfer.test_log_row(rows, suite))
    tables = [
        transfer.carry_table(f"{len(SEEDS)} seeds each: share of the certified optimum", rows, suite),
        transfer.spread_table(f"{len(UNSEEN)} models of kinds that no search saw", unseen, groups),
        transfer.champions_table("The champions", rows, suite),
    ]
    head = "# Heuristics that carry over\n\nMade by `python experiments/07_transfer.py`.\n\n"
    (ROOT / "results/transfer.md").write_text(head + markdown(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
