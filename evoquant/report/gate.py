"""Tables of what was measured on real networks: the gate, slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.gate_rivals import BLIND
from evoquant.report.table import Table
from evoquant.scoring.cost_file import no_signal
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.report.counted import Counted


def gate_table(gate: Mapping[str, Any], warnings: Sequence[str] = (), counted: Counted | None = None) -> Table:
    """The champion and its rivals on the gate's data; of those drawn blindly the best of each kind.

    Args:
        gate: as gate.json has it.
        warnings: beside its own.
        counted: what compression is of; None for bits.
    """
    chosen = gate["recommended"]["name"]
    cells = []
    for row in (gate["champion"], *shown_rivals(gate)):
        against = ""
        if "interval" in row:
            low, high = row["interval"]
            against = f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
        cells.append(
            (
                row["name"],
                f"{row['fitness']:.4f}",
                f"{row['retention']:.2%}",
                f"{row['compression']:.3f}x",
                f"{row['effective_bits']:.3f}",
                *([] if counted is None else [counted.text(row["compression"])]),
                against,
                {"ahead": "beaten", "behind": "BEATS THE CHAMPION"}.get(row.get("verdict", ""), row.get("verdict", "")),
                "recommended" if row["name"] == chosen else "",
            )
        )
    cost = () if counted is None else (counted.heading,)
    columns = ("Allocation", "Fitness", "Retention", "Compr.", "Bits/weight", *cost)
    numeric = frozenset(range(1, len(columns) + 1))
    columns = (*columns, "Champion's lead (95%)", "Verdict", "")
    notes = [*(f"WARNING: {text}" for text in (*warnings, *gate["warnings"]))]
    notes += [f"{name}: left out: {reason}" for name, reason in gate["left_out"].items()]
    notes += alike_notes(gate, counted)
    title = f"The gate: {gate['samples']} samples that nobody has chosen by, {gate['passes']} passes over them"
    return Table(title, columns, cells, tuple(notes), numeric)


def alike_notes(gate: Mapping[str, Any], counted: Counted | None) -> list[str]:
    """Which rivals a measured cost cannot tell from the champion, in a line; none where there are none."""
    if counted is None or counted.noise is None:
        return []
    own = gate["champion"]["compression"]
    alike = [row["name"] for row in shown_rivals(gate) if counted.alike(own, row["compression"])]
    if not alike:
        return []
    noise = amount_text(counted.noise, counted.name)
    return [
        f"{no_signal(counted.name)} between the champion and {', '.join(alike)}: less than twice the noise of {noise} "
        f"apart."
    ]


def slices_table(split: str, figures: Mapping[str, Any]) -> Table:
    """The slices of least retention on a split."""
    slices = figures["slices"]
    rows = [
        (
            row["name"],
            f"{row['retention']:.2%}",
            f"{row['interval'][0]:.2%} to {row['interval'][1]:.2%}",
            f"{row['probability']:.0%}" if "probability" in row else "",
            str(row["samples"]),
        )
        for row in slices["worst"]
    ]
    floor = f"P(at least {figures['floor']:.1%})" if "floor" in figures else ""
    columns = ("Slice", "Retention", "95% interval", floor, "Samples")
    title = f"Slices of least retention on {split}: {len(rows)} of {slices['count']}"
    return Table(title, columns, rows, numeric=frozenset(range(1, 5)))


def shown_rivals(gate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rivals as gate.json has them; of those drawn blindly the best of each kind, named so, at the end."""
    rivals: list[Mapping[str, Any]] = []
    blind: dict[str, list[Mapping[str, Any]]] = {}
    for row in gate["rivals"]:
        if row["kind"] in BLIND:
            blind.setdefault(row["kind"], []).append(row)
        else:
            rivals.append(row)
    for kind, drawn in blind.items():
        best = max(drawn, key=lambda row: float(row["fitness"]))
        rivals.append({**best, "name": f"best of {len(drawn)} {kind}"})
    return rivals
