"""The front of retention and costs that a search has found: what nothing beats in all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Front:
    """Rows of genes that none dominates, from the fewest bits, or the least of the first cost.

    All of them, unless there were more than `cap` at a time: then they were thinned, and one that only a thinned one
    dominates may stand among them.

    Attributes:
        genes: `(k, genes)`.
        points: `(k, 2)` retention and effective bits, or `(k, 1 + costs)`.
    """

    def __init__(self, genes: int, cap: int, costs: int = 1) -> None:
        self._cap = cap
        self.genes = np.empty((0, genes))
        self.points = np.empty((0, 1 + costs))

    def add(self, genes: NDArray[np.float64], points: NDArray[np.float64]) -> None:
        """Let `(n, genes)` rows and their `(n, 1 + costs)` points in where nothing beats them."""
        genes, points = np.concatenate([self.genes, genes]), np.concatenate([self.points, points])
        kept = thinned(points, nondominated(points), self._cap)
        self.genes, self.points = genes[kept], points[kept]


def nondominated(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of the nondominated of `(n, 1 + costs)` retention and costs, from the least first cost; of equals the first.

    With two costs by `moocore` (its algorithm takes n log n; of Kung, Luccio & Preparata, JACM 22(4), 1975).
    """
    if points.shape[1] > 2:
        from moocore import is_nondominated

        order = np.lexsort((-points[:, 0], *points[:, :0:-1].T))
        ranked = points[order] * np.array([-1.0] + [1.0] * (points.shape[1] - 1))
        first = np.ones(len(order), dtype=bool)
        first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
        order, ranked = order[first], ranked[first]
        return np.asarray(order[is_nondominated(ranked)] if len(order) else order, dtype=np.intp)
    retention, bits = points.T
    order = np.lexsort((-retention, bits))
    best = np.maximum.accumulate(retention[order])
    better = np.concatenate([np.ones(min(len(order), 1), dtype=bool), retention[order][1:] > best[:-1]])
    return np.asarray(order[better], dtype=np.intp)


def thinned(points: NDArray[np.float64], front: NDArray[np.intp], cap: int) -> NDArray[np.intp]:
    """The front without the rows, one after the other, that add the least hypervolume; the ends stay.

    With two costs without those nearest to another, axes in parts of their range: of the nearest pair the later goes.
    """
    if points.shape[1] > 2:
        return front[_spread(points[front], max(cap, 2 * points.shape[1]))] if len(front) > cap else front
    kept = front
    while len(kept) > max(cap, 2):
        retention, bits = points[kept].T
        added = (bits[2:] - bits[1:-1]) * (retention[1:-1] - retention[:-2])
        kept = np.delete(kept, 1 + int(added.argmin()))
    return kept


def _spread(points: NDArray[np.float64], cap: int) -> NDArray[np.intp]:
    """Rows of at most `cap` points that are far from each other; the best and the worst on each axis stay."""
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    ends = np.unique(np.concatenate([scaled.argmin(axis=0), scaled.argmax(axis=0)]))
    apart = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    left = np.ones(len(points), dtype=bool)
    stays = np.zeros(len(points), dtype=bool)
    stays[ends] = True
    for _ in range(len(points) - cap):
        nearest = np.where(left & ~stays, apart.min(axis=1), np.inf)
        # Both of a pair are as near to each other: the later of the two.
        gone = len(nearest) - 1 - int(nearest[::-1].argmin())
        left[gone] = False
        apart[gone] = apart[:, gone] = np.inf
    return np.flatnonzero(left)
