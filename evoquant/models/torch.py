"""Measure a quantized PyTorch network: which of its parameters take a width, and how many samples it gets right."""

from __future__ import annotations

import contextlib
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.models.arrays import unpack_arrays
from evoquant.models.base import Failed, Measure, Outcome, Request
from evoquant.models.networks import build_network, require_torch
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Layer:
    """A parameter of a network that takes a width.

    Attributes:
        name: the module's, with the parameter's where a module has several.
        type: Conv, Linear, LayerNorm, Embedding or Attention; Classifier for the last Linear.
        module: name of the module whose output is the layer's.
        parameter: name in the network's state.
        shape: of the parameter.
        channel_axis: axis of the output channels, None where the tensor is one slice.
        fan_in: inputs of one output value.
        groups: convolution groups.
    """

    name: str
    type: str
    module: str
    parameter: str
    shape: tuple[int, ...]
    channel_axis: int | None
    fan_in: int
    groups: int = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One PyTorch thread and deterministic algorithms within; the caller's settings after.

    The order of float sums, and so the last bit of a result, depends on the number of threads.
    """
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def numeric_environment(batch: int) -> str:
    """What may change the last bit of a forward pass in batches of `batch`: versions, CPU features, threads.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("measuring a network")
    import torch

    return (
        f"torch {torch.__version__}; {torch.backends.cpu.get_cpu_capability()}; {platform.machine()}; threads 1; "
        f"batch {batch}; numpy {np.__version__}"
    )


