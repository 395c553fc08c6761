"""A table as plain data, for any of the reports: without what it is made from, so that it loads at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKUP = re.compile(r"[\\`*\[\]<|&]")
_LINKS = re.compile(r"[\[\]<&]")  # notes quote commands, with backticks of their own


@dataclass(frozen=True)
class Table:
    """A titled table; `numeric` columns are set flush right."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    numeric: frozenset[int] = field(default_factory=frozenset)

    def to_markdown(self) -> str:
        """GitHub Markdown, ending with a newline; nothing in title or cells is taken for markup."""
        rule = ["---:" if i in self.numeric else "---" for i in range(len(self.columns))]
        cells = [map(_escaped, self.columns), rule, *(map(_escaped, row) for row in self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        notes = "".join(f"\n{_escaped(note, _LINKS)}\n" for note in self.notes)
        return f"### {_escaped(self.title)}\n\n" + "\n".join(lines) + "\n" + notes


def markdown(tables: Sequence[Table]) -> str:
    """All tables as one Markdown text."""
    return "\n".join(table.to_markdown() for table in tables)


def _escaped(text: str, markup: re.Pattern[str] = _MARKUP) -> str:
    """One line of text, with what Markdown would read in it escaped."""
    return markup.sub(r"\\\g<0>", plain(" ".join(text.splitlines())))
