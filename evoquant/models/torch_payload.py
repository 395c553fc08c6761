"""What a worker gets of a PyTorch task: plain data and bytes, or the name of its factory; and the network out of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, quoted
from evoquant.models.arrays import pack_arrays, unpack_arrays
from evoquant.models.base import SPLITS
from evoquant.models.code import structure_of
from evoquant.models.networks import build_network
from evoquant.models.shipped import rebuilt, shipped
from evoquant.models.torch_data import SLICES
from evoquant.models.torch_task import LIVE, OwnMetric, TorchTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def payload_of(task: TorchTask) -> dict[str, Any]:
    """See `TorchTask.payload`.

    Raises:
        InputError: what should travel cannot; the message says what in it.
    """
    common = {"runtime": "torch", "block": task.block, "batch": task.batch, "rounder": task.rounder}
    if task.architecture is not None:
        if task.own is not None:
            raise InputError(f"task {task.name!r}: a metric of one's own needs a factory of one's own; name it.")
        network: dict[str, Any] = {"architecture": task.architecture, "weights": pack_arrays(task.state())}
    elif task.travels:
        function = None if task.own is None else shipped(task.own.function, f"metric {quoted(task.own.name)}")
        network = {
            "network": shipped(task.network, "model"),
            "structure": _structure_digest(task.network),
            "own": None if task.own is None else [task.own.name, function],
        }
    else:
        LIVE[task.identity] = task
        return {**common, "factory": task.factory, "seed": task.seed, "identity": task.identity}
    data = {split: pack_arrays({name: a for name, a in task.data[split].items() if name != SLICES}) for split in SPLITS}
    return {
        **common,
        **network,
        "kind": task.kind,
        "variance": None if task.variance is None else task.variance.tolist(),
        "layers": [layer.to_dict() for layer in task.found],
        "data": data,
    }


def network_of(payload: Mapping[str, Any]) -> tuple[torch.nn.Module, OwnMetric | None]:
    """The network of a payload, and the metric of one's own; its retention stays where it is computed.

    Raises:
        InputError: the payload is damaged, or the code is missing here, or is other code.
    """
    if "architecture" in payload:
        weights = unpack_arrays(payload["weights"], "the task's weights")
        return build_network(payload["architecture"], weights).requires_grad_(False), None
    network: torch.nn.Module = rebuilt(payload["network"], "model")
    if _structure_digest(network) != payload["structure"]:
        raise InputError("model: its code in a worker is other code than here; give all machines the same files.")
    if payload["own"] is None:
        return network, None
    name, function = payload["own"]
    return network, OwnMetric(rebuilt(function, f"metric {quoted(name)}"), name)


def _structure_digest(network: torch.nn.Module) -> str:
    return hashlib.sha256(structure_of(network).encode()).hexdigest()
