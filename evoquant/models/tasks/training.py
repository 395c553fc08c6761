"""Train a small classifier so that two trainings give the same bytes, and keep it by content."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.files import canonical_json, write_atomic
from evoquant.models.arrays import Arrays, digest_arrays, pack_arrays, unpack_arrays
from evoquant.models.networks import build_network
from evoquant.models.torch import numeric_environment, one_thread
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Training:
    """Settings of a training with Adam and cross entropy.

    Attributes:
        epochs: passes over the training data.
        batch: samples per step; the last batch of an epoch may be smaller.
        learning_rate: of the first step; it falls to 0 along a cosine.
        weight_decay: Adam's.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float


def trained_weights(
    cache: Path, architecture: dict[str, Any], training: Training, inputs: NDArray[Any], labels: NDArray[Any], seed: int
) -> Arrays:
    """The state of the trained network, by name: read from `cache`, or trained and written there.

    A damaged file is trained anew; a cache that cannot be written to costs only time.
    """
    content = {
        "architecture": architecture,
        "training": asdict(training),
        "seed": seed,
        "data": digest_arrays({"inputs": inputs, "labels": labels}),
        "environment": numeric_environment(training.batch),
    }
    key = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    path = cache / "networks" / f"{key}.npz"
    with contextlib.suppress(InputError, OSError):
        return unpack_arrays(path.read_bytes(), str(path))
    weights = train(architecture, training, inputs, labels, seed)
    with contextlib.suppress(InputError):
        write_atomic(path, pack_arrays(weights))
    return weights


def train(
    architecture: dict[str, Any], training: Training, inputs: NDArray[Any], labels: NDArray[Any], seed: int
) -> Arrays:
    """Train a network from scratch, in one thread; the same arguments give the same bytes on the same machine.

    Args:
        architecture: for `build_network`.
        training: the settings.
        inputs: `(samples, …)` float32.
        labels: `(samples,)` int64 classes.
        seed: of the initial weights and the order of the samples.
    """
    import torch

    with one_thread():
        network = build_network(architecture, _initial_weights(build_network(architecture), seed))
        network.train()
        optimizer = torch.optim.Adam(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
        for epoch in range(training.epochs):
            order = generator_for(seed, epoch, "training order").permutation(len(labels))
            for start in range(0, len(order), training.batch):
                chosen = order[start : start + training.batch]
                optimizer.zero_grad()
                logits = network(torch.from_numpy(inputs[chosen]))
                loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen]))
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def _initial_weights(network: torch.nn.Module, seed: int) -> Arrays:
    """He's normal for matrices and kernels; ones and zeros for norms, biases and counters."""
    generator = generator_for(seed, 0, "initial weights")
    weights: Arrays = {}
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        if tensor.ndim >= 2:
            deviation = np.float32(np.sqrt(2 / np.prod(shape[1:])))
            weights[name] = generator.standard_normal(shape, dtype=np.float32) * deviation
        elif name.endswith((".weight", ".running_var")):
            weights[name] = np.ones(shape, dtype=np.float32)
        else:
            weights[name] = np.zeros(shape, dtype=np.float32 if tensor.is_floating_point() else np.int64)
    return weights
