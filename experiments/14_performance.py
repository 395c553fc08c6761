"""How fast it is on this machine, and how it scales: results/performance.jsonl and performance.md.

python experiments/14_performance.py                    (the machine has to be idle; some ten minutes)
python experiments/14_performance.py rules scaling      (these anew, the others as they are)
"""

import json
import sys
from pathlib import Path

from evoquant.bench.scaling import measure_scaling
from evoquant.bench.speed import TOPICS, machine, measured
from evoquant.report.performance import machine_note, performance_table
from evoquant.report.scaling import scaling_tables
from evoquant.report.study import write_rows

ROWS = Path(__file__).resolve().parent.parent / "results/performance.jsonl"
SCALING = "scaling"
HEAD = """# Speed

Made by `python experiments/14_performance.py`; `evoquant bench` and `evoquant bench scaling` print the same for your
machine.

"""


def main(wanted: list[str]) -> None:
    """Measure every topic and the scaling, or those that are named, and keep rows and tables."""
    kept = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if wanted else []
    parts = {part: [row["row"] for row in kept if row["part"] == part] for part in (*TOPICS, SCALING)}
    topics = [topic for topic in wanted or TOPICS if topic != SCALING]
    for topic, measures in measured(topics) if topics else ():
        parts[topic] = [measure.to_row() for measure in measures]
    if not wanted or SCALING in wanted:
        parts[SCALING] = measure_scaling()
    about = machine()
    write_rows(ROWS, [{"part": "machine", "row": about}, *({"part": p, "row": row} for p in parts for row in parts[p])])
    tables = [performance_table(topic, parts[topic]) for topic in TOPICS] + scaling_tables(parts[SCALING])
    text = HEAD + machine_note(about) + "\n\n" + "\n".join(table.to_markdown() for table in tables)
    ROWS.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
