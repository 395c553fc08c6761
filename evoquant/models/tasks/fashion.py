"""The tasks `fashion_cnn` and `fashion_vit`: two small networks on Fashion-MNIST (Xiao, Rasul and Vollgraf 2017)."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.models.networks import require_torch
from evoquant.models.tasks.splits import stratified_splits
from evoquant.models.tasks.training import Training, trained_task
from evoquant.models.torch_data import INPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.torch_task import TorchTask

FOLDER = Path("/usr/share/datasets/fashion-mnist")
VARIABLE = "EVOQUANT_DATA"
PARTS = (("train", 60_000), ("t10k", 10_000))
SIDE = 28
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MEAN, DEVIATION = 0.286, 0.353
"""Of the training pixels in [0, 1]."""

SIZES = {"train": 25_000, "calibration": 2_500, "selection": 1_250, "gate": 1_250, "test": 5_000}
CNN: dict[str, Any] = {
    "kind": "cnn",
    "inputs": 1,
    "channels": [8, 12, 16, 24, 32, 32],
    "strides": [2, 1, 2, 1, 2, 1],
    "hidden": 64,
    "classes": 10,
}
CNN_TRAINING = Training(epochs=5, batch=100, learning_rate=0.01, weight_decay=1e-5, one_cycle=True)
VIT: dict[str, Any] = {
    "kind": "vision_transformer",
    "inputs": 1,
    "side": SIDE,
    "patch": 7,
    "width": 32,
    "heads": 2,
    "hidden": 64,
    "depth": 4,
    "classes": 10,
}
VIT_TRAINING = Training(epochs=6, batch=100, learning_rate=0.006, weight_decay=1e-5, one_cycle=True)


def load_cnn(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    """The task `fashion_cnn`; arguments and errors as for `load`."""
    return load("fashion_cnn", CNN, CNN_TRAINING, seed, cache, block, batch)


def load_vit(seed: int, cache: Path, block: int, batch: int) -> TorchTask:
    """The task `fashion_vit`; arguments and errors as for `load`."""
    return load("fashion_vit", VIT, VIT_TRAINING, seed, cache, block, batch)


def load(
    name: str, architecture: dict[str, Any], training: Training, seed: int, cache: Path, block: int, batch: int
) -> TorchTask:
    """A task with its network trained, or read from `cache`; its slices are the classes.

    Args:
        name: of the task.
        architecture: for `build_network`.
        training: the settings.
        seed: of splits, initial weights and order of training, 0 ≤ seed < 2^63.
        cache: folder for trained networks.
        block: samples that are measured together, at least 1.
        batch: samples per forward pass, at least 1.

    Raises:
        InputError: Fashion-MNIST is not there, or damaged.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch(f"the task {name!r}")
    images, classes = read_images(data_folder())
    splits = stratified_splits(images[:, None], classes, classes, CLASSES, SIZES, seed)
    for data in splits.values():
        data[INPUTS] = (data[INPUTS].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return trained_task(name, "classification", architecture, training, splits, seed, cache, block, batch)


def data_folder() -> Path:
    """The folder that `EVOQUANT_DATA` names, else where Debian's package puts the files."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


def read_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All `(70000, 28, 28)` images, 0 … 255, and their `(70000,)` classes; training images first.

    Args:
        folder: holds the four IDX files of Fashion-MNIST, plain or as .gz.

    Raises:
        InputError: a file is missing or damaged.
    """
    images, classes = [], []
    for part, count in PARTS:
        images.append(_read_idx(folder, f"{part}-images-idx3-ubyte", (count, SIDE, SIDE)))
        classes.append(_read_idx(folder, f"{part}-labels-idx1-ubyte", (count,)))
    labels = np.concatenate(classes).astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise InputError(f"{folder}: holds class {labels.max()}; Fashion-MNIST has classes 0 to {len(CLASSES) - 1}.")
    return np.concatenate(images), labels


def _read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An IDX file of bytes: magic 0, 0, 8, rank; the sizes as big-endian uint32; the values."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    length = len(header) + math.prod(shape)
    try:
        if plain.is_file():
            path = plain
            with plain.open("rb") as stream:
                data = stream.read(length + 1)
        elif zipped.is_file():
            path = zipped
            with gzip.open(zipped) as stream:
                data = stream.read(length + 1)
        else:
            raise InputError(
                f"{folder}: has no {name}, plain or .gz. Fashion-MNIST is needed: `apt install dataset-fashion-mnist` "
                f"on Debian and Ubuntu, or put its four IDX files into a folder and name it in {VARIABLE}."
            )
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{folder / name}: cannot be read: {error}. Get Fashion-MNIST anew.") from None
    if len(data) != length or not data.startswith(header):
        raise InputError(f"{path}: is not the file of Fashion-MNIST with that name. Get it anew.")
    return np.frombuffer(data, dtype=np.uint8, offset=len(header)).reshape(shape)
