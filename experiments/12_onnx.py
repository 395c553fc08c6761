"""PyTorch and ONNX Runtime side by side, 40 passes each: results/onnx.jsonl and onnx.md.

Each example network is exported, then both are searched with the same budget; besides, the same random allocations are
measured by both.

python experiments/12_onnx.py [TASK …]
"""

import sys
import tempfile
from pathlib import Path

from evoquant.bench.runtimes import runtime_rows, runtime_table
from evoquant.report.study import write_rows

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("tabular", "char_lm", "fashion_cnn", "fashion_vit")
HEAD = "# The same network in two runtimes\n\nMade by `python experiments/12_onnx.py`.\n\n"


def main() -> None:
    """Search every task in both runtimes and keep rows and table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for task in sys.argv[1:] or TASKS for row in runtime_rows(ROOT / "configs", task, Path(folder))]
    write_rows(ROOT / "results/onnx.jsonl", rows)
    (ROOT / "results/onnx.md").write_text(HEAD + runtime_table(rows).to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
