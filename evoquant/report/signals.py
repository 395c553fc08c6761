"""Tables of a profiled network: what each signal cost and how it ranks, how additive the network is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.report.table import Table
from evoquant.scoring.agreement import signal_agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.profiles.model import ModelProfile


def signals_table(profile: ModelProfile) -> Table:
    """Each signal's passes, and its rank correlation with the losses and divergences measured one at a time."""
    rows = [
        (
            row.signal,
            "" if row.passes is None else f"{row.passes:g}",
            _correlation(row.loss),
            _correlation(row.divergence),
        )
        for row in signal_agreement(profile)
    ]
    others = {name: passes for name, passes in profile.passes.items() if name not in {row[0] for row in rows}}
    rows += [(name, f"{passes:g}", "", "") for name, passes in sorted(others.items())]
    columns = ("Signal", "Passes", "Rank correlation with loss", "with divergence")
    notes = (f"{sum(profile.passes.values()):g} passes over the calibration split in all.",)
    return Table(f"{profile.name}: signals of {len(profile.layers)} layers", columns, rows, notes, frozenset((1, 2, 3)))


def additivity_table(figures: Mapping[str, Any]) -> Table:
    """How well the sum over single layers foretells whole allocations."""
    clear = figures.get("clear_misordered")
    rows = [
        (
            figures["table"],
            str(figures["allocations"]),
            f"{figures['misordered']:.1%}",
            "" if clear is None else f"{clear:.1%} of {figures['clear_pairs']}",
            f"{figures['r2']:.3f}" if "r2" in figures else "",
            f"{figures['passes']:g}",
        )
    ]
    columns = ("Summed", "Allocations", "Pairs misordered", "of those clearly apart", "R²", "Passes")
    notes = ("Half of all pairs misordered is guessing; near 0% a search on the profile needs no measuring.",)
    return Table("How additive the network is", columns, rows, notes, frozenset(range(1, 6)))


def _correlation(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
