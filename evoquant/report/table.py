"""A table as plain data, for any of the reports: without what it is made from, so that it loads at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Table:
    """A titled table; `numeric` columns are set flush right."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    numeric: frozenset[int] = field(default_factory=frozenset)

    def to_markdown(self) -> str:
        """GitHub Markdown, ending with a newline."""
        rule = ["---:" if i in self.numeric else "---" for i in range(len(self.columns))]
        cells = [self.columns, tuple(rule), *self.rows]
        lines = ["| " + " | ".join(re.sub(r"\|", r"\\|", cell) for cell in row) + " |" for row in cells]
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n" + notes


def markdown(tables: Sequence[Table]) -> str:
    """All tables as one Markdown text."""
    return "\n".join(table.to_markdown() for table in tables)
