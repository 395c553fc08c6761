"""Signals of a PyTorch network beside the Fisher cost: gradient sensitivity, Hessian traces, ranges, weight statistics.

Imports PyTorch; itself it is imported where a network is profiled.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from evoquant.errors import PrecisionError
from evoquant.models.base import REFERENCE
from evoquant.models.torch_data import TARGETS, call_network, samples_of
from evoquant.models.torch_fisher import gradients_for
from evoquant.models.torch_quantize import fake_quantize_tensor
from evoquant.models.torch_threads import one_thread
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from evoquant.models.torch_direct import Subject
    from evoquant.quantization.precision import Precision

HESSIAN_SAMPLES = 64
HESSIAN_PROBES = 4
_PIECE = 1 << 20  # weights whose float64 copies are held at a time


@dataclass(frozen=True)
class WeightFigures:
    """Statistics of one layer's weights.

    Attributes:
        mean, std, range: of the weights; the range is max − min.
        errors: `(P,)` summed squared quantization errors; that of losing every weight where it is not possible.
        possible: `(P,)` whether the layer can be held at the width.
    """

    mean: float
    std: float
    range: float
    errors: NDArray[np.float64]
    possible: NDArray[np.bool_]


def weight_figures(subject: Subject, menu: Sequence[Precision]) -> list[WeightFigures]:
    """The statistics of each layer, one tensor at a time."""
    figures = []
    rounder = None if subject.rounder is None else subject.rounder.checking()  # every tensor at every width comes by
    for layer, weight in zip(subject.layers, subject.weights, strict=True):
        values = weight.detach()
        errors, possible = np.zeros(len(menu)), np.ones(len(menu), dtype=np.bool_)
        for width, precision in enumerate(menu):
            if precision.name == REFERENCE:
                continue
            try:
                if not layer.takes(precision):
                    raise PrecisionError(f"{layer.name}: has no inputs of its own to quantize.")
                quantized = fake_quantize_tensor(values, precision, layer.channel_axis, rounder)
            except PrecisionError:
                possible[width] = False
                quantized = torch.zeros_like(values)
            errors[width] = _squares(values, quantized)
        mean = math.fsum(float(piece.double().sum()) for piece in _pieces(values)) / values.numel()
        variance = (
            math.fsum(float((piece.double() - mean).square().sum()) for piece in _pieces(values)) / values.numel()
        )
        low, high = torch.aminmax(values)
        figures.append(WeightFigures(mean, math.sqrt(variance), float(high) - float(low), errors, possible))
    return figures


def _pieces(values: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from torch.split(values.reshape(-1), _PIECE)


def _squares(first: torch.Tensor, second: torch.Tensor) -> float:
    pairs = zip(_pieces(first), _pieces(second), strict=True)
    return math.fsum(float((a.double() - b.double()).square().sum()) for a, b in pairs)


class Ranges:
    """Watches the outputs of the layers' modules while it is entered."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._bounds: dict[str, tuple[float, float]] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Ranges:
        modules = dict(self._subject.network.named_modules())
        for name in dict.fromkeys(layer.module for layer in self._subject.layers):
            self._hooks.append(modules[name].register_forward_hook(self._note(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _note(self, name: str) -> Any:
        def hook(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, (tuple, list)) and output else output
            if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.numel():
                return
            least, most = torch.aminmax(tensor.detach())
            low, high = self._bounds.get(name, (math.inf, -math.inf))
            self._bounds[name] = min(low, float(least)), max(high, float(most))

        return hook

    @property
    def complete(self) -> bool:
        """Whether anything was seen."""
        return bool(self._bounds)

    def range_of(self, layer: int) -> float:
        """max − min of the layer's output; 0 where its module gives no tensor."""
        low, high = self._bounds.get(self._subject.layers[layer].module, (0.0, 0.0))
        return high - low if math.isfinite(high - low) else 0.0


def run_forward(subject: Subject) -> None:
    """One forward pass over the whole split, for whoever is watching."""
    with one_thread(), torch.inference_mode():
        for start in range(0, samples_of(subject.data), subject.batch):
            call_network(subject.network, subject.data, slice(start, start + subject.batch))


def gradient_sensitivities(subject: Subject) -> list[float]:
    """Per layer, Σ|w · ∂L/∂w| per weight divided by the largest layer's, in [0, 1]; L: the split's summed loss.

    Without targets the loss is that of targets drawn from the network's own output. Beside the weights the gradients
    of all layers are held once.
    """
    weights = subject.weights
    total = samples_of(subject.data)
    noise = None
    if TARGETS not in subject.data:
        with one_thread(), torch.no_grad():
            output = call_network(subject.network, subject.data, slice(0, 1))
        noise = subject.judge.noise(output, total, generator_for(subject.seed, 0, "gradient draws"))
    per_weight = []
    with one_thread(), gradients_for(weights):
        for start in range(0, total, subject.batch):
            part = slice(start, start + subject.batch)
            outputs = call_network(subject.network, subject.data, part)
            if noise is None:
                losses = subject.judge.loss(outputs, subject.data[TARGETS][part])
            else:
                losses = subject.judge.score(outputs, noise[part], None)
            losses.sum().backward()  # type: ignore[no-untyped-call]
        for weight in weights:
            gradient = weight.grad
            if gradient is None:
                per_weight.append(0.0)
                continue
            pieces = zip(_pieces(weight.detach()), _pieces(gradient), strict=True)
            per_weight.append(math.fsum(float((w * g).abs().double().sum()) for w, g in pieces) / weight.numel())
    largest = max(per_weight)
    return [value / largest if largest > 0 else 0.0 for value in per_weight]


def hessian_costs(
    subject: Subject, errors: NDArray[np.float64], samples: int = HESSIAN_SAMPLES, probes: int = HESSIAN_PROBES
) -> tuple[NDArray[np.float64], float]:
    """`(layers, P)` ½ · trace(H) / weights · ‖Δ‖² in nats, and the full passes over the split that it took.

    H is the Hessian of the mean loss in a layer's weights (of drawn targets where there are none), its trace by
    Hutchinson's estimate, the mean of v · Hv over probes v of random signs (Hutchinson 1990; for quantization Dong et
    al. 2020, HAWQ-V2, arXiv:1911.03852), and 0 where that is negative. A gradient that can be differentiated again
    counts 3 passes, and each product with H twice that: the backward pass through each of its operations.

    Args:
        subject: the network and its data.
        errors: `(layers, P)` summed squared quantization errors.
        samples: spread evenly over the split.
        probes: at least 1.
    """
    weights = subject.weights
    rows = subject.rows(samples)
    traces = np.zeros(len(weights))
    with one_thread(), _twice_differentiable(), gradients_for(weights):
        for start in range(0, len(rows), subject.batch):
            part = rows[start : start + subject.batch]
            outputs = call_network(subject.network, subject.data, part)
            gradients = torch.autograd.grad(
                _mean_loss(subject, outputs, part, start) * (len(part) / len(rows)),
                weights,
                create_graph=True,
                materialize_grads=True,
            )
            differentiable = [gradient.requires_grad for gradient in gradients]
            for probe in range(probes):
                signs = _signs(subject, weights, probe)
                chosen = [i for i, able in enumerate(differentiable) if able]
                products = torch.autograd.grad(
                    [gradients[i] for i in chosen],
                    weights,
                    [signs[i] for i in chosen],
                    retain_graph=probe < probes - 1,
                    materialize_grads=True,
                )
                traces += [float((v * hv).double().sum()) / probes for v, hv in zip(signs, products, strict=True)]
    sizes = np.array([weight.numel() for weight in weights])
    share = len(rows) / samples_of(subject.data)
    costs: NDArray[np.float64] = (np.maximum(traces, 0.0) / sizes / 2.0)[:, None] * errors
    return costs, share * (3 + 6 * probes)


def _mean_loss(subject: Subject, outputs: torch.Tensor, part: NDArray[np.intp], start: int) -> torch.Tensor:
    if TARGETS in subject.data:
        return subject.judge.loss(outputs, subject.data[TARGETS][part]).mean()
    rng = generator_for(subject.seed, start, "hessian draws")
    noise = subject.judge.noise(outputs[:1].detach(), len(part), rng)
    return subject.judge.score(outputs, noise, None).mean()


def _signs(subject: Subject, weights: Sequence[torch.Tensor], probe: int) -> list[torch.Tensor]:
    rng = generator_for(subject.seed, probe, "hessian probe")
    drawn = [rng.integers(0, 2, tuple(weight.shape), dtype=np.int8) for weight in weights]
    return [torch.from_numpy(signs).to(torch.float32) * 2 - 1 for signs in drawn]


@contextlib.contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Attention and recurrent layers by plain operations: the fused ones have no second derivative."""
    fused = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # `mkldnn.flags` warns of graphics cards that are not there
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        torch._C._set_mkldnn_enabled(fused)
