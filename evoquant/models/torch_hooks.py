"""Inputs of a network's modules, quantized on their way in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from evoquant.models.torch_quantize import fake_quantize_activations_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from evoquant.models.torch_layers import Layer
    from evoquant.quantization.activations import ActivationSlice

_ATTENTION_INPUTS = {"q_proj_weight": ("query",), "k_proj_weight": ("key",), "v_proj_weight": ("value",)}


@contextlib.contextmanager
def quantized_inputs(layers: Iterable[tuple[torch.nn.Module, Layer]]) -> Iterator[None]:
    """Within, these modules get INT8 inputs."""
    hooks: list[Any] = []
    try:
        for module, layer in layers:
            hooks.append(module.register_forward_pre_hook(activation_hook(layer), with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def activation_hook(layer: Layer) -> Any:
    """A forward pre-hook (with keywords) that quantizes the float inputs of a layer's module to INT8.

    The first argument; of a `MultiheadAttention` query, key and value, or the one that the layer projects.
    """
    import torch

    assert layer.activations is not None
    per: ActivationSlice = layer.activations
    of_attention = layer.module != layer.name and layer.type == "Attention"
    names = _ATTENTION_INPUTS.get(layer.parameter.rpartition(".")[2], ("query", "key", "value"))
    places = {("query", "key", "value").index(name) for name in names} if of_attention else {0}

    def hook(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        done: dict[int, torch.Tensor] = {}  # one tensor that comes in twice stays one

        def quantized(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                return value
            if id(value) not in done:
                done[id(value)] = fake_quantize_activations_tensor(value, per)
            return done[id(value)]

        first = tuple(quantized(x) if i in places else x for i, x in enumerate(arguments))
        chosen = names if of_attention else tuple(keywords)[: 0 if arguments else 1]
        return first, {key: quantized(x) if key in chosen else x for key, x in keywords.items()}

    return hook
