"""Multiply-accumulates of one sample that read each weight, found by watching one forward pass.

Of a call of a PyTorch function with a weight among its arguments: outputs times inputs of an output value. A look-up
and an addition multiply nothing; a norm multiplies each value once. Imports PyTorch; itself it is imported where a
network is at hand.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from evoquant.models.torch_data import call_network
from evoquant.models.torch_threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_layers import Layer

# A weight in another shape or type is still the weight.
_VIEWS = frozenset(
    [
        "t",
        "transpose",
        "permute",
        "view",
        "reshape",
        "flatten",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "to",
        "float",
        "detach",
        "expand",
        "type_as",
        "__get__",
    ]
)
_NOTHING = frozenset(
    [
        "embedding",
        "embedding_bag",
        "index_select",
        "__getitem__",
        "add",
        "__add__",
        "__radd__",
        "__iadd__",
        "add_",
        "sub",
        "cat",
        "stack",
        "size",
        "dim",
        "numel",
        "is_floating_point",
        "stride",
        "__len__",
        "requires_grad_",
        "__set__",
    ]
)
_EACH_VALUE = frozenset(
    [
        "mul",
        "__mul__",
        "__rmul__",
        "mul_",
        "layer_norm",
        "batch_norm",
        "group_norm",
        "instance_norm",
        "rms_norm",
        "local_response_norm",
    ]
)
_PRODUCTS = frozenset(["matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "mv"])
_CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
_TRANSPOSED = frozenset(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
_RECURRENT = frozenset(
    [
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "lstm_cell",
        "gru_cell",
        "rnn_tanh_cell",
        "rnn_relu_cell",
        "multi_head_attention_forward",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
    ]
)


class _Watch(TorchFunctionMode):
    """Adds up what each watched parameter is multiplied with; None where a call is not understood."""

    def __init__(self, watched: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.found: dict[int, int | None] = {id(weight): 0 for weight in watched}
        self._alias = {id(weight): (id(weight), weight) for weight in watched}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the call, then count it."""
        result = func(*args, **(kwargs or {}))
        tensors = list(_flat((*args, *(kwargs or {}).values())))
        for weight in [tensor for tensor in tensors if id(tensor) in self._alias]:
            own, _ = self._alias[id(weight)]
            name = getattr(func, "__name__", "")
            if name in _VIEWS and isinstance(result, torch.Tensor) and result.numel() == weight.numel():
                self._alias[id(result)] = (own, result)  # held, so that no other tensor gets its id
            elif name not in _NOTHING and name != "__get__":
                count, before = _count(name, weight, tensors, result), self.found[own]
                self.found[own] = None if count is None or before is None else before + count
        return result


def _count(name: str, weight: torch.Tensor, tensors: Sequence[torch.Tensor], result: Any) -> int | None:
    """Multiply-accumulates of one call; None where the function is not known."""
    first = tensors[0]
    if name in _EACH_VALUE:
        return int(result.numel()) if isinstance(result, torch.Tensor) else None
    if name == "linear":
        return first.numel() // first.shape[-1] * weight.numel()
    if name in _PRODUCTS and isinstance(result, torch.Tensor):
        left = tensors[1] if name == "addmm" else first
        return int(result.numel()) * int(left.shape[-1])
    if name in _CONVOLUTIONS and isinstance(result, torch.Tensor):
        return int(result.numel()) * math.prod(weight.shape[1:])
    if name in _TRANSPOSED:
        return int(first.numel()) * math.prod(weight.shape[1:])
    if name in _RECURRENT:  # every row of the input, with every weight
        return first.numel() // first.shape[-1] * weight.numel()
    return None


def _flat(values: Any) -> Any:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _flat(value)


def layer_macs(network: nn.Module, layers: Sequence[Layer], data: Arrays) -> list[int | None]:
    """For each layer, multiply-accumulates of the first sample that read its weight; None where that is not known.

    Args:
        network: in eval mode.
        layers: of it.
        data: arrays of a split.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    weights = [parameters[layer.parameter] for layer in layers]
    watch = _Watch(weights)
    with one_thread(), torch.no_grad(), watch:
        call_network(network, data, slice(0, 1))
    return [watch.found[id(weight)] for weight in weights]
