"""How alike allocations are, compiled: one pass over units for all three sums that the surrogate's covariances need.

Imported only where a surrogate is fitted, which pays for a compiler's start.
"""

from __future__ import annotations

import numpy as np

from evoquant.scoring.compiled import compiled


@compiled
def likeness(first, shares, second, others):  # type: ignore[no-untyped-def]
    """`(3, m, n)` sums over units of qq′, of qq′ where the widths are the same, and of √(qq′) there.

    The inner loop runs over allocations, not units, so that no order of a sum depends on how wide the machine's
    vectors are.

    Args:
        first: `(m, units)` int8 allocations.
        shares: `(m, units)` their q.
        second: `(units, n)` int8 allocations, one in each column.
        others: `(units, n)` their q.
    """
    m, units = first.shape
    n = second.shape[1]
    sums = np.zeros((3, m, n))
    roots = np.sqrt(others)
    for i in range(m):
        for u in range(units):
            width, q = first[i, u], shares[i, u]
            root = np.sqrt(q)
            for j in range(n):
                product = q * others[u, j]
                same = 1.0 if second[u, j] == width else 0.0
                sums[0, i, j] += product
                sums[1, i, j] += same * product
                sums[2, i, j] += same * root * roots[u, j]
    return sums
