"""Figures of speed as a table: medians with their spread, goals, and what was measured how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.campaign.environment import PACKAGES
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TITLES = {
    "rules": "Populations of rules",
    "trees": "Populations of trees",
    "engine": "The engine, end to end",
    "networks": "Measuring real networks",
    "cluster": "Ray",
    "start": "Starting",
}


def performance_table(topic: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The figures of one topic.

    Args:
        topic: a key of `TITLES`.
        rows: as `evoquant.bench.contest.Measure.to_row` gives them.
    """
    cells = [
        (
            str(row["what"]),
            figure(row["median"], row["unit"]),
            f"{figure(min(row['values']), row['unit'])} to {figure(max(row['values']), row['unit'])}",
            _goal(row),
            "; ".join(f"{name} {figure(row['rates'][name], '1/s')}" for name in _as_named(row)),
        )
        for row in rows
    ]
    remarks = dict.fromkeys(str(row["remark"]) for row in rows if row["remark"])
    rounds = max((len(row["values"]) for row in rows), default=0)
    notes = (f"Medians and spread of {rounds} rounds in which the ways took turns.", *remarks)
    return Table(
        TITLES[topic], ("What", "Median", "Spread", "Goal", "Median rates"), cells, notes, frozenset({1, 2, 3})
    )


def machine_note(machine: Mapping[str, Any]) -> str:
    """The machine in one paragraph."""
    packages = sorted(machine["packages"], key=lambda name: (*PACKAGES, name).index(name))
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in packages if machine["packages"][name])
    return (
        f"Machine: {machine['cpu']}, {machine['cpus']} cores, {machine['system']} {machine['machine']}; "
        f"{machine['implementation']} {machine['python']}; {versions}."
    )


def _as_named(row: Mapping[str, Any]) -> list[str]:
    """The names of the rates in the order in which `what` has them: JSON keeps none."""
    return sorted(row["rates"], key=lambda name: (row["what"].find(name), name))


def figure(value: float, unit: str) -> str:
    """A number with its unit, three digits of it."""
    if unit == "1/s":
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{_digits(value / size)}{letter}/s"
        return f"{_digits(value)}/s"
    if unit == "x":
        return f"{_digits(value)}x"
    if unit == "%":
        return f"{value:.1f}%"
    return f"{_digits(value)} s"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _goal(row: Mapping[str, Any]) -> str:
    if row["goal"] is None:
        return ""
    sign = "≥" if row["unit"] in ("x", "1/s") else "≤"
    return f"{sign} {figure(row['goal'], row['unit'])}, {'met' if row['met'] else 'missed'}"
