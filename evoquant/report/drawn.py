"""Tables drawn for people, with rich: as wide as the terminal, or as a log can take."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, TextIO

from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.report.table import Table

WIDE = 150  # columns assumed where output is no terminal, so that nothing is cut in a log
GAP = 2
INDENT = 7


def draw(tables: Sequence[Table]) -> None:
    """Draw tables on stdout, with what belongs to each below it."""
    _draw(tables, sys.stdout)


def draw_messages(tables: Sequence[Table]) -> None:
    """The same on stderr, where stdout is for something else."""
    _draw(tables, sys.stderr)


def drawn_text(tables: Sequence[Table], width: int) -> str:
    """The same as text without colours, at most so many columns wide where that can be."""
    stream = io.StringIO()
    _draw(tables, stream, width)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _draw(tables: Sequence[Table], stream: TextIO, width: int | None = None) -> None:
    from rich.console import Console
    from rich.text import Text

    plain_width = width or WIDE
    console = Console(file=stream, width=None if stream.isatty() else plain_width, highlight=False)
    for table in tables:
        console.print(Text(plain(table.title), style="bold"))
        widths = _widths(table)
        split = max(table.numeric, default=-1) + 1
        stacked = sum(widths) + (GAP + 1) * len(widths) > console.width
        if stacked and 0 < split < len(widths) and sum(widths[:split]) + GAP * split <= console.width:
            _stack(table, widths[:split], console)
        else:
            _columns(table, console)
        for note in table.notes:
            console.print(Text(f"  {plain(note)}", style="dim"))
        if table.notes:
            console.print()


def _widths(table: Table) -> list[int]:
    from rich.cells import cell_len

    rows = [table.columns, *table.rows]
    return [max(cell_len(plain(row[i])) for row in rows) for i in range(len(table.columns))]


def _columns(table: Table, console: Any) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD)
    for i, column in enumerate(table.columns):
        drawn.add_column(Text(plain(column)), justify="right" if i in table.numeric else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    console.print(drawn)


def _stack(table: Table, widths: list[int], console: Any) -> None:
    """Where the columns side by side are too wide: a row's words go below its figures."""
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.text import Text

    def line(cells: tuple[str, ...]) -> str:
        padded = []
        for i, width in enumerate(widths):
            text = plain(cells[i])
            room = " " * (width - cell_len(text))
            padded.append(room + text if i in table.numeric else text + room)
        return (" " * GAP).join(["", *padded])[1:]

    console.print()
    console.print(Text(line(table.columns), style="bold"))
    console.print(" " + "─" * (sum(widths) + GAP * len(widths)))
    for row in table.rows:
        console.print(Text(line(row)))
        words = [
            plain(cell) if name == table.columns[-1] else f"{plain(name).lower()} {plain(cell)}"
            for name, cell in zip(table.columns[len(widths) :], row[len(widths) :], strict=True)
            if cell
        ]
        if words:
            console.print(Padding(Text("; ".join(words), style="dim"), (0, 0, 0, INDENT)))
    console.print()
