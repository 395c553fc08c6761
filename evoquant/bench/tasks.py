"""The frozen tables' networks as tasks: `evoquant profile --torch evoquant.bench.tasks:digits_cnn`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.bench.samples import SPLITS
from evoquant.bench.shipped import network_path, read_network
from evoquant.models.networks import require_torch

if TYPE_CHECKING:
    from evoquant.bench.samples import Samples
    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_task import TorchTask


def digits_cnn() -> TorchTask:
    """The network of the table `digits-cnn`, its samples' splits as in the table (selection is cut in halves)."""
    return make_task("digits-cnn", *read_network(network_path("digits-cnn")))


def fashion_mixer() -> TorchTask:
    """The network of the table `fashion-mixer`, its samples' splits as in the table (selection is cut in halves)."""
    return make_task("fashion-mixer", *read_network(network_path("fashion-mixer")))


def make_task(name: str, weights: Arrays, samples: Samples) -> TorchTask:
    """A network and its samples as a task.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    require_torch(f"the network of the table {name!r}")
    from evoquant.bench.networks import build_chain
    from evoquant.models.torch_task import classification

    calibration, selection, test = (
        (samples.inputs[samples.where(split)], samples.classes[samples.where(split)]) for split in SPLITS
    )
    return classification(
        build_chain(name, weights), calibration=calibration, selection=selection, test=test, name=name
    )
