"""Scaling out, as tables; one function for each part of `evoquant.bench.scale`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.scale_sweep import sweep_tables
from evoquant.report.scaling import seconds
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]


def runs_tables(rows: Rows) -> list[Table]:
    """One campaign on several clusters: journals and times side by side."""
    first = rows[0]
    cells = [
        (
            str(row["case"]),
            str(row["nodes"]),
            str(row["workers"]),
            row["journal"][:16],
            "yes" if row["journal"] == first["journal"] else "NO",
            seconds(row["seconds"]),
            f"{first['seconds'] / row['seconds']:.2f}",
            seconds(row["wall_s"]),
        )
        for row in rows
    ]
    columns = ("Case", "Nodes", "Workers", "Journal, sha256", "Same", "Generations", "Speed-up", "Whole command")
    notes = (
        f"{first['campaign']}: {first['generations']} generations, {first['evaluations']} candidates. Generations is "
        "the sum of their wall times, measurements and the search between them; the whole command also joins the "
        "cluster, profiles the network and reports.",
        "Each node is a `ray start` of its own whose Python has Ray and PyTorch but no evoquant, in another folder, "
        "without the project, its cache or its data: the driver sends evoquant and the network. The head has no CPU. "
        "Lost is SIGKILL to the node and all its processes after half of the generations. The driver shares the "
        f"machine's {first['cpus']} cores with its workers and with the nodes' own processes. The load average, "
        f"all of these included, was {min(row['load'] for row in rows):.1f} to {max(row['load'] for row in rows):.1f} "
        "as a case ended; each ran once, so that a second more or less says little, and journals all.",
    )
    return [Table("One campaign, several clusters", columns, cells, notes, frozenset({1, 2, 5, 6, 7}))]


def memory_tables(rows: Rows) -> list[Table]:
    """What workers on one node share of a model."""
    cells = [
        (
            str(row["when"]),
            str(row["workers"]),
            f"{row['weights_mb']:,.0f} MB",
            f"{row['megabytes']['rss']:,.0f} MB",
            f"{row['megabytes']['pss']:,.0f} MB",
            f"{row['megabytes']['private']:,.0f} MB",
            f"{row['megabytes']['peak']:,.0f} MB",
            f"{row['megabytes']['weights_private']:,.0f} MB",
            seconds(row["seconds"]) if "seconds" in row else "",
        )
        for row in rows
    ]
    columns = (
        "When",
        "Workers",
        "Weights",
        "RSS each",
        "PSS each",
        "Private each",
        "At most",
        "Of the weights",
        "Time",
    )
    notes = (
        "From /proc/PID/smaps of the workers, means over them: RSS counts a shared page in each process, PSS divides "
        "it among those that have it, private is what would be free if this worker ended, after its first measurement "
        "and at most while it was made. Of the weights: private memory in the object store's mapping, where they lie "
        "once for all workers of the node.",
        "Whole, a worker keeps quantized tensors of its own for the next allocation, up to 1.5 times the weights. "
        "Layer by layer (`task.quantized_cache`) it has what it keeps and those of the running module; what is not "
        "kept is quantized again. Time is processor time of one measurement of those that follow: each allocation has "
        "one of two widths for every layer, and another in the first than the one before, so that nothing but "
        "quantized weights is found again.",
        "ONNX: as many matrix products of the same width as one file, measured with onnxruntime in workers without "
        "PyTorch; a stage has one layer's weights here.",
    )
    return [Table("A large network on two workers of a node", columns, cells, notes, frozenset(range(1, 9)))]


def simulated_tables(rows: Rows) -> list[Table]:
    """Efficiency with many workers, simulated from measured costs."""
    cells = [
        (
            str(row["what"]),
            seconds(row["item_s"]),
            f"{row['population']:,}",
            row["mode"],
            f"{row['workers']:,}",
            f"{row['efficiency']:.0%}",
            f"{row['speedup']:.3g}x",
            "" if row["why"] is None else f"{row['why']}, {row['losses'][row['why']]:.0%}",
        )
        for row in rows
    ]
    columns = ("Network", "Candidate", "Population", "Mode", "Workers", "Efficiency", "Speed-up", "Largest loss")
    notes = (
        "Simulated event by event with costs measured on this machine: a candidate's own time, the driver's for a "
        "batch at so many workers, the workers' between batches, the search's between generations; nothing of it was "
        "run on so many workers. results/performance.md holds the same simulation against real runs.",
    )
    return [Table("Simulated from measured costs", columns, cells, notes, frozenset({1, 2, 4, 5, 6}))]


TABLES: dict[str, Callable[[Rows], list[Table]]] = {
    "runs": runs_tables,
    "memory": memory_tables,
    "simulated": simulated_tables,
    "sweep": sweep_tables,
}
