"""A sweep that was killed and started again, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.scaling import seconds
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def sweep_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Many campaigns as one job: journals and times side by side."""
    first = rows[0]
    cells = [
        (
            str(row["case"]),
            f"{row['finished']} of {row['campaigns']}",
            str(row["kills"]),
            str(row["workers"]),
            f"{row['turns']}, {row['suspended']} of them gave way",
            f"{row['same']} of {row['campaigns']}" if row["journals"] == first["journals"] else "NO",
            "yes" if row["table"] == first["table"] else "NO",
            seconds(row["wall_s"]),
            seconds(max(0.0, row["wall_s"] - first["wall_s"])) if row["kills"] else "",
        )
        for row in rows
    ]
    columns = ("Sweep", "Finished", "Kills", "Workers", "Turns", "Same journals", "Same table", "Time", "Lost")
    notes = [
        "20 seeds of 5 searches (genetic, islands, nsga2, map_elites, random) on the seed suite, 120 generations each. "
        "Same: the journal's and the champion's bytes, beside the undisturbed sweep; the table is sweep.json.",
    ]
    if all("load" in row for row in rows):
        loads = [row["load"] for row in rows]
        notes.append(
            f"Each ran once. The load average, the sweep's own processes included, was {min(loads):.1f} to "
            f"{max(loads):.1f} on {first['machine']['cpus']} cores; a second more or less says little, journals all."
        )
    for row in rows:
        if row["kills"]:
            counts = ", ".join(str(count) for count in row["finished_at_kill"])
            starts = sum(start for start in row["starts_s"] if start is not None)
            notes.append(
                f"SIGKILL to the command at random moments, the first while Ray starts; then the same command again. "
                f"So many campaigns were finished at each kill: {counts}. Lost is what all {row['kills'] + 1} sessions "
                f"took more than the undisturbed one; until their first turns were over the sessions took "
                f"{seconds(starts)}, that of the undisturbed one {seconds(first['starts_s'][0])}."
            )
    return [Table("Many campaigns as one job", columns, cells, tuple(notes), frozenset({1, 2, 3, 7, 8}))]
