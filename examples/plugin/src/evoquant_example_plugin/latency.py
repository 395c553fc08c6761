"""Latency as a cost: whole nanoseconds a layer, from a table with a line for each number of bits.

`device.csv` is made up: narrow codes save memory traffic and take time to unpack. Measure yours, one layer at a time.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError
from evoquant.scoring.cost import Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu

COLUMNS = ("bits", "ns_per_layer", "ns_per_1000_weights")
REFERENCE_BITS = 32  # compression is counted from the model in FP32


class Latency:
    """Nanoseconds of one pass, layer after layer.

    Args:
        table: a CSV file with the columns `COLUMNS`, whole numbers; the made-up one of this package by default.
    """

    def __init__(self, table: str | None = None) -> None:
        self._name = table or "device.csv of evoquant_example_plugin"
        path = files("evoquant_example_plugin") / "device.csv" if table is None else Path(table)
        try:
            rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
            self._speed = {int(row["bits"]): (int(row[COLUMNS[1]]), int(row[COLUMNS[2]])) for row in rows}
        except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            wanted = ", ".join(COLUMNS)
            raise InputError(f"{self._name}: is no table of whole numbers with the columns {wanted}: {error}") from None
        self._of(REFERENCE_BITS)

    def __call__(self, profile: ModelProfile, menu: Menu, members: Sequence[Sequence[int]]) -> Cost:
        """`(units, P)` nanoseconds: of each unit the sum over its layers."""
        layers = profile.layers
        table = [[sum(self._layer(layers[i], p.code_bits) for i in unit) for p in menu] for unit in members]
        reference = sum(self._layer(layer, REFERENCE_BITS) for layer in layers)
        return Cost("nanoseconds", np.array(table, dtype=np.int64), 0, reference)

    def _layer(self, layer: LayerProfile, bits: int) -> int:
        call, weights = self._of(bits)
        return call + -(-layer.parameters * weights // 1000)  # rounded up, in integers: the same on every machine

    def _of(self, bits: int) -> tuple[int, int]:
        if bits not in self._speed:
            raise InputError(f"{self._name}: has no line for {bits} bits; add one, or take such widths off the menu.")
        return self._speed[bits]
