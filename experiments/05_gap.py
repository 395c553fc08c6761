"""How far everything is from the certified optimum, and each genome space's ceiling: results/gap.jsonl and gap.md.

The ceilings are found by searching on a model itself: on TEST they are an oracle, which no honest search can consult.
The champions are those of results/transfer.jsonl (experiments/07_transfer.py).

python experiments/05_gap.py
"""

import json
import tempfile
from pathlib import Path

from evoquant import api
from evoquant.report import transfer
from evoquant.report.study import write_rows
from evoquant.report.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
SUITE = ("seed/train", "seed/valid", "seed/test")
ORACLES = ("oracle_rule", "oracle_tree", "oracle_direct")
SEEDS = range(4)


def main() -> None:
    """Search each model itself with each space, then put everything beside the certified optimum."""
    champions = [json.loads(line) for line in (ROOT / "results/transfer.jsonl").read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            api.Job(
                ROOT / f"configs/{name}.yaml",
                Path(folder) / f"{name}-{model.replace('/', '-')}-{seed}",
                (f"seed={seed}", f"models={{train: [{model}], valid: [], test: []}}"),
            )
            for name in ORACLES
            for model in SUITE
            for seed in SEEDS
        ]
        ceilings = transfer.ceiling_rows(api.run_all(jobs))
    found = transfer.strategies() | transfer.baselines() | transfer.champions_of(champions)
    rows = transfer.share_rows(found, SUITE)
    write_rows(ROOT / "results/gap.jsonl", [*rows, *ceilings])
    groups = {name: [name] for name in (transfer.strategies() | transfer.baselines())} | transfer.groups_of(champions)
    tables = [
        transfer.gap_table("Fitness, and share of the certified optimum", rows, groups, ceilings),
    ]
    head = "# The gap to the certified optimum\n\nMade by `python experiments/05_gap.py`.\n\n"
    (ROOT / "results/gap.md").write_text(head + markdown(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
