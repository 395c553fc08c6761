"""What the long tests of faults found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIXED = frozenset({"file", "topic", "what", "tried", "held", "config_hash"})


def reliability_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table a topic: what was tried, how often, and how often it held.

    Args:
        rows: `topic`, `what`, `tried`, `held`, and further figures by name.
    """
    topics = dict.fromkeys(str(row["topic"]) for row in rows)
    return [_table(topic, [row for row in rows if row["topic"] == topic]) for topic in topics]


def _table(topic: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            str(row["what"]),
            f"{row['tried']:,}",
            f"{row['held']:,}" + ("" if row["held"] == row["tried"] else " (not all)"),
            "; ".join(f"{name.replace('_', ' ')} {_figure(row[name])}" for name in row if name not in FIXED),
        )
        for row in rows
    ]
    title = topic[:1].upper() + topic[1:]
    return Table(title, ("What", "Tried", "Held", "Figures"), cells, (), frozenset({1, 2}))


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
