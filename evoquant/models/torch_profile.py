"""Profile a PyTorch classifier: statistics of weights and activations, gradient sensitivity, measured losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import CampaignError, ProfileError
from evoquant.models.base import Failed, Measure, Request
from evoquant.models.torch import one_thread
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.error import squared_error
from evoquant.quantization.numerics import fake_quantize, representable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from evoquant.models.torch import Layer
    from evoquant.quantization.precision import Menu, Precision

WIDEST = "FP32"


@dataclass(frozen=True)
class Calibration:
    """The data that a profile is made of.

    Attributes:
        inputs: `(samples, …)` as the network takes them.
        labels: `(samples,)` int64 classes.
        blocks: how many blocks a measurement of the split is cut into.
        batch: samples per forward pass.
    """

    inputs: NDArray[np.generic]
    labels: NDArray[np.int64]
    blocks: int
    batch: int

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and labels, batch by batch."""
        import torch

        for start in range(0, len(self.labels), self.batch):
            batch = slice(start, start + self.batch)
            yield torch.from_numpy(self.inputs[batch]), torch.from_numpy(self.labels[batch])


def profile_network(
    name: str,
    network: torch.nn.Module,
    layers: Sequence[Layer],
    calibration: Calibration,
    menu: Menu,
    measure: Measure,
    provenance: Mapping[str, Any],
) -> ModelProfile:
    """The profile of a classifier in eval mode for `menu`.

    The loss of a layer at a width is 1 − accuracy / FP32 accuracy of the network with this layer alone quantized, on
    the calibration split, clipped to [−1, 1]; 0 at FP32 without measuring. A width that a layer's weights cannot be
    held at, or whose measurement failed, is not in the layer's `allowed`; its loss is 1 and its weight error that of
    losing every weight, so that tables stay full.

    Raises:
        CampaignError: the FP32 network could not be measured.
        PrecisionError: the menu holds a nominal precision.
        ProfileError: the FP32 network gets no sample right.
    """
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    weights = [np.asarray(state[layer.parameter], dtype=np.float32) for layer in layers]
    holds = [[representable(w, p, layer.channel_axis) for p in menu] for w, layer in zip(weights, layers, strict=True)]
    losses, passes = _measured_losses(holds, menu, calibration.blocks, measure)
    ranges = _activation_ranges(network, layers, calibration)
    sensitivities = _gradient_sensitivities(network, layers, calibration)
    profiles = tuple(
        LayerProfile(
            name=layer.name,
            type=layer.type,
            shape=layer.shape,
            channel_axis=layer.channel_axis,
            position=i / max(len(layers) - 1, 1),
            weight_mean=float(weights[i].mean(dtype=np.float64)),
            weight_std=float(weights[i].std(dtype=np.float64)),
            weight_range=float(weights[i].max()) - float(weights[i].min()),
            activation_range=ranges[i],
            gradient_sensitivity=sensitivities[i],
            loss={p.name: 1.0 if s is None else s for p, s in zip(menu, losses[i], strict=True)},
            weight_error=_weight_errors(weights[i], menu, holds[i], layer.channel_axis),
            allowed=_allowed(menu, losses[i]),
            fan_in=layer.fan_in,
            groups=layer.groups,
        )
        for i, layer in enumerate(layers)
    )
    counts = {"gradient_sensitivity": 3.0, "activation_range": 1.0, "loss": float(passes)}
    return ModelProfile(name, profiles, _constant_bits(network, layers), counts, provenance)


