"""Codes and scales packed into GGUF's blocks of 32 weights along a row, bit for bit.

Q8_0    scale in FP16 │ 32 codes in int8                                            34 bytes
Q4_0    scale in FP16 │ 16 bytes, codes + 8: weight i in the low bits of byte i,
                      │ weight 16 + i in the high ones                              18 bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

BLOCK = 32
"""Weights that share a scale."""

_NIBBLE_ZERO = 8  # what stands for the code 0 in Q4_0


def q8_0(codes: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Rows of blocks, `(rows, columns / 32 · 34)` bytes.

    Args:
        codes: `(rows, columns)`, columns a multiple of 32.
        scales: `(rows · columns / 32,)`, row by row.
    """
    blocks = np.ascontiguousarray(codes).reshape(-1, BLOCK).view(np.uint8)
    return _rows(scales, blocks, len(codes))


def q4_0(codes: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Rows of blocks, `(rows, columns / 32 · 18)` bytes; codes in −8 … 7, the rest as in `q8_0`."""
    shifted = (codes.reshape(-1, BLOCK) + np.int8(_NIBBLE_ZERO)).astype(np.uint8)
    low, high = shifted[:, : BLOCK // 2], shifted[:, BLOCK // 2 :]
    return _rows(scales, low | (high << np.uint8(4)), len(codes))


def permuted(rows: NDArray[Scalar], heads: int) -> NDArray[Scalar]:
    """Rows of a query or key matrix in llama.cpp's order.

    Hugging Face rotates weight i of a head with weight i + half, llama.cpp with its neighbour.

    Args:
        rows: `(heads · head size, …)`.
        heads: of this matrix.
    """
    order = np.arange(len(rows)).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
    return rows[order]


def _rows(scales: NDArray[np.float16], codes: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    stored = scales.astype("<f2").reshape(-1, 1).view(np.uint8)
    return np.concatenate([stored, codes], axis=1).reshape(rows, -1)
