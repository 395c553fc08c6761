"""Which rows of a large population are copies: by hash, compared in full where hashes meet.

Imported only for large populations; sorting their rows would take longer than scoring them.
"""

from __future__ import annotations

import numpy as np

from evoquant.scoring.compiled import compiled

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)


@compiled
def distinct_rows(rows):  # type: ignore[no-untyped-def]
    """The rows that are no copies of an earlier one, and for each row which of those it equals.

    Args:
        rows: `(n, k)` 64-bit words; rows are equal where all their bits are.

    Returns:
        `(d,)` row numbers in order, and `(n,)` indices into them.
    """
    n, width = rows.shape
    size = 2
    while size < 2 * n:
        size *= 2
    mask = np.uint64(size - 1)
    slots = np.full(size, -1, dtype=np.int32)  # the place among the distinct rows
    hashes = np.empty(n, dtype=np.uint64)
    firsts = np.empty(n, dtype=np.int64)
    places = np.empty(n, dtype=np.int64)
    count = 0
    for r in range(n):
        value = np.uint64(width)
        for j in range(width):
            value = (value ^ rows[r, j]) * MULTIPLIER
            value ^= value >> HALF
        slot = value & mask
        while True:
            place = slots[slot]
            if place < 0:
                slots[slot] = count
                hashes[count] = value
                firsts[count] = r
                places[r] = count
                count += 1
                break
            if hashes[place] == value:
                other = firsts[place]
                same = True
                for j in range(width):
                    same &= rows[r, j] == rows[other, j]
                if same:
                    places[r] = place
                    break
            slot = (slot + np.uint64(1)) & mask
    return firsts[:count].copy(), places
