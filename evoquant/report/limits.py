"""Limits of an objective beside what a champion has of them, as words and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping


def limit_words(row: Mapping[str, Any]) -> str:
    """What there is of something, what its limit is, and how far that is: `18.3 MB, at most 20 MB (8.5% left)`."""
    return f"{row['text']} ({margin_words(row['margin'])})"


def margin_words(margin: float) -> str:
    """How far a value is within its limit, a share of it, or beyond."""
    return f"{margin:.2%} left" if margin >= 0 else f"NOT KEPT, by {-margin:.2g} of it"


def limits_table(scores: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The limits split by split, of the model that is worst off; None where the objective has none."""
    known = {
        split: {row["name"]: limit_words(row) for row in figures["limits"]}
        for split, figures in scores.items()
        if figures.get("limits")
    }
    if not known:
        return None
    splits = list(known)
    rows = [(name, *(known[split].get(name, "") for split in splits)) for name in known[splits[0]]]
    least = next(iter(scores.values())).get("minimise")
    notes = (f"Minimised: {least}. What is left is a share of the limit.",)
    return Table("Limits", ("Limit", *splits), rows, notes)
