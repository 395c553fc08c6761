"""The Fisher cost of every layer at every width from one backward pass: ½ · mean over samples of (g · Δ)².

g is the gradient of `Judge.score` of one sample, Δ the quantization error of one layer at one width. Three ways to get
u = g · Δ of each sample, the first that can:

1. A layer that is linear in its weight: u = ⟨∂h/∂output, layer(input; Δ)⟩, sample by sample of a whole batch, without
   ever making a gradient of the weights (the idea of Goodfellow, arXiv:1510.01799, for products with a given Δ).
2. Networks with other layers, if small: per-sample gradients of a batch by `torch.func.vmap`.
3. Else 1 for the layers it can, and for the others one sample at a time in a second pass.

Imports PyTorch; itself it is imported where a network is profiled.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from evoquant.models.base import REFERENCE
from evoquant.models.torch_data import TARGETS, call_network, call_on_tensors, input_tensors, samples_of
from evoquant.models.torch_direct import Subject, apply_weight, direct_layers
from evoquant.models.torch_quantize import fake_quantize_activations_tensor, fake_quantize_tensor
from evoquant.models.torch_threads import one_thread, tensor_bytes
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from evoquant.models.torch_layers import Layer
    from evoquant.quantization.precision import Precision

ERROR_BYTES = 256 << 20  # of quantization errors that are kept; others are made anew for each batch
GRADIENT_BYTES = 256 << 20  # of per-sample gradients at a time
LEAST_CHUNK = 8  # samples: with fewer gradients at a time a batch is not worth it
NOISE = "noise"


class Errors:
    """Δ of each layer at each width; kept up to a number of bytes, first come."""

    def __init__(self, subject: Subject, menu: Sequence[Precision], possible: NDArray[np.bool_]) -> None:
        self.menu = menu
        self._weights, self._layers, self._possible = subject.weights, subject.layers, possible
        self._rounder = subject.rounder
        self._kept: dict[tuple[int, int], torch.Tensor] = {}
        self._bytes = 0

    def get(self, layer: int, width: int) -> torch.Tensor | None:
        """Quantized minus original; minus the original where the width cannot hold it; None where nothing changes."""
        precision = self.menu[width]
        if precision.name == REFERENCE:
            return None
        if (layer, width) in self._kept:
            return self._kept[layer, width]
        weight = self._weights[layer].detach()
        if self._possible[layer, width]:
            axis = self._layers[layer].channel_axis
            error = fake_quantize_tensor(weight, precision, axis, self._rounder).sub_(weight)
        else:
            error = -weight
        if self._bytes + tensor_bytes(error) <= ERROR_BYTES:
            self._kept[layer, width] = error
            self._bytes += tensor_bytes(error)
        return error


def fisher_costs(
    subject: Subject,
    menu: Sequence[Precision],
    possible: NDArray[np.bool_],
    samples: int,
    watch: AbstractContextManager[Any] | None = None,
) -> tuple[NDArray[np.float64], float]:
    """`(layers, P)` Fisher costs in nats, and the full passes over the split that they took.

    A forward and a backward pass are booked as 3 passes, and one more for each width: every layer is applied once more
    with its Δ, or its gradients are multiplied by it; twice where the width quantizes inputs too. Where layers need
    different ways, there are two such pairs of passes.

    For a width that also quantizes inputs the first of the three ways counts their error too, the others do not.

    Args:
        subject: the network and its data.
        menu: the P precisions.
        possible: `(layers, P)`: whether the layer can be held at the width; else Δ is that of losing every weight.
        samples: spread evenly over the split.
        watch: is entered while all samples go through the network with outputs that can be read; by the second way
            there are none, and it is not entered.
    """
    rows = subject.rows(samples)
    applied = sum(1 + (one.activation_bits is not None) for one in menu if one.name != REFERENCE)
    share = len(rows) / samples_of(subject.data)
    with one_thread(), torch.no_grad():
        output = call_network(subject.network, subject.data, slice(0, 1))
    noise = subject.judge.noise(output, len(rows), generator_for(subject.seed, 0, "fisher draws"))
    direct = direct_layers(subject)
    others = [i for i in range(len(subject.layers)) if i not in direct.values()]
    errors = Errors(subject, menu, possible)
    totals = np.zeros((len(subject.layers), len(menu)))
    with one_thread():
        alone = not direct or all(
            one.activation_bits is None for one in menu
        )  # else the first way, for what the second leaves out
        if others and alone and (squares := _vectorised(subject, errors, rows, noise)) is not None:
            return squares / (2 * len(rows)), (3 + applied) * share
        with watch or contextlib.nullcontext():
            if direct:
                totals += _by_outputs(subject, errors, direct, rows, noise)
            if others:
                totals += _one_by_one(subject, errors, others, rows, noise)
    return totals / (2 * len(rows)), (3 * (bool(direct) + bool(others)) + applied) * share


def _scores(subject: Subject, chosen: slice, rows: NDArray[np.intp], noise: torch.Tensor) -> torch.Tensor:
    outputs = call_network(subject.network, subject.data, rows[chosen])
    return subject.judge.score(outputs, noise[chosen], subject.targets(rows[chosen]))


def _by_outputs(
    subject: Subject, errors: Errors, direct: Mapping[str, int], rows: NDArray[np.intp], noise: torch.Tensor
) -> NDArray[np.float64]:
    """`(layers, P)` Σ u² by the first way."""
    totals = np.zeros((len(subject.layers), len(errors.menu)))
    modules = dict(subject.network.named_modules())
    inner = torch.zeros(0)  # (samples of the batch, layers, P)

    def add(module: nn.Module, layer: int, x: torch.Tensor, gradient: torch.Tensor) -> None:
        with torch.no_grad():
            for width, precision in enumerate(errors.menu):
                error = errors.get(layer, width)
                if error is not None:
                    change = _change(subject.layers[layer], module, x, error, precision)
                    inner[:, layer, width] += (gradient * change).reshape(len(inner), -1).sum(dim=1)

    def note(name: str) -> Any:
        module, layer = modules[name], direct[name]

        def hook(_: nn.Module, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            if not output.requires_grad:  # nothing before this module takes gradients: the graph begins here
                output = output.detach().requires_grad_(True).clone()
            x = arguments[0].detach()
            output.register_hook(lambda g: add(module, layer, x, g.detach()))  # type: ignore[no-untyped-call]
            return output

        return hook

    hooks = [modules[name].register_forward_hook(note(name)) for name in direct]
    try:
        for start in range(0, len(rows), subject.batch):
            chosen = slice(start, min(start + subject.batch, len(rows)))
            inner = torch.zeros(chosen.stop - chosen.start, *totals.shape)
            _scores(subject, chosen, rows, noise).sum().backward()  # type: ignore[no-untyped-call]
            totals += inner.double().square().sum(dim=0).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return totals


def _change(
    layer: Layer, module: nn.Module, x: torch.Tensor, error: torch.Tensor, precision: Precision
) -> torch.Tensor:
    """How the module's output changes, to first order in the weights, exactly in the inputs."""
    if precision.activation_bits is None or layer.activations is None:
        return apply_weight(module, x, error)
    weight: Any = module.weight
    quantized = fake_quantize_activations_tensor(x, layer.activations)
    return apply_weight(module, quantized, weight.detach() + error) - apply_weight(module, x, weight.detach())