def find_layers(network: torch.nn.Module, inputs: NDArray[np.generic]) -> tuple[Layer, ...]:
    """The layers of a network in order of execution, found by running `inputs` through it once.

    A shared parameter is one layer, named after its first use; parameters of modules that do not run, and of types
    that are not listed at `Layer`, take no width.
    """
    import torch

    modules = dict(network.named_modules())
    order: list[str] = []

    def note(name: str) -> Any:
        return lambda module, arguments: order.append(name)

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in modules.items()]
    try:
        with one_thread(), torch.inference_mode():
            network(torch.from_numpy(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    found: list[Layer] = []
    seen: set[int] = set()
    for name in dict.fromkeys(order):
        for layer, parameter in _layers_of(name, modules[name]):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found.append(layer)
    last = max((i for i, layer in enumerate(found) if layer.type == "Linear"), default=None)
    if last is not None:
        found[last] = Layer(**{**vars(found[last]), "type": "Classifier"})
    return tuple(found)


def _layers_of(name: str, module: torch.nn.Module) -> Iterator[tuple[Layer, torch.nn.Parameter]]:
    """The layers that one module makes, each with its parameter."""
    from torch import nn

    if isinstance(module, nn.MultiheadAttention):
        # its output projection is never called as a module, so it comes with its parent
        for part in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"):
            weight: Any = module.out_proj.weight if "." in part else getattr(module, part)
            if weight is not None:
                full = f"{name}.{part}".lstrip(".")
                short = full.removesuffix(".weight").removesuffix("_weight")
                yield Layer(short, "Attention", name, full, tuple(weight.shape), 0, weight.shape[1]), weight
        return
    kind = _type_of(module)
    weight = getattr(module, "weight", None)
    if kind is None or weight is None:
        return
    shape, groups = tuple(weight.shape), int(getattr(module, "groups", 1))
    axis: int | None = 0
    fan_in = int(np.prod(shape[1:]))
    if kind == "LayerNorm":
        axis, fan_in = None, 1
    elif kind == "Embedding":
        fan_in = 1
    elif getattr(module, "transposed", False):  # (inputs, outputs / groups, …)
        axis, fan_in = 1, int(np.prod(shape)) // groups // shape[1]
    parameter = f"{name}.weight".lstrip(".")
    yield Layer(name or "weight", kind, name, parameter, shape, axis, fan_in, groups if kind == "Conv" else 1), weight


def _type_of(module: torch.nn.Module) -> str | None:
    from torch import nn

    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    norms = (
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
        *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    )
    table = {convolutions: "Conv", (nn.Linear,): "Linear", norms: "LayerNorm", (nn.Embedding,): "Embedding"}
    return next((kind for classes, kind in table.items() if isinstance(module, classes)), None)


def make_payload(
    architecture: dict[str, Any],
    layers: Sequence[Layer],
    weights: bytes,
    data: dict[str, bytes],
    *,
    block: int,
    batch: int,
) -> dict[str, Any]:
    """What `start_measurer` needs, as plain data and bytes.

    Args:
        architecture: for `build_network`.
        layers: in the order of a request's widths.
        weights: the network's whole state, packed.
        data: split → packed `inputs` `(samples, …)` float32 and `labels` `(samples,)` int64.
        block: samples per block.
        batch: samples per forward pass; a batch never crosses a block.
    """
    table = [{"parameter": layer.parameter, "channel_axis": layer.channel_axis} for layer in layers]
    return {
        "architecture": architecture,
        "layers": table,
        "weights": weights,
        "data": data,
        "block": block,
        "batch": batch,
    }


def start_measurer(payload: dict[str, Any]) -> Measure:
    """Rebuild network and data, once per worker; the function that comes back answers requests.

    Raises:
        InputError: the payload is damaged.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("measuring a network")
    return _Measurer(payload)


class _Measurer:
    """Holds FP32 weights, data, and each quantized tensor that was ever asked for."""

    def __init__(self, payload: dict[str, Any]) -> None:
        weights = unpack_arrays(payload["weights"], "the task's weights")
        self._network = build_network(payload["architecture"], weights).requires_grad_(False)
        self._data = {split: unpack_arrays(data, f"the task's {split} data") for split, data in payload["data"].items()}
        self._block: int = payload["block"]
        self._batch: int = payload["batch"]
        parameters = dict(self._network.named_parameters())
        self._parameters = [parameters[layer["parameter"]] for layer in payload["layers"]]
        self._originals = [np.asarray(weights[layer["parameter"]], np.float32) for layer in payload["layers"]]
        self._axes: list[int | None] = [layer["channel_axis"] for layer in payload["layers"]]
        self._quantized: dict[tuple[int, str], torch.Tensor] = {}

    def __call__(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        with one_thread():
            return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Outcome | Failed:
        try:
            self._set_widths(request.widths)
            return self._outcomes(request)
        except Exception as error:  # whatever a network may raise is this candidate's failure, not the campaign's
            return Failed(f"raised:{type(error).__name__}", str(error))

    def _set_widths(self, widths: tuple[str, ...]) -> None:
        if len(widths) != len(self._parameters):
            raise InputError(f"{len(widths)} widths for {len(self._parameters)} layers; give one per layer.")
        tensors = [self._tensor(layer, width) for layer, width in enumerate(widths)]
        for parameter, tensor in zip(self._parameters, tensors, strict=True):
            parameter.data = tensor

    def _tensor(self, layer: int, width: str) -> torch.Tensor:
        import torch

        key = (layer, width)
        if key not in self._quantized:
            weight = fake_quantize(self._originals[layer], Precision.parse(width), self._axes[layer])
            self._quantized[key] = torch.from_numpy(weight)
        return self._quantized[key]

    def _outcomes(self, request: Request) -> Outcome | Failed:
        import torch

        inputs, labels = self._samples(request)
        outcome = np.empty(len(labels), dtype=np.uint8)
        with torch.inference_mode():
            for start in range(0, len(labels), self._batch):
                batch = slice(start, start + self._batch)
                logits = self._network(torch.from_numpy(inputs[batch])).numpy()
                if not np.isfinite(logits).all():
                    return Failed("not_finite", f"a logit of {request.split} block {request.block} is not finite.")
                outcome[batch] = logits.argmax(axis=1) == labels[batch]
        return outcome

    def _samples(self, request: Request) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        if request.split not in self._data:
            raise InputError(f"unknown split {request.split!r}; the task has {', '.join(self._data)}.")
        data = self._data[request.split]
        block = slice(request.block * self._block, (request.block + 1) * self._block)
        inputs, labels = data["inputs"][block], data["labels"][block]
        if request.block < 0 or not len(labels):
            raise InputError(
                f"split {request.split!r} has no block {request.block}; it has {len(data['labels'])} samples."
            )
        return inputs, labels
