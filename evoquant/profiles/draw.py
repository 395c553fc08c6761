"""Draws from stated ranges, and figures rounded so that they are the same on any machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

Option = TypeVar("Option")


class Draw:
    """Scalars from one NumPy generator; logarithms and powers are the C library's, never vectorised ones."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * float(self._rng.random())

    def scale(self, low: float, high: float) -> float:
        """A log-uniform float between two positive bounds."""
        return low * math.pow(high / low, float(self._rng.random()))

    def size(self, low: int, high: int, multiple: int = 1) -> int:
        """A log-uniform multiple of `multiple` between two multiples of it."""
        return min(max(round_to(self.scale(low, high), multiple), low), high)

    def whole(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return int(self._rng.integers(low, high + 1))

    def pick(self, options: Sequence[Option]) -> Option:
        """One of the options, all equally likely."""
        return options[self.whole(0, len(options) - 1)]

    def chance(self, share: float) -> bool:
        """True in `share` of the draws."""
        return float(self._rng.random()) < share

    def normal(self, sigma: float) -> float:
        """A normal float of mean 0 and standard deviation `sigma`."""
        return sigma * float(self._rng.standard_normal())


def round_to(value: float, multiple: int) -> int:
    """The nearest positive multiple."""
    return max(round(value / multiple), 1) * multiple


def readable(value: float) -> float:
    """The value to six significant digits: short in a file, and equal where a last bit of the arithmetic differs."""
    return float(f"{value:.6g}")
