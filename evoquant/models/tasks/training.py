"""Train a small network so that two trainings give the same bytes, and keep it by content."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.files import canonical_json, one_at_a_time, write_atomic
from evoquant.models.arrays import Arrays, digest_arrays, pack_arrays, unpack_arrays
from evoquant.models.networks import build_network
from evoquant.models.tasks.splits import TRAIN
from evoquant.models.torch_data import INPUTS, TARGETS, output_tensor
from evoquant.models.torch_task import TorchTask
from evoquant.models.torch_threads import numeric_environment, one_thread
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from evoquant.models.torch_task import Kind


@dataclass(frozen=True)
class Training:
    """Settings of a training with Adam.

    Attributes:
        epochs: passes over the training data.
        batch: samples per step; the last batch of an epoch may be smaller.
        learning_rate: the largest.
        weight_decay: Adam's.
        one_cycle: the learning rate rises over the first third of the steps and then falls to almost 0 (Smith and
            Topin 2019); else it falls from its largest to 0, epoch by epoch, along a cosine.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    one_cycle: bool = False


def trained_task(
    name: str,
    kind: Kind,
    architecture: dict[str, Any],
    training: Training,
    splits: dict[str, Arrays],
    seed: int,
    cache: Path,
    block: int,
    batch: int,
) -> TorchTask:
    """A task on the network that the split `train` trains; it is read from `cache` where it lies there.

    Args:
        name: of the task.
        kind: what the network's outputs are: classification, regression or language.
        architecture: for `build_network`.
        training: the settings.
        splits: `train` and each of `SPLITS`.
        seed: of the initial weights, the order of training and the task.
        cache: folder for trained networks.
        block: samples that are measured together.
        batch: samples per forward pass.
    """
    data = {split: arrays for split, arrays in splits.items() if split != TRAIN}
    weights = trained_weights(cache, architecture, kind, training, splits[TRAIN], seed)
    network = build_network(architecture, weights).requires_grad_(False)
    return TorchTask(name, network, kind, data, block, batch, seed, architecture)


def trained_weights(
    cache: Path, architecture: dict[str, Any], kind: Kind, training: Training, data: Arrays, seed: int
) -> Arrays:
    """The state of the trained network, by name: read from `cache`, or trained and written there.

    A damaged file is trained anew; a cache that cannot be written to costs only time.
    """
    inputs, targets = data[INPUTS], data[TARGETS]
    content = {
        "architecture": architecture,
        "kind": kind,
        "training": asdict(training),
        "seed": seed,
        "data": digest_arrays({INPUTS: inputs, TARGETS: targets}),
        "environment": numeric_environment(training.batch),
    }
    key = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    path = cache / "networks" / f"{key}.npz"
    with contextlib.suppress(InputError, OSError):
        return unpack_arrays(path.read_bytes(), str(path))
    with one_at_a_time(path.with_suffix(".lock")):
        with contextlib.suppress(InputError, OSError):  # whoever was before us may have trained it
            return unpack_arrays(path.read_bytes(), str(path))
        weights = train(architecture, kind, training, inputs, targets, seed)
        with contextlib.suppress(InputError):
            write_atomic(path, pack_arrays(weights))
    return weights


def train(
    architecture: dict[str, Any],
    kind: Kind,
    training: Training,
    inputs: NDArray[np.generic],
    targets: NDArray[np.generic],
    seed: int,
) -> Arrays:
    """Train a network from scratch, in one thread; the same arguments give the same bytes on the same machine.

    Args:
        architecture: for `build_network`.
        kind: classification and language (cross entropy) or regression (squared error).
        training: the settings.
        inputs: `(samples, …)` as the network takes them.
        targets: `(samples,)` or, for language, `(samples, length)` int64 classes; `(samples, 1)` float32 values.
        seed: of the initial weights and the order of the samples.
    """
    import torch

    with one_thread():
        network = build_network(architecture, _initial_weights(build_network(architecture), seed))
        network.train()
        optimizer = torch.optim.Adam(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        schedule = _schedule(optimizer, training, len(targets))
        for epoch in range(training.epochs):
            order = generator_for(seed, epoch, "training order").permutation(len(targets))
            for start in range(0, len(order), training.batch):
                chosen = order[start : start + training.batch]
                optimizer.zero_grad()
                outputs = output_tensor(network(torch.from_numpy(inputs[chosen])))
                _loss(kind, outputs, torch.from_numpy(targets[chosen])).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if training.one_cycle:
                    schedule.step()
            if not training.one_cycle:
                schedule.step()
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def _schedule(
    optimizer: torch.optim.Optimizer, training: Training, samples: int
) -> torch.optim.lr_scheduler.LRScheduler:
    from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

    if not training.one_cycle:
        return CosineAnnealingLR(optimizer, training.epochs)
    steps = training.epochs * -(-samples // training.batch)
    return OneCycleLR(optimizer, training.learning_rate, total_steps=steps)


def _loss(kind: Kind, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    if kind == "regression":
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))


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
