"""The samples behind the frozen tables: handwritten digits, and articles of clothing at a quarter of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import MissingExtraError
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TRAIN = "train"
SPLITS = ("calibration", "selection", "test")
DIGITS = {TRAIN: 600, "calibration": 500, "selection": 200, "test": 497}
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
FASHION = {TRAIN: 30_000, "calibration": 2_000, "selection": 500, "test": 1_000}
TRAINING_IMAGES = 60_000  # of Fashion-MNIST; its test images follow


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and classes of some splits, one split after the other.

    Attributes:
        images: `(n, side, side)` uint8.
        labels: `(n,)` uint8.
        scale: the largest pixel there can be.
        sizes: split → samples.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    scale: int
    sizes: dict[str, int]

    @property
    def inputs(self) -> NDArray[np.float32]:
        """`(n, 1, side, side)` in [0, 1], what a network takes."""
        return self.images[:, None].astype(np.float32) / np.float32(self.scale)

    @property
    def classes(self) -> NDArray[np.int64]:
        """`(n,)`, what PyTorch takes."""
        return self.labels.astype(np.int64)

    def where(self, split: str) -> slice:
        """The rows of a split."""
        names = list(self.sizes)
        start = sum(self.sizes[before] for before in names[: names.index(split)])
        return slice(start, start + self.sizes[split])

    def only(self, splits: tuple[str, ...]) -> Samples:
        """These splits alone."""
        rows = np.concatenate([np.arange(len(self.labels))[self.where(split)] for split in splits])
        return Samples(self.images[rows], self.labels[rows], self.scale, {split: self.sizes[split] for split in splits})


def read_digits(seed: int) -> Samples:
    """scikit-learn's 1,797 digits of 8 × 8 pixels in disjoint splits, each also shifted by a pixel to each side.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("measuring the table digits-cnn anew", "scikit-learn", "torch") from None
    bunch = load_digits()
    order = generator_for(seed, 0, "splits").permutation(len(bunch.target))
    padded = np.pad(bunch.images.astype(np.uint8)[order], ((0, 0), (1, 1), (1, 1)))
    shifted = np.stack([padded[:, 1 + y : 9 + y, 1 + x : 9 + x] for y, x in SHIFTS], axis=1).reshape(-1, 8, 8)
    labels = np.repeat(bunch.target.astype(np.uint8)[order], len(SHIFTS))
    return Samples(shifted, labels, 16, {split: size * len(SHIFTS) for split, size in DIGITS.items()})


def read_fashion(folder: Path) -> Samples:
    """Fashion-MNIST, every 2 × 2 pixels averaged: half of the training images, then 3,500 of the test images.

    Raises:
        InputError: the folder lacks a file of the data set, or one is damaged.
    """
    from evoquant.models.tasks.fashion import read_images

    images, classes = read_images(folder)
    judged = sum(FASHION[split] for split in SPLITS)
    rows = np.r_[: FASHION[TRAIN], TRAINING_IMAGES : TRAINING_IMAGES + judged]
    small = np.rint(images[rows].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))).astype(np.uint8)
    return Samples(small, classes[rows].astype(np.uint8), 255, FASHION)
