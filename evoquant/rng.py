"""Keyed random streams: (seed, generation, purpose) → generator.

A stream depends on its key alone, so a resumed campaign needs no saved generator state, and
drawing more numbers for one purpose never shifts another.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator_for(seed: int, generation: int, purpose: str) -> np.random.Generator:
    """A Philox generator that depends on `seed`, `generation` and `purpose` alone.

    Args:
        seed: the campaign's seed, 0 ≤ seed < 2^63.
        generation: counted from 0; anything keyed to the whole campaign uses 0.
        purpose: what the numbers are for ("variation", "bootstrap", …).
    """
    key = hashlib.sha256(f"{seed}\0{generation}\0{purpose}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype="<u8")))
