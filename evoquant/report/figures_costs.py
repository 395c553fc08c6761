"""Named figures of cost tables: how well sums of parts foretell whole networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.costs_study import rank_correlation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = dict[str, Any]
    Rows = Callable[[str], Sequence[Row]]


def costs(rows: Rows) -> dict[str, str]:
    """Over networks and targets: rank correlations, median and largest errors, bytes off, shares of the fronts."""
    found = rows("costs")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        if row["part"] == "allocation":
            groups.setdefault((row["network"], row["target"]), []).append(row)
    ranks, errors, most = [], [], []
    for mine in groups.values():
        predicted, measured = (np.array([row[key] for row in mine], float) for key in ("predicted_ns", "measured_ns"))
        ranks.append(rank_correlation(predicted, measured))
        off_by = np.abs(measured / predicted - 1)
        errors.append(float(np.median(off_by)))
        most.append(float(off_by.max()))
    off = [abs(row["predicted_bytes"] - row["stored_bytes"]) for mine in groups.values() for row in mine]
    shares = {
        f"share.{row['target']}.{'-'.join(row['objectives'][1:])}": f"{row['share']:.1%}"
        for row in found
        if row["part"] == "front"
    }
    return {
        "allocations": str(max(map(len, groups.values()))),
        "rank_low": f"{min(ranks):.3f}",
        "rank_high": f"{max(ranks):.3f}",
        "error_low": f"{min(errors):.1%}",
        "error_high": f"{max(errors):.1%}",
        "error_most": f"{max(most):.1%}",
        "bytes_off": f"{max(off):,}",
        **shares,
    }
