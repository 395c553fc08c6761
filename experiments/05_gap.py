"""How far everything is from the certified optimum, and each genome space's ceiling: results/gap.jsonl and gap.md.

A ceiling is found by searching on the model itself; on TEST that is an oracle, which no honest search can consult.
evolve and tree are trained on the train model alone; the transfer champions are those of results/transfer.jsonl
(experiments/07_transfer.py).

python experiments/05_gap.py
"""

import json
import tempfile
from pathlib import Path

from evoquant import api
from evoquant.report import transfer
from evoquant.report.study import write_rows

ROOT = Path(__file__).resolve().parent.parent
SUITE = ("seed/train", "seed/valid", "seed/test")
SPACES = {"rule": "transfer_rule", "tree": "transfer_tree", "direct": "level_switch"}  # genome space → config
SEEDS = range(2)
ALONE = ("evolve", "tree")  # rules and trees that saw nothing but the train model
ALONE_SEEDS = range(10)


def main() -> None:
    """Search each model itself in each space, then put everything beside the certified optimum."""
    champions = [json.loads(line) for line in (ROOT / "results/transfer.jsonl").read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        alone = [
            api.Job(ROOT / f"configs/{name}.yaml", Path(folder) / f"{name}-{seed}", (f"seed={seed}",))
            for name in ALONE
            for seed in ALONE_SEEDS
        ]
        champions = [*map(transfer.champion_row, api.run_all(alone)), *champions]
        jobs = [
            api.Job(
                ROOT / f"configs/{config}.yaml",
                Path(folder) / f"{space}-{model.replace('/', '-')}-{seed}",
                (f"name=oracle_{space}", f"seed={seed}", f"models={{train: [{model}], valid: [], test: []}}"),
            )
            for space, config in SPACES.items()
            for model in SUITE
            for seed in SEEDS
        ]
        ceilings = [transfer.ceiling_row(run) for run in api.run_all(jobs)]
    named = transfer.strategies() | {transfer.GREEDY: transfer.baselines()[transfer.GREEDY]}
    rows = transfer.share_rows(named | transfer.champions_of(champions), SUITE)
    write_rows(ROOT / "results/gap.jsonl", [*rows, *ceilings])
    groups = {name: [name] for name in named} | transfer.groups_of(champions)
    table = transfer.gap_table("Fitness, and share of the certified optimum", rows, groups, ceilings)
    head = "# The gap to the certified optimum\n\nMade by `python experiments/05_gap.py`.\n\n"
    (ROOT / "results/gap.md").write_text(head + table.to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
