"""The task `tabular`: a multilayer perceptron that predicts a number from 24 features of generated rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.models.networks import require_torch
from evoquant.models.tasks.splits import stratified_splits
from evoquant.models.tasks.training import Training, trained_task
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.models.torch_task import TorchTask

NAME = "tabular"
ROWS, FEATURES, FACTORS = 50_000, 24, 8
NOISE = 0.15
"""Standard deviation of what the features do not tell; that of the rest is 1, so R² can reach 0.98."""

QUARTERS = tuple(f"first feature, quarter {quarter}" for quarter in range(1, 5))
SIZES = {"train": 40_000, "calibration": 2_500, "selection": 1_250, "gate": 1_250, "test": 5_000}
ARCHITECTURE: dict[str, Any] = {"kind": "mlp", "inputs": FEATURES, "hidden": [96, 96, 64, 64, 32]}
TRAINING = Training(epochs=12, batch=200, learning_rate=0.006, weight_decay=1e-6, one_cycle=True)


def load(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    """The task with its network trained, or read from `cache`; its slices are the quarters of the first feature.

    Args:
        seed: of splits, initial weights and order of training, 0 ≤ seed < 2^63; the rows are always the same.
        cache: folder for trained networks.
        block: samples that are measured together, at least 1.
        batch: samples per forward pass, at least 1.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    require_torch(f"the task {NAME!r}")
    features, targets = make_rows()
    quarters = np.searchsorted(np.quantile(features[:, 0], [0.25, 0.5, 0.75]), features[:, 0]).astype(np.int64)
    splits = stratified_splits(features, targets, quarters, QUARTERS, SIZES, seed)
    return trained_task(NAME, "regression", ARCHITECTURE, TRAINING, splits, seed, cache, block, batch)


def make_rows() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`(50000, 24)` features and `(50000, 1)` targets, each with mean 0 and deviation 1.

    Features are mixtures of a few normal factors and noise of their own, a third of them heavy-tailed, a third rounded
    to steps. The target is smooth in some, oscillates in others, jumps at thresholds, and multiplies pairs.
    """
    generator = generator_for(0, 0, "tabular rows")
    mixture = generator.standard_normal((FACTORS, FEATURES))
    x = generator.standard_normal((ROWS, FACTORS)) @ mixture / np.sqrt(FACTORS)
    x += 0.7 * generator.standard_normal((ROWS, FEATURES))
    x[:, 1::3] = np.sinh(x[:, 1::3])
    x[:, 2::3] = np.round(2 * x[:, 2::3]) / 2
    x = _standardised(x)
    terms = [
        np.sin(2 * x[:, 0]) * x[:, 3],
        np.tanh(x[:, 1] + 0.5 * x[:, 4]) * np.abs(x[:, 6]),
        np.where(x[:, 9] > 0.5, x[:, 12], -0.5 * x[:, 15]),
        np.cos(1.5 * (x[:, 18] + x[:, 21])),
        np.maximum(x[:, 2], x[:, 5]) - np.maximum(x[:, 8], x[:, 11]),
        np.sign(x[:, 14] + x[:, 17]) * np.sqrt(np.abs(x[:, 7] * x[:, 10])),
        0.5 * np.log1p(np.square(x[:, 13] - x[:, 16])),
        0.3 * (x[:, 19] + x[:, 20] - x[:, 22] + x[:, 23]),
    ]
    signal = _standardised(np.sum(terms, axis=0))
    y = _standardised(signal + NOISE * generator.standard_normal(ROWS))
    return x.astype(np.float32), y.astype(np.float32)[:, None]


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column with mean 0 and deviation 1."""
    standardised: NDArray[np.float64] = (values - values.mean(axis=0)) / values.std(axis=0)
    return standardised
