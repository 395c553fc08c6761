"""The budget of a measured search, in full passes over the calibration split, honoured exactly.

The FP32 reference, the profile's signals and each distinct (allocation, block) that the campaign asks for count once,
whether or not the store has it: a warm store changes the time, never the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDING = 1e-9  # of a pass: what a sum of the signals' fractions may be off


class Budget:
    """What has been spent, in samples, and what may still be."""

    def __init__(self, blocks: Sequence[int], signals: float, limit: float | None = None) -> None:
        """Begin with the signals spent.

        Args:
            blocks: samples of each block of the calibration split.
            signals: passes that the profile's signals took.
            limit: in passes, signals included; None for none.
        """
        self.blocks = tuple(blocks)
        self.total = sum(blocks)
        self.signals = signals
        self.limit = limit
        self._spent = 0
        self._counted: set[str] = set()

    @property
    def passes(self) -> float:
        """Spent so far, signals included."""
        return self.signals + self._spent / self.total

    def cost(self, digest: str, first: int, end: int) -> int:
        """Samples of blocks `first` up to `end` of an allocation that have not been counted yet."""
        return sum(self.blocks[block] for block in range(first, end) if _key(digest, block) not in self._counted)

    def fits(self, samples: int) -> bool:
        """Whether so many samples more are within the limit."""
        if self.limit is None:
            return True
        return self.signals + (self._spent + samples) / self.total <= self.limit + ROUNDING

    def charge(self, digest: str, end: int) -> None:
        """Count blocks 0 up to `end` of an allocation, each once."""
        for block in range(end):
            key = _key(digest, block)
            if key not in self._counted:
                self._counted.add(key)
                self._spent += self.blocks[block]

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"spent": self._spent, "counted": sorted(self._counted)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._spent = int(state["spent"])
        self._counted = set(state["counted"])


def _key(digest: str, block: int) -> str:
    return f"{digest}/{block}"
