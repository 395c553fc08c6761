"""The study of scaling out: clusters of separate node processes, memory, many campaigns."""

from __future__ import annotations

from collections.abc import Mapping

from evoquant.bench.scale import PARTS, SECONDS, SETTINGS
from evoquant.bench.settings import Settings
from evoquant.bench.speed import machine
from evoquant.bench.studies import Cell, Place, Row, Study, by_cell, in_order
from evoquant.report.performance import machine_note
from evoquant.report.scale import TABLES

FACTOR = 3.0  # as for results/performance.jsonl: the machine may be shared
MOMENTS = ("turns", "suspended", "finished_at_kill", "sessions_s", "starts_s")  # of a sweep that is killed
TIMES = ("seconds", "wall_s", "megabytes", "efficiency", "speedup", "value")


def scale() -> Study:
    """Clusters, memory and many campaigns; the parts stand in `evoquant.bench.scale`."""
    script = "experiments/19_scale.py"
    head = f"""# Scaling out

Made by `python {script}`, which starts clusters of separate node processes on this machine
(`ray start`), disturbs them, and compares journals byte by byte; a part alone: `python {script} runs`. How to use a
cluster: docs/scale.md.

"""

    def measure(cell: Cell, place: Place) -> list[Row]:
        place.work.mkdir(parents=True, exist_ok=True)
        about = {"machine": machine()}
        return [{"part": cell[0], **row, **about} for row in PARTS[cell[0]](place.work)]

    def render(place: Place) -> dict[str, str]:
        parts: dict[str, list[Mapping[str, object]]] = {}
        for row in place.rows("scale"):
            parts.setdefault(row["part"], []).append(row)
        machines = dict.fromkeys(machine_note(row["machine"]) for row in place.rows("scale"))
        shown = [table for part, make in TABLES.items() if part in parts for table in make(parts[part])]
        text = "\n".join(table.to_markdown() for table in shown)
        return {"scale.md": head + "\n\n".join(machines) + "\n\n" + text}

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        return SETTINGS[cell[0]]()

    return Study(
        "scale",
        script,
        [(part,) for part in PARTS],
        measure,
        render,
        by_cell("scale", lambda row: (row["part"],)),
        in_order("scale"),
        settings,
        120,
        sum(SECONDS.values()) / 60,
        costs=SECONDS,
        loose=frozenset({"machine", "load", "losses", "why", *MOMENTS}),
        within=dict.fromkeys(TIMES, FACTOR),
        why=f"times and memory are held to within {FACTOR:g} times, for the machine may be shared; journals are equal",
        alone=True,
        native=True,
        kept=True,
        needs=("torch", "sklearn", "ray", "onnx", "onnxruntime"),
    )
