"""Champions of the example tasks on every stack that runs here: results/export.jsonl and export.md.

Each task is searched with 15 passes on a menu with groups; what its gate recommends is exported, loaded by the consumer
in a fresh process, and compared with what was promised. Latencies are one thread's.

python experiments/13_export.py [TASK …]
"""

import sys
from pathlib import Path

from evoquant import api
from evoquant.export.writers import WRITERS
from evoquant.report.study import write_rows
from evoquant.report.verify import export_table

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("digits", "tabular", "char_lm", "fashion_cnn", "fashion_vit")
TARGETS = [name for name in WRITERS if name != "recipe"]
CHANGES = (
    "menu=[INT4-g32, INT8-channel, FP16, FP32]",  # MatMulNBits takes groups
    "signals=[fisher]",
    "genome={kind: direct}",
    "search={kind: surrogate}",
    "stop={passes: 15, generations: 1000}",
    "executor.kind=local",
)
HEAD = "# What was promised, and what the stacks make of it\n\nMade by `python experiments/13_export.py`.\n\n"


def main() -> None:
    """Search, export, verify and render."""
    rows = []
    for task in sys.argv[1:] or TASKS:
        out = ROOT / f"runs/export/{task}"
        if (out / "resolved.json").is_file():
            api.resume(out)
        else:
            api.run(ROOT / f"configs/{task}.yaml", out=out, overrides=CHANGES)
        rows += [{"task": task, "target": target, **api.verify(out, target)} for target in TARGETS]
    write_rows(ROOT / "results/export.jsonl", rows)
    (ROOT / "results/export.md").write_text(HEAD + export_table(rows).to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
