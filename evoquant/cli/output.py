"""Where the command line writes: results to stdout, messages to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evoquant.report.table import Table


def say(text: str) -> None:
    """A message to people."""
    sys.stderr.write(plain(text) + "\n")


def show(text: str) -> None:
    """A line of results."""
    sys.stdout.write(plain(text) + "\n")


def emit(text: str, out: Path | None) -> None:
    """A whole text to a file, or to stdout."""
    from evoquant.files import write_atomic

    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text)
        say(f"wrote {out}")


def emit_json(data: Any) -> None:
    """Plain data to stdout."""
    from evoquant.files import pretty_json

    sys.stdout.write(pretty_json(data))


def draw(tables: Sequence[Table]) -> None:
    """Tables to stdout."""
    from evoquant.report.drawn import draw as drawn

    drawn(tables)
