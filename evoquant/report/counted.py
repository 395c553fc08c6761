"""Sizes under a cost that is no bits: said in that cost's own unit, where bits per weight would say something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evoquant.scoring.quantity import amount_text


@dataclass(frozen=True)
class Counted:
    """What compression is of.

    Attributes:
        name: of the cost.
        reference: the model in FP32, in its unit.
        noise: how far two measurements of it are apart; None where nothing was measured.
    """

    name: str
    reference: int
    noise: int | None = None

    @property
    def heading(self) -> str:
        """Of a column."""
        return self.name[:1].upper() + self.name[1:]

    def text(self, compression: float) -> str:
        """What a model costs that is so many times below FP32."""
        return amount_text(self.reference / compression, self.name)

    def alike(self, compression: float, other: float) -> bool:
        """Whether two models, so many times below FP32, cost the same so far as its noise lets one tell."""
        return self.noise is not None and self.reference * abs(1 / compression - 1 / other) < 2 * self.noise


def counted_of(scores: Mapping[str, Mapping[str, Any]]) -> Counted | None:
    """What the compression of a champion's figures is of; None for bits."""
    for figures in scores.values():
        if "cost" in figures:
            return Counted(*(figures["cost"].get(key) for key in ("name", "reference", "noise")))
    return None


def size_heading(counted: Counted | None) -> str:
    """Of a column of sizes: bits per weight, or what else is counted."""
    return "Bits/weight" if counted is None else counted.heading


def size_text(counted: Counted | None, compression: float, effective_bits: float) -> str:
    """A size under `size_heading`."""
    return f"{effective_bits:.3f}" if counted is None else counted.text(compression)
