"""Which rows of a large population are copies: by hash, compared in full where hashes meet.

Imported only for large populations; sorting their rows would take longer than scoring them.
"""

from __future__ import annotations

import numpy as np

from evoquant.scoring.compiled import compiled

STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31, HALF = (np.uint64(bits) for bits in (27, 30, 31, 32))


@compiled
def mixed(z):  # type: ignore[no-untyped-def]
    """The bits of a 64-bit word spread over all of them, as splitmix64 does it."""
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return z ^ (z >> S31)


@compiled
def row_hash(words, r):  # type: ignore[no-untyped-def]
    """A hash of row r: each word times a number of its column, added up, so that no column waits for another.

    The lower halves of many floats are 0; the upper ones are folded onto them.
    """
    total = np.uint64(0)
    odd = STEP
    for j in range(words.shape[1]):
        total += (words[r, j] ^ (words[r, j] >> HALF)) * odd
        odd = (odd + STEP) * FIRST | np.uint64(1)
    return mixed(total)


@compiled
def hash_rows(words, begin, end, hashes):  # type: ignore[no-untyped-def]
    """Fill `hashes` from `begin` to `end`."""
    for r in range(begin, end):
        hashes[r] = row_hash(words, r)


@compiled
def distinct_rows(words, hashes):  # type: ignore[no-untyped-def]
    """The rows that are no copies of an earlier one, and for each row which of those it equals.

    Args:
        words: `(n, k)` of 64 bits; rows are equal where all their bits are.
        hashes: `(n,)`, equal where rows are.

    Returns:
        `(d,)` row numbers in order, and `(n,)` indices into them.
    """
    n, width = words.shape
    size = 2
    while size < 2 * n:
        size *= 2
    mask = np.uint64(size - 1)
    slots = np.full(size, -1, dtype=np.int32)  # the place among the distinct rows
    tags = np.empty(size, dtype=np.uint32)  # the other half of a hash, so that few rows are compared in vain
    firsts = np.empty(n, dtype=np.int64)
    places = np.empty(n, dtype=np.int64)
    count = 0
    for r in range(n):
        slot = hashes[r] & mask
        tag = np.uint32(hashes[r] >> HALF)
        while True:
            place = slots[slot]
            if place < 0:
                slots[slot] = count
                tags[slot] = tag
                firsts[count] = r
                places[r] = count
                count += 1
                break
            if tags[slot] == tag:
                other = firsts[place]
                same = True
                for j in range(width):
                    same &= words[r, j] == words[other, j]
                if same:
                    places[r] = place
                    break
            slot = (slot + np.uint64(1)) & mask
    return firsts[:count].copy(), places


@compiled
def gather_rows(words, chosen, begin, end, out):  # type: ignore[no-untyped-def]
    """Copy the chosen rows from `begin` to `end` into those of `out`."""
    for i in range(begin, end):
        for j in range(words.shape[1]):
            out[i, j] = words[chosen[i], j]
