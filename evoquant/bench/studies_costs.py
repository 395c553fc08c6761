"""The study of cost tables: predicted against measured bytes and latency, and fronts of three objectives."""

from __future__ import annotations

from pathlib import Path

from evoquant.bench import costs
from evoquant.bench.settings import Settings, stated
from evoquant.bench.studies import Cell, Place, Row, Study, by_cell, in_order
from evoquant.report.costs_study import front_table, prediction_table, uniform_table

HEAD = f"""# Cost tables against the real thing

Made by `python experiments/18_costs.py`: an MLP and a Llama of 8 layers with matrices 2,048 wide, of random weights.
Each layer is measured by itself at each width (`evoquant cost --latency`), then whole networks are exported and timed
whose shares of widths differ from one to the next (Dirichlet, concentration 0.5), and their bytes are counted in what
was exported. A call is one vector for the MLP and a sequence of 8 tokens for the Llama. Of each network and target
there is one table, measured once.

Fronts are of the MLP, by NSGA-II with seed 0 ({costs.GENERATIONS} generations of {costs.POPULATION}), one run of each:
small differences between them say nothing. The metric is the cosine of the outputs with the FP32 outputs; a front's
retention is the separable estimate from what each layer loses by itself, its latency the table's. Neither was measured
again on whole networks.

Little else ran on the machine while these rows were measured (load average about 2 on 2 cores, the measuring included).
A network's layers and the whole networks were timed minutes apart, so errors hold that, too, beside what does not add
up; spread is within one process, and does not hold it.

"""
# Times are of this machine and this moment; what was drawn, and bytes, are not.
TIMES = frozenset(
    {
        *("predicted_ns", "measured_ns", "spread_ns", "noise_ns", "span_ns", "constant_ns", "overhead_ns", "uniform"),
        *("machine", "runtime", "points", "least", "share"),
    }
)


def cost_tables() -> Study:
    """Bytes and latency of 30 allocations for each network and target."""
    cells: list[Cell] = [(network, target) for network in costs.NETWORKS for target in costs.TARGETS]

    def measure(cell: Cell, place: Place) -> list[Row]:
        network, target = cell
        rows, table = costs.prediction_rows(network, target)
        if network == costs.NETWORKS[0]:
            rows += costs.front_rows(target, table, place.work / target)
        return rows

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        network, target = cell
        about = {"part": row["part"], "index": row.get("index"), "objectives": row.get("objectives")}
        return {"network": network, "target": target, **about, "stated": stated(Path(costs.__file__))}

    def render(place: Place) -> dict[str, str]:
        rows = place.rows("costs")
        tables = [prediction_table(rows), uniform_table(rows)]
        tables += [front_table(rows, target) for target in costs.TARGETS]
        return {"costs.md": HEAD + "\n".join(table.to_markdown() for table in tables)}

    return Study(
        "costs",
        "experiments/18_costs.py",
        cells,
        measure,
        render,
        by_cell("costs", lambda row: (row["network"], row["target"])),
        in_order("costs"),
        settings,
        150,
        10,
        loose=TIMES,
        why="what was drawn and counted must be equal; times may differ",
        alone=True,
        native=True,
        kept=True,
        needs=("torch", "onnx", "onnxruntime", "openvino", "transformers"),
    )
