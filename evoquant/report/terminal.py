"""Text for a terminal: names and messages of somebody's files cannot steer it."""

from __future__ import annotations

KEPT = "\n\t"


def plain(text: str) -> str:
    """`text` with escapes for whatever is not printable (control sequences, direction marks, …) but line breaks, tabs.

    So nothing in it moves the cursor, clears the screen, sets title or clipboard, or reads otherwise than it is.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in KEPT else c.encode("unicode_escape").decode("ascii") for c in text)