def _measured_losses(
    holds: Sequence[Sequence[bool]], menu: Menu, blocks: int, measure: Measure
) -> tuple[list[list[float | None]], int]:
    """Layer → width → loss (None: not to be had), and the number of distinct allocations measured."""
    reference = (WIDEST,) * len(holds)
    alone = {
        (i, p.name): (*reference[:i], p.name, *reference[i + 1 :])
        for i, row in enumerate(holds)
        for p, possible in zip(menu, row, strict=True)
        if possible and p.name != WIDEST
    }
    allocations = [reference, *alone.values()]
    answers = measure([Request(widths, "calibration", block) for widths in allocations for block in range(blocks)])
    correct: dict[tuple[str, ...], int | None] = {}
    for index, widths in enumerate(allocations):
        outcomes = answers[index * blocks : (index + 1) * blocks]
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)
        measured = [outcome for outcome in outcomes if not isinstance(outcome, Failed)]
        if failed is not None and widths == reference:
            raise CampaignError(f"the FP32 network could not be measured: {failed.reason}: {failed.message}")
        correct[widths] = None if failed is not None else sum(int(np.sum(outcome)) for outcome in measured)
    base = correct[reference]
    if not base:
        raise ProfileError("the FP32 network gets no sample of the calibration split right, so it has no retention.")

    def loss(layer: int, precision: Precision) -> float | None:
        if precision.name == WIDEST:
            return 0.0
        right = correct[alone[layer, precision.name]] if (layer, precision.name) in alone else None
        return None if right is None else max(-1.0, 1.0 - right / base)

    return [[loss(i, p) for p in menu] for i in range(len(holds))], len(allocations)


def _allowed(menu: Menu, losses: Sequence[float | None]) -> tuple[str, ...] | None:
    names = tuple(p.name for p, s in zip(menu, losses, strict=True) if s is not None)
    return None if len(names) == len(menu) else names


def _weight_errors(
    weight: NDArray[np.float32], menu: Menu, holds: Sequence[bool], channel_axis: int | None
) -> dict[str, float]:
    return {
        p.name: squared_error(weight, fake_quantize(weight, p, channel_axis) if possible else np.zeros_like(weight))
        for p, possible in zip(menu, holds, strict=True)
    }


def _activation_ranges(network: torch.nn.Module, layers: Sequence[Layer], calibration: Calibration) -> list[float]:
    """Per layer, max − min of its module's output over the calibration data."""
    import torch

    bounds: dict[str, tuple[float, float]] = {}

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            low, high = bounds.get(name, (float("inf"), float("-inf")))
            bounds[name] = (min(low, float(tensor.min())), max(high, float(tensor.max())))

        return hook

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(note(name)) for name in {layer.module for layer in layers}]
    try:
        with one_thread(), torch.inference_mode():
            for inputs, _ in calibration.batches():
                network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [bounds[layer.module][1] - bounds[layer.module][0] for layer in layers]


def _gradient_sensitivities(network: torch.nn.Module, layers: Sequence[Layer], calibration: Calibration) -> list[float]:
    """Per layer, Σ|w · ∂L/∂w| per weight divided by the largest layer's, in [0, 1]; L: cross entropy of the split."""
    import torch

    parameters = dict(network.named_parameters())
    weights = [parameters[layer.parameter] for layer in layers]
    sums = [np.zeros(layer.shape) for layer in layers]
    trainable = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with one_thread():
            for inputs, labels in calibration.batches():
                total = torch.nn.functional.cross_entropy(network(inputs), labels, reduction="sum")
                gradients = torch.autograd.grad(total, weights)
                for accumulated, gradient in zip(sums, gradients, strict=True):
                    accumulated += gradient.numpy()
    finally:
        for weight, before in zip(weights, trainable, strict=True):
            weight.requires_grad_(before)
    per_weight = [
        float(np.abs(weight.detach().numpy() * gradient).mean()) for weight, gradient in zip(weights, sums, strict=True)
    ]
    largest = max(per_weight)
    return [value / largest if largest > 0 else 0.0 for value in per_weight]


def _constant_bits(network: torch.nn.Module, layers: Sequence[Layer]) -> int:
    """32 bits for every parameter and float buffer that no width applies to; counters of batches do not count."""
    named = [*network.named_parameters(), *network.named_buffers()]
    sized = {layer.parameter for layer in layers}
    return 32 * sum(t.numel() for name, t in named if name not in sized and t.is_floating_point())
