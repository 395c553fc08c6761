"""Scaling out, for results/scale.md: parts that are measured one by one, each with its rows and its table.

A part is a function from an empty folder to rows, in `PARTS`; its table stands in `report.scale.TABLES`, under the same
name. What determines its rows, and is no result of them, it states by `SETTINGS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.bench import scale_memory, scale_runs, scale_simulated, scale_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Rows = list[dict[str, Any]]

PARTS: dict[str, Callable[[Path], Rows]] = {
    "runs": scale_runs.measure,
    "memory": scale_memory.measure,
    "simulated": scale_simulated.measure,
    "sweep": scale_sweep.measure,
}
SETTINGS: dict[str, Callable[[], Mapping[str, Any] | str]] = {
    "runs": scale_runs.settings,
    "memory": scale_memory.settings,
    "simulated": scale_simulated.settings,
    "sweep": scale_sweep.settings,
}
SECONDS = {"runs": 240.0, "memory": 190.0, "simulated": 120.0, "sweep": 150.0}  # that a part takes on two idle cores
