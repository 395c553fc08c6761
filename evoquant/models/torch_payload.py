"""What a worker gets of a PyTorch task: plain data and bytes, or the name of its factory; and the network out of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, quoted
from evoquant.models.arrays import arrays_of, pack_arrays, placed_arrays
from evoquant.models.base import SPLITS
from evoquant.models.code import structure_of
from evoquant.models.networks import build_network
from evoquant.models.shipped import rebuilt, shipped
from evoquant.models.torch_data import SLICES, call_network
from evoquant.models.torch_task import LIVE, OwnMetric, TorchTask
from evoquant.models.torch_threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def payload_of(task: TorchTask, *, elsewhere: bool = False) -> dict[str, Any]:
    """See `TorchTask.payload`.

    Raises:
        InputError: what should travel cannot; the message says what in it.
    """
    pack: Any = placed_arrays if elsewhere else pack_arrays
    common = {"runtime": "torch", "block": task.block, "batch": task.batch, "rounder": task.rounder}
    common |= {"quantized_cache": task.quantized_cache}
    if task.architecture is not None:
        if task.own is not None:
            raise InputError(f"task {task.name!r}: a metric of one's own needs a factory of one's own; name it.")
        network: dict[str, Any] = {"architecture": task.architecture, "weights": pack(task.state())}
    elif task.travels or (elsewhere and task.factory is not None and can_travel(task)):
        function = None if task.own is None else shipped(task.own.function, f"metric {quoted(task.own.name)}")
        network = {
            "network": shipped(task.network, "model", placed=elsewhere and not _writes_weights(task)),
            "structure": _structure_digest(task.network),
            "own": None if task.own is None else [task.own.name, function],
        }
    else:
        LIVE[task.identity] = task
        return {**common, "factory": task.factory, "seed": task.seed, "identity": task.identity}
    data = {split: pack({name: a for name, a in task.data[split].items() if name != SLICES}) for split in SPLITS}
    return {
        **common,
        **network,
        "kind": task.kind,
        "variance": None if task.variance is None else task.variance.tolist(),
        "layers": [layer.to_dict() for layer in task.found],
        "data": data,
    }


def can_travel(task: TorchTask) -> bool:
    """Whether a network of a factory, and its metric, can be told in plain data; else workers call the factory."""
    try:
        shipped(task.network, "model", placed=True)
        if task.own is not None:
            shipped(task.own.function, "metric")
    except InputError:
        return False
    return True


def _writes_weights(task: TorchTask) -> bool:
    """Whether running the network changes its parameters, as far as PyTorch notices: then they cannot be shared."""
    import torch

    parameters = list(task.network.parameters())
    before = [parameter._version for parameter in parameters]
    with one_thread(), torch.no_grad():
        call_network(task.network, task.data["calibration"], slice(0, 1))
    return before != [parameter._version for parameter in parameters]


def network_of(payload: Mapping[str, Any]) -> tuple[torch.nn.Module, OwnMetric | None]:
    """The network of a payload, and the metric of one's own; its retention stays where it is computed.

    Raises:
        InputError: the payload is damaged, or the code is missing here, or is other code.
    """
    if "architecture" in payload:
        weights = arrays_of(payload["weights"], "the task's weights")
        shared = not isinstance(payload["weights"], bytes)
        return build_network(payload["architecture"], weights, shared=shared).requires_grad_(False), None
    network: torch.nn.Module = rebuilt(payload["network"], "model")
    if _structure_digest(network) != payload["structure"]:
        raise InputError("model: its code in a worker is other code than here; give all machines the same files.")
    if payload["own"] is None:
        return network, None
    name, function = payload["own"]
    return network, OwnMetric(rebuilt(function, f"metric {quoted(name)}"), name)


def _structure_digest(network: torch.nn.Module) -> str:
    return hashlib.sha256(structure_of(network).encode()).hexdigest()
