"""The task `llama`: a small Llama that predicts the next byte of the Jargon File."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.models.hf import require_transformers
from evoquant.models.tasks.char_lm import cut_windows, read_bytes
from evoquant.models.tasks.training import Training, trained_task

if TYPE_CHECKING:
    from pathlib import Path

    from evoquant.models.torch_task import TorchTask

NAME = "llama"
SPECIALS = 3
"""Tokens before the 256 bytes: <unk>, <s> and </s>, as SentencePiece has them."""

TRAINING_WINDOWS = 16_000
ARCHITECTURE: dict[str, Any] = {
    "kind": "llama",
    "vocabulary": 320,  # the bytes, what comes before them, and as many as make it a multiple of 64
    "length": 256,
    "width": 64,
    "heads": 4,
    "key_value_heads": 2,
    "hidden": 192,
    "depth": 3,
    "begin": 1,
    "end": 2,
}
TRAINING = Training(epochs=1, batch=16, learning_rate=0.01, weight_decay=0.0, one_cycle=True)


def load(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    """The task with its network trained, or read from `cache`; a sample is a window of 64 scored bytes.

    The held-out windows are those of `char_lm` of the same seed. The network is the library's, and another release
    may compute otherwise: which one it is belongs to the architecture, and so to the network's digest.

    Args:
        seed: of splits, initial weights and training windows, 0 ≤ seed < 2^63.
        cache: folder for trained networks.
        block: windows that are measured together, at least 1.
        batch: windows per forward pass, at least 1.

    Raises:
        InputError: the text that ships with the package is damaged.
        MissingExtraError: PyTorch or transformers is not installed.
    """
    require_transformers(f"the task {NAME!r}")
    architecture = {**ARCHITECTURE, "library": f"transformers {metadata.version('transformers')}"}
    tokens = read_bytes().astype(np.int64) + SPECIALS
    splits = cut_windows(tokens, seed, TRAINING_WINDOWS)
    return trained_task(NAME, "language", architecture, TRAINING, splits, seed, cache, block, batch)
