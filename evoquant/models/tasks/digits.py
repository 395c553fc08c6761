"""The task `digits`: a small convolutional network on scikit-learn's 8 × 8 handwritten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import MissingExtraError
from evoquant.models.networks import require_torch
from evoquant.models.tasks.splits import stratified_splits
from evoquant.models.tasks.training import Training, trained_task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.models.torch_task import TorchTask

NAME = "digits"
ARCHITECTURE: dict[str, Any] = {
    "kind": "small_cnn",
    "inputs": 1,
    "side": 8,
    "channels": [16, 16, 32, 32],
    "hidden": 64,
    "classes": 10,
}
TRAINING = Training(epochs=30, batch=50, learning_rate=0.003, weight_decay=1e-4)
SIZES = {"train": 600, "calibration": 400, "selection": 200, "gate": 200, "test": 397}


def load(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    """The task with its network trained, or read from `cache`.

    Args:
        seed: of splits, initial weights and order of training, 0 ≤ seed < 2^63.
        cache: folder for trained networks.
        block: samples that are measured together, at least 1.
        batch: samples per forward pass, at least 1.

    Raises:
        MissingExtraError: PyTorch or scikit-learn is not installed.
    """
    require_torch(f"the task {NAME!r}")
    images, digits = _load_images()
    splits = stratified_splits(images, digits, digits, [str(digit) for digit in range(10)], SIZES, seed)
    return trained_task(NAME, "classification", ARCHITECTURE, TRAINING, splits, seed, cache, block, batch)


def _load_images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`(1797, 1, 8, 8)` images in [0, 1] and `(1797,)` digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError(f"the task {NAME!r}", "scikit-learn", "torch") from None
    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)
