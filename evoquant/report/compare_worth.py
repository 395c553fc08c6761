"""What each part of a campaign is worth: the whole one against those without it, as tables and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.compare import BETTER, TOO_FEW, UNDECIDED, WORSE
from evoquant.report.compare_notes import notes_of, test_notes
from evoquant.report.compare_statistics import turned
from evoquant.report.compare_tables import (
    CONTRAST_COLUMNS,
    NONE,
    anytime_table,
    compare_data,
    contrast_cells,
    fitness_table,
)
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.report.compare import Comparison, Measure

VERDICTS = {WORSE: "helps", BETTER: "harms", UNDECIDED: UNDECIDED, TOO_FEW: TOO_FEW}  # of a group that is without it


def parts_table(name: str, parts: Mapping[str, tuple[str, tuple[str, ...]]]) -> Table:
    """What can be switched off: part → what there is in its place, and the overrides."""
    rows = [
        (part, off, " ".join(f"--set {change}" for change in overrides)) for part, (off, overrides) in parts.items()
    ]
    return Table(f"{name}: parts that can be switched off", ("Part", "Without it", "By"), rows)


def worth_tables(made: Comparison, parts: Mapping[str, str]) -> list[Table]:
    """Figures of all groups, then what each part is worth.

    Args:
        made: the whole campaign first.
        parts: group → its part, for the others in their order.
    """
    tables = [fitness_table(made), anytime_table(made)]
    tables += [worth_table(made, measure, parts) for measure in made.measures]
    last = tables[-1]
    notes = (*last.notes, *notes_of(made))
    tables[-1] = Table(last.title, last.columns, last.rows, notes, last.numeric)
    return tables


def worth_table(made: Comparison, measure: Measure, parts: Mapping[str, str]) -> Table:
    """The whole campaign against the campaign without a part, a row a part, the largest worth first."""
    first = made.groups[0]
    rows = []
    for group, contrast in zip(made.groups[1:], measure.contrasts, strict=True):
        if contrast is None:
            rows.append((float("inf"), (parts[group.label], *contrast_cells(None), NONE)))
            continue
        verdict = VERDICTS[measure.verdict(contrast)]
        rows.append((contrast.difference, (parts[group.label], *contrast_cells(turned(contrast)), verdict)))
    rows.sort(key=lambda row: row[0])
    columns = ("Part", *("Worth" if name == "Difference" else name for name in CONTRAST_COLUMNS), "The part")
    title = f"What each part is worth: {measure.name}, whole against without"
    notes = [
        note.replace("a run of the group beats one of whole", "a whole run beats one without the part")
        for note in test_notes(measure, first)
    ]
    return Table(title, columns, [cells for _, cells in rows], tuple(notes), frozenset({1, 2, 3, 4, 5}))


def worth_data(made: Comparison, parts: Mapping[str, str]) -> dict[str, Any]:
    """What `evoquant ablate --json` prints: the comparison, and the parts' worth."""
    worth = []
    for measure in made.measures:
        for group, contrast in zip(made.groups[1:], measure.contrasts, strict=True):
            if contrast is None:
                continue
            whole = turned(contrast)
            one = {"part": parts[group.label], "measure": measure.key, "worth": whole.difference}
            if whole.interval is not None:
                one |= {"interval": list(whole.interval), "level": whole.level}
            worth.append(one | {"p_holm": whole.p_holm, "verdict": VERDICTS[measure.verdict(contrast)]})
    return {"worth": worth, **compare_data(made)}
