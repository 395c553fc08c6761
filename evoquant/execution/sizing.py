"""How many items a batch holds: what takes a while at the cost measured so far, and less towards the end."""

from __future__ import annotations

import math

MOST_S = 0.3  # longer batches hide no more of the way to a worker and back, and leave workers idle at the end
LEAST_S = 0.02  # shorter ones cost the driver, at about 1 ms a batch, more than they level out
FRESH = 0.3  # the weight of the newest measurement


class Sizer:
    """Sizes batches from what items cost. No result may depend on it: of a batch that is lost, each is done by itself.

    Args:
        untold: items in a batch before anything was measured.
    """

    def __init__(self, untold: int = 1) -> None:
        self._untold = untold
        self.item_s: float | None = None

    def observe(self, items: int, seconds: float, workers: int) -> None:
        """Take in that `workers` did so many items in so many seconds of wall time: an exponential mean."""
        if items:
            cost = seconds * min(workers, items) / items
            self.item_s = cost if self.item_s is None else (1.0 - FRESH) * self.item_s + FRESH * cost

    def sizes(self, items: int, workers: int) -> list[int]:
        """Sizes of batches that sum to `items`.

        Guided self-scheduling: a batch is at most half of a worker's share of what is left, so that the workers,
        whatever their batches cost, end together; see Polychronopoulos and Kuck (1987).
        """
        most, least = self._untold, 1
        if self.item_s is not None:
            most = max(1, round(MOST_S / max(self.item_s, 1e-9)))
            least = max(1, math.ceil(LEAST_S / max(self.item_s, 1e-9)))
        sizes = []
        while items:
            share = items if workers == 1 else math.ceil(items / (2 * workers))
            sizes.append(min(items, most, max(least, share)))
            items -= sizes[-1]
        return sizes
