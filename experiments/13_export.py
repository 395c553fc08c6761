"""Champions of the example tasks on every stack that runs here: results/export.jsonl and export.md.

Each task is searched with 15 passes on a menu with groups; what its gate recommends is exported, loaded by the consumer
in a fresh process, and compared with what was promised. The small Llama is searched four times, each time within what
some stacks take (`deploy_to`). What cannot run here is written and counted. Latencies are one thread's.

python experiments/13_export.py [TASK …]
"""

import sys
import tempfile
from pathlib import Path

from evoquant import api
from evoquant.export.consumers.table import CONSUMERS
from evoquant.export.writers import SUFFIXES, WRITERS
from evoquant.report.study import write_rows
from evoquant.report.verify import export_table, written_table

ROOT = Path(__file__).resolve().parent.parent
GRAPHS = ("onnx", "onnx-matmulnbits", "openvino")
GROUPS = "menu=[INT4-g32, INT8-channel, FP16, FP32]"  # MatMulNBits takes groups
NARROW = "menu=[INT4-g32, INT8-g32, INT8-channel, FP16, FP32]"

# task, overrides, targets; the runnable ones are verified, the others only written
SEARCHES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    *((task, (GROUPS,), GRAPHS) for task in ("digits", "tabular", "char_lm", "fashion_cnn", "fashion_vit")),
    (
        "llama",
        (NARROW, "deploy_to=[onnx, openvino, compressed-tensors, gguf]"),
        (*GRAPHS, "compressed-tensors", "torchao", "gguf"),
    ),
    ("llama", (GROUPS, "deploy_to=[modelopt]"), ("modelopt",)),
    ("llama", ("menu=[INT4-g64, INT8-channel, FP16, FP32]", "deploy_to=[tensorrt, coreml]"), ("tensorrt", "coreml")),
    ("llama", ("menu=[INT4-channel, INT4-g32-a8, INT8-channel-a8, FP32]", "deploy_to=[executorch]"), ("executorch",)),
)
CHANGES = (
    "signals=[fisher]",
    "genome={kind: direct}",
    "search={kind: surrogate}",
    "objective={kind: cliff}",
    "stop={passes: 15, generations: 1000}",
    "executor.kind=local",
)
HEAD = "# What was promised, and what the stacks make of it\n\nMade by `python experiments/13_export.py`.\n\n"


def main() -> None:
    """Search, export, verify and render."""
    rows, written = [], []
    for task, overrides, targets in SEARCHES:
        if sys.argv[1:] and task not in sys.argv[1:]:
            continue
        out = ROOT / f"runs/export/{task}-{targets[0]}"
        if (out / "resolved.json").is_file():
            api.resume(out)
        else:
            api.run(ROOT / f"configs/{task}.yaml", out=out, overrides=(*CHANGES, *overrides))
        for target in targets:
            if target in CONSUMERS:
                rows.append({"task": task, "target": target, **api.verify(out, target)})
            else:
                written.append(write(task, out, target))
    write_rows(ROOT / "results/export.jsonl", [*rows, *written])
    tables = [export_table(rows), written_table(written)]
    text = "\n".join(table.to_markdown() for table in tables if table.rows)
    (ROOT / "results/export.md").write_text(HEAD + text, encoding="utf-8")


def write(task: str, out: Path, target: str) -> dict[str, object]:
    """Export a run for a target that cannot run here; what was written."""
    assert target in WRITERS
    with tempfile.TemporaryDirectory() as folder:
        files, findings = api.deploy(out, target, Path(folder) / f"model{SUFFIXES[target]}")
        return {
            "task": task,
            "target": target,
            "written": {path.name: path.stat().st_size for path in files},
            "warnings": [finding.message for finding in findings],
        }


if __name__ == "__main__":
    main()