def _vectorised(
    subject: Subject, errors: Errors, rows: NDArray[np.intp], noise: torch.Tensor
) -> NDArray[np.float64] | None:
    """`(layers, P)` Σ u² by the second way; None where gradients are too large, or PyTorch cannot do it."""
    weights = subject.weights
    chunk = min(GRADIENT_BYTES // sum(map(tensor_bytes, weights)), subject.batch, len(rows))
    if chunk < min(LEAST_CHUNK, len(rows)):
        return None
    names = {layer.parameter: weight.detach() for layer, weight in zip(subject.layers, weights, strict=True)}

    def score(parameters: dict[str, torch.Tensor], parts: dict[str, torch.Tensor]) -> torch.Tensor:
        alone = {name: part[None] for name, part in parts.items()}
        drawn, targets = alone.pop(NOISE), alone.pop(TARGETS, None)
        output = call_on_tensors(_Bound(subject.network, parameters), alone)
        return subject.judge.score(output, drawn, targets)[0]

    gradients_of = torch.func.vmap(torch.func.grad(score), in_dims=(None, 0))
    totals = np.zeros((len(weights), len(errors.menu)))
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        parts = {**input_tensors(subject.data, part), NOISE: noise[start : start + chunk]}
        targets = subject.targets(part)
        if targets is not None:
            parts[TARGETS] = targets
        try:
            with warnings.catch_warnings():  # of attention that PyTorch runs sample by sample
                warnings.filterwarnings("ignore", message="There is a performance drop")
                gradients = gradients_of(names, parts)
        except Exception:  # whatever vmap cannot do: the third way can
            return None
        for i, layer in enumerate(subject.layers):
            flat = gradients[layer.parameter].reshape(len(part), -1)
            totals[i] += _squares(flat, errors, i)
    return totals


class _Bound:
    """A network with some of its parameters replaced, called like the network."""

    def __init__(self, network: nn.Module, parameters: dict[str, torch.Tensor]) -> None:
        self._network, self._parameters = network, parameters

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return torch.func.functional_call(self._network, self._parameters, arguments, keywords)


def _squares(gradients: torch.Tensor, errors: Errors, layer: int) -> NDArray[np.float64]:
    """`(P,)` Σ over samples of (g · Δ)² from `(samples, weights)` gradients."""
    result = np.zeros(len(errors.menu))
    for width in range(len(errors.menu)):
        error = errors.get(layer, width)
        if error is not None:
            result[width] = float((gradients @ error.reshape(-1)).double().square().sum())
    return result


def _one_by_one(
    subject: Subject, errors: Errors, layers: Sequence[int], rows: NDArray[np.intp], noise: torch.Tensor
) -> NDArray[np.float64]:
    """`(layers, P)` Σ u² by the third way, for some layers."""
    totals = np.zeros((len(subject.layers), len(errors.menu)))
    weights = [subject.weights[i] for i in layers]
    with gradients_for(weights):
        for sample in range(len(rows)):
            score = _scores(subject, slice(sample, sample + 1), rows, noise)
            found = torch.autograd.grad(score.sum(), weights, allow_unused=True)
            for layer, gradient in zip(layers, found, strict=True):
                if gradient is not None:
                    totals[layer] += _squares(gradient.reshape(1, -1), errors, layer)
    return totals


@contextlib.contextmanager
def gradients_for(weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """These weights take gradients within; as before, and without a gradient, after."""
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight, setting in zip(weights, before, strict=True):
            weight.requires_grad_(setting)
            weight.grad = None
