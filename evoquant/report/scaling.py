"""How it scales, as tables: costs, efficiency here, the simulation held against a real run, and simulated runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIMULATED = (
    "Efficiency: seconds of items over seconds of all workers. Where it is below 80% the largest loss is named; the "
    "losses are told apart by taking away one cause after the other: the start of Ray, the search between generations, "
    "the driver, the workers' own time, the spread of the items (a generation waits for its slowest), and what is left "
    "where there are not enough candidates for all workers. In a steady run two candidates for each worker are in "
    "flight.",
)


def scaling_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """All tables of `evoquant.bench.scaling.measure_scaling`'s rows."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row["part"], []).append(row)
    tables = [costs_table(parts["cost"], parts["driver"]), efficiency_table(parts["efficiency"])]
    tables.append(validation_table(parts["validation"]))
    for population in dict.fromkeys(row["population"] for row in parts["simulation"]):
        mine = [row for row in parts["simulation"] if row["population"] == population]
        tables.append(simulation_table(population, mine))
    return tables


def costs_table(costs: Sequence[Mapping[str, Any]], drivers: Sequence[Mapping[str, Any]]) -> Table:
    """What is spent besides the items."""
    cells = [
        (row["what"], seconds(row["value"]) if row["unit"] == "s" else f"{row['value']:.1%} {row['unit']}")
        for row in costs
    ]
    cells += [
        (f"driver's own time for a batch, {row['workers']:,} workers", seconds(row["seconds"])) for row in drivers
    ]
    note = "For many workers' batches two actors stand in: what the driver does for each is real."
    return Table("Measured costs", ("What", "Cost"), cells, (note,), frozenset({1}))


def efficiency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Measured efficiency of sleeping items."""
    cells = [
        (
            seconds(row["item_s"]),
            str(row["workers"]),
            row["batching"],
            str(row["batches"]),
            f"{row['efficiency']:.1%}",
        )
        for row in rows
    ]
    note = "Items sleep, so that only the executor is measured, and not how many cores there are."
    columns = ("Item", "Workers", "Batches", "How many", "Efficiency")
    return Table("Measured efficiency", columns, cells, (note,), frozenset({0, 1, 3, 4}))


def validation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Real runs beside what the simulation says of the same items."""
    cells = [
        (
            row["mode"],
            seconds(row["item_s"]),
            f"{row['generations']} × {row['population']}",
            seconds(row["simulated_s"]),
            seconds(row["measured_s"]),
            f"{row['simulated_s'] / row['measured_s'] - 1:+.1%}",
        )
        for row in rows
    ]
    columns = ("Mode", "Item", "Items", "Simulated", "Measured", "Off by")
    note = (
        "Median wall time of the same sleeping items on two workers; generational runs wait 0.05 s between generations."
    )
    return Table("The simulation against reality", columns, cells, (note,), frozenset({1, 2, 3, 4, 5}))


def simulation_table(population: int, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Simulated runs of one population: a line for each cost of an item and mode, a column for each count."""
    counts = list(dict.fromkeys(row["workers"] for row in rows))
    cells = []
    for item_s, mode in dict.fromkeys((row["item_s"], row["mode"]) for row in rows):
        mine = {row["workers"]: row for row in rows if (row["item_s"], row["mode"]) == (item_s, mode)}
        first = next((row for row in mine.values() if row["why"] is not None), None)
        saturates = "" if first is None else f"at {first['workers']:,}: {first['why']}"
        last = mine[counts[-1]]
        at_most = "" if last["why"] is None else f"{last['why']}, {last['losses'][last['why']]:.0%}"
        shown = [f"{row['efficiency']:.0%} ({row['speedup']:.3g}x)" for row in mine.values()]
        cells.append((seconds(item_s), mode, *shown, saturates, at_most))
    columns = (
        "Item",
        "Mode",
        *(f"{count:,} workers" for count in counts),
        "Saturates",
        f"Largest loss at {counts[-1]:,}",
    )
    title = f"Simulated: {population:,} candidates a generation, efficiency (speed-up)"
    return Table(title, columns, cells, SIMULATED, frozenset(range(2, 2 + len(counts))) | {0})


def seconds(value: float) -> str:
    """Seconds in the unit that suits them, three digits."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
