"""The task `char_lm`: a small causal transformer that predicts the next character of the Jargon File."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.models.networks import require_torch
from evoquant.models.tasks.splits import TRAIN
from evoquant.models.tasks.training import Training, trained_task
from evoquant.models.torch_data import INPUTS, TARGETS
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_task import TorchTask

NAME = "char_lm"
TEXT = "jargon-4.4.7.txt.gz"
TEXT_SHA256 = "c3e49335281569b4ef1ea31b0a4c1866f9317e6edda18ecce125459381fe00e7"
ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
LENGTH = 64
PIECE = 20 * (LENGTH + 1)
"""Characters that go to one split together: a held-out window's text is in no training window."""

WINDOWS = {"calibration": 320, "selection": 320, "gate": 320, "test": 640}
TRAINING_WINDOWS = 24_000
ARCHITECTURE: dict[str, Any] = {
    "kind": "language_model",
    "vocabulary": len(ALPHABET),
    "length": LENGTH,
    "width": 48,
    "heads": 2,
    "hidden": 144,
    "depth": 3,
}
TRAINING = Training(epochs=1, batch=16, learning_rate=0.01, weight_decay=0.0, one_cycle=True)


def load(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    """The task with its network trained, or read from `cache`; a sample is a window of 64 scored characters.

    Args:
        seed: of splits, initial weights and training windows, 0 ≤ seed < 2^63.
        cache: folder for trained networks.
        block: windows that are measured together, at least 1.
        batch: windows per forward pass, at least 1.

    Raises:
        InputError: the text that ships with the package is damaged.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch(f"the task {NAME!r}")
    splits = cut_windows(read_text(), seed)
    return trained_task(NAME, "language", ARCHITECTURE, TRAINING, splits, seed, cache, block, batch)


def read_text() -> NDArray[np.int64]:
    """`(characters,)` positions in `ALPHABET` of the text that ships with the package.

    Raises:
        InputError: it is not the text it was.
    """
    table = np.zeros(256, dtype=np.int64)
    table[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET))
    return table[read_bytes()]


def read_bytes() -> NDArray[np.uint8]:
    """`(characters,)` ASCII codes of the text that ships with the package.

    Raises:
        InputError: it is not the text it was.
    """
    packed = resources.files("evoquant.models.tasks").joinpath(TEXT).read_bytes()
    if hashlib.sha256(packed).hexdigest() != TEXT_SHA256:
        raise InputError(f"{TEXT}: is damaged; install evoquant anew.")
    return np.frombuffer(gzip.decompress(packed), dtype=np.uint8)


def cut_windows(text: NDArray[np.int64], seed: int, training_windows: int = TRAINING_WINDOWS) -> dict[str, Arrays]:
    """The splits, held-out ones in windows side by side, the training windows at random in the rest of the text.

    Each of `inputs` and `targets` is `(windows, 64)`; a target is the character after its input.
    """
    generator = generator_for(seed, 0, "splits")
    pieces = text[: len(text) // PIECE * PIECE].reshape(-1, PIECE)
    order = generator.permutation(len(pieces))
    splits: dict[str, Arrays] = {}
    start = 0
    for split, windows in WINDOWS.items():
        taken = windows * (LENGTH + 1) // PIECE
        held_out = pieces[order[start : start + taken]].reshape(windows, LENGTH + 1)
        splits[split] = _inputs_and_targets(held_out)
        start += taken
    rest = pieces[order[start:]]
    at = generator.integers(0, PIECE - LENGTH, training_windows)
    of = generator.integers(0, len(rest), training_windows)
    splits[TRAIN] = _inputs_and_targets(rest[of[:, None], at[:, None] + np.arange(LENGTH + 1)])
    return splits


def _inputs_and_targets(windows: NDArray[np.int64]) -> Arrays:
    return {INPUTS: np.ascontiguousarray(windows[:, :-1]), TARGETS: np.ascontiguousarray(windows[:, 1:])}
