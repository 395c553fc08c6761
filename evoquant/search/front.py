"""The front of retention and effective bits that a search has found: what nothing beats in both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Front:
    """Rows of genes that none dominates, from the fewest bits.

    All of them, unless there were more than `cap` at a time: then they were thinned, and one that only a thinned one
    dominates may stand among them.

    Attributes:
        genes: `(k, genes)`.
        points: `(k, 2)` retention and effective bits.
    """

    def __init__(self, genes: int, cap: int) -> None:
        self._cap = cap
        self.genes = np.empty((0, genes))
        self.points = np.empty((0, 2))

    def add(self, genes: NDArray[np.float64], points: NDArray[np.float64]) -> None:
        """Let `(n, genes)` rows and their `(n, 2)` points in where nothing beats them."""
        genes, points = np.concatenate([self.genes, genes]), np.concatenate([self.points, points])
        kept = thinned(points, nondominated(points), self._cap)
        self.genes, self.points = genes[kept], points[kept]


def nondominated(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of the nondominated of `(n, 2)` retention and effective bits, from the fewest bits; of equals the first."""
    retention, bits = points.T
    order = np.lexsort((-retention, bits))
    best = np.maximum.accumulate(retention[order])
    better = np.concatenate([np.ones(min(len(order), 1), dtype=bool), retention[order][1:] > best[:-1]])
    return np.asarray(order[better], dtype=np.intp)


def thinned(points: NDArray[np.float64], front: NDArray[np.intp], cap: int) -> NDArray[np.intp]:
    """The front without the rows, one after the other, that add the least hypervolume; the ends stay."""
    kept = front
    while len(kept) > max(cap, 2):
        retention, bits = points[kept].T
        added = (bits[2:] - bits[1:-1]) * (retention[1:-1] - retention[:-2])
        kept = np.delete(kept, 1 + int(added.argmin()))
    return kept
