"""The task `digits`: a small convolutional network on scikit-learn's 8 × 8 handwritten digits."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, MissingExtraError
from evoquant.files import canonical_json
from evoquant.models.arrays import Arrays, digest_arrays, pack_arrays
from evoquant.models.base import SPLITS, Block, Measure, Split
from evoquant.models.networks import build_network, require_torch
from evoquant.models.tasks.training import Training, trained_weights
from evoquant.models.torch import Layer, find_layers, make_payload, numeric_environment
from evoquant.models.torch_profile import Calibration, profile_network
from evoquant.quantization.numerics import QUANTIZER_VERSION
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

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


@dataclass(frozen=True, eq=False)
class DigitsTask:
    """A trained network and its data; see `MeasuredTask`.

    Attributes:
        seed: of splits and training.
        weights: the network's whole state, by name.
        data: split → `inputs` `(samples, 1, 8, 8)` float32 in [0, 1] and `labels` `(samples,)` int64 in 0 … 9.
        block: samples per block; the last block of a split may be smaller.
        batch: samples per forward pass.
    """

    seed: int
    weights: Arrays
    data: Mapping[str, Arrays]
    block: int
    batch: int
    name: str = NAME

    @functools.cached_property
    def model_digest(self) -> str:
        """sha256 over the architecture and the bytes of the weights."""
        return hashlib.sha256(canonical_json([ARCHITECTURE, digest_arrays(self.weights)]).encode()).hexdigest()

    @functools.cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return find_layers(build_network(ARCHITECTURE, self.weights), self.data["calibration"]["inputs"][:1])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that take a width, in order of execution."""
        return tuple(layer.name for layer in self._layers)

    @property
    def numeric_environment(self) -> str:
        """What besides model, block and widths may change an outcome."""
        return numeric_environment(self.batch)

    def payload(self) -> dict[str, Any]:
        """For `evoquant.models.torch.start_measurer`."""
        data: dict[str, bytes] = {split: pack_arrays(self.data[split]) for split in SPLITS}
        return make_payload(
            ARCHITECTURE, self._layers, pack_arrays(self.weights), data, block=self.block, batch=self.batch
        )

    def blocks(self, split: Split) -> tuple[Block, ...]:
        """The blocks of a split, in order.

        Raises:
            InputError: no such split.
        """
        if split not in SPLITS:
            raise InputError(f"task {self.name!r} has no split {split!r}; it has {', '.join(SPLITS)}.")
        data = self.data[split]
        blocks = []
        for index, start in enumerate(range(0, len(data["labels"]), self.block)):
            part = {name: array[start : start + self.block] for name, array in data.items()}
            blocks.append(Block(split, index, digest_arrays(part), len(part["labels"])))
        return tuple(blocks)

    def profile(self, menu: Menu, measure: Measure) -> ModelProfile:
        """The network's profile for `menu`; see `profile_network`."""
        data = self.data["calibration"]
        calibration = Calibration(
            data["inputs"], data["labels"].astype(np.int64), len(self.blocks("calibration")), self.batch
        )
        provenance = {
            "task": self.name,
            "seed": self.seed,
            "model": self.model_digest,
            "quantizer": QUANTIZER_VERSION,
            "environment": self.numeric_environment,
        }
        network = build_network(ARCHITECTURE, self.weights)
        return profile_network(self.name, network, self._layers, calibration, menu, measure, provenance)


def load(seed: int, cache: Path, block: int, batch: int) -> DigitsTask:
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
    data = split_data(*_load_images(), seed)
    train = data.pop("train")
    weights = trained_weights(cache, ARCHITECTURE, TRAINING, train["inputs"], train["labels"], seed)
    return DigitsTask(seed, weights, data, block, batch)


def _load_images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`(1797, 1, 8, 8)` images in [0, 1] and `(1797,)` digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError(f"the task {NAME!r}", "scikit-learn", "torch") from None
    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)


def split_data(inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> dict[str, Arrays]:
    """Disjoint splits of `SIZES`, each with every class in proportion, and so is every run of samples within one.

    Each sample gets its shuffled rank within its class as a fraction; sorted by it, the classes alternate evenly.
    """
    generator = generator_for(seed, 0, "splits")
    fraction = np.empty(len(labels))
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        fraction[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(members)
    order = np.argsort(fraction, kind="stable")
    splits: dict[str, Arrays] = {}
    start = 0
    for split, size in SIZES.items():
        chosen = order[start : start + size]
        splits[split] = {"inputs": inputs[chosen], "labels": labels[chosen]}
        start += size
    return splits
