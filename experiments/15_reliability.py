"""Faults tried as often as it takes to trust it: results/reliability.jsonl and reliability.md.

python experiments/15_reliability.py                    (all of the long tests of tests/faults)
python experiments/15_reliability.py kill cluster       (tests/faults/test_kill.py and test_cluster.py anew)
python experiments/15_reliability.py fuzz               (the parsers, five minutes each; needs the extra `fuzz`)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from evoquant.bench.speed import machine
from evoquant.report.performance import machine_note
from evoquant.report.reliability import reliability_tables
from evoquant.report.study import write_rows

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results/reliability.jsonl"
HEAD = """# Reliability

Made by `python experiments/15_reliability.py`, which runs the long tests of tests/faults (`make test-long` runs them
alone) and fuzzes the parsers (`make fuzz`): whole campaigns in processes of their own, real faults, and the undisturbed
run's bytes to compare with. Rows are kept test file by test file, so they may be of several runs and commits.
"""
LONG = ["tests/faults", "tests/campaign/test_determinism.py"]
FUZZ = "fuzz"
FUZZED = ("profile", "rule", "tree", "direct", "champion", "config")
FUZZ_S = 300


def main(wanted: list[str]) -> int:
    """Run the long tests, all or those of the named files, and keep their rows; the worst exit code."""
    files = [f"tests/faults/test_{name}.py" for name in wanted if name != FUZZ] or LONG * (not wanted)
    kept = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if wanted else []
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows.jsonl"
        found.touch()
        commands = [["-m", "pytest", "-m", "long", "--rows", str(found), *files]] if files else []
        if not wanted or FUZZ in wanted:
            script = ["tests/faults/fuzz_parsers.py"]
            commands += [[*script, name, "--rows", str(found), f"-max_total_time={FUZZ_S}"] for name in FUZZED]
        codes = [subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode for words in commands]
        rows = [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]
    anew = {row["file"] for row in rows}
    rows = sorted([*(row for row in kept if row["file"] not in anew), *rows], key=lambda row: row["file"])
    write_rows(ROWS, rows)
    tables = "\n".join(table.to_markdown() for table in reliability_tables(rows))
    ROWS.with_suffix(".md").write_text(f"{HEAD}\n{machine_note(machine())}\n\n{tables}", encoding="utf-8")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
