"""Documents whose figures are inserted from the rows of results/."""

from __future__ import annotations

from pathlib import Path


def render_documents(root: Path) -> list[Path]:
    """Render every docs/*.in.md; the files that changed."""
    return []
