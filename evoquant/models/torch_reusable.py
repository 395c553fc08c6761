"""Which modules of a network can be left out where their output is known, and what makes pooling fast.

Imports PyTorch; itself it is imported where a network is measured.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evoquant.models.torch_data import call_network
from evoquant.models.torch_layers import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_layers import Layer

# Whose modules are known to do nothing but compute. Those of anyone else may hand each other values past their
# arguments, keep what they have seen or count their calls; they are always run, but not all modules of PyTorch in them.
TRUSTED = ("torch", "evoquant")
_NEGATIVE_ZERO = -(1 << 31)  # as an int32


@dataclass(frozen=True, eq=False)
class Chain:
    """An `nn.Sequential`.

    Attributes:
        links: modules that are run one after the other; the first of a link reads a layer, the others none.
        layers: that the links read, in their order.
        counts: how many of `layers` are read up to and with each link.
    """

    links: tuple[tuple[nn.Module, ...], ...]
    layers: tuple[int, ...]
    counts: tuple[int, ...]


def reusable(
    network: nn.Module, layers: Sequence[Layer], data: Arrays
) -> tuple[list[tuple[nn.Module, tuple[int, ...]]], list[tuple[nn.Module, Chain]]]:
    """Modules whose calls may be remembered with the layers that each reads, and chains.

    A module reads a layer by holding its weight, by using it, or by having its inputs quantized. Modules without a
    matrix or modules inside are cheaper to run than to remember.
    """
    data = {name: array[:1].copy() for name, array in data.items()}  # some networks write into their inputs
    if _keeps_state(network, data):
        return [], []
    parameters = dict(network.named_parameters(remove_duplicate=False))
    numbers: dict[int, list[int]] = {}
    for i, layer in enumerate(layers):
        numbers.setdefault(id(parameters[layer.parameter]), []).append(i)
    used: dict[str, set[int]] = {}
    for use in trace(network, data).uses:
        for name in use.modules:
            used.setdefault(name, set()).update(numbers.get(use.parameter, ()))

    def read(name: str, module: nn.Module) -> tuple[int, ...]:
        own = set(used.get(name, ()))
        for parameter in module.parameters():
            own.update(numbers.get(id(parameter), ()))
        own.update(i for i, layer in enumerate(layers) if f"{layer.module}.".startswith(f"{name}."))
        return tuple(sorted(own))

    chains: list[tuple[nn.Module, Chain]] = []
    linked: set[nn.Module] = set()
    for name, module in network.named_modules():
        if type(module) is nn.Sequential and _plain(module) and len(module):
            linked.update(module.children())
            parts = [(part, read(f"{name}.{key}".lstrip("."), part)) for key, part in _links(module)]
            chains.append((module, _chain(parts)))
    chained = {module for module, _ in chains}
    modules = [
        (module, own)
        for name, module in network.named_modules()
        if module is not network and module not in linked and module not in chained and _plain(module)
        for own in [read(name, module)]
        if next(module.children(), None) is not None or any(len(layers[i].shape) > 1 for i in own)
    ]
    return modules, chains


def _links(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """What an `nn.Sequential` runs, in order; `named_children` would leave out a module that comes again."""
    return [(name, part) for name, part in module._modules.items() if part is not None]


def _chain(parts: Sequence[tuple[nn.Module, tuple[int, ...]]]) -> Chain:
    """Modules that read no layer join the link before them."""
    links: list[list[nn.Module]] = []
    layers: list[int] = []
    counts: list[int] = []
    for module, own in parts:
        if own or not links:
            links.append([])
            counts.append(0)
        links[-1].append(module)
        layers += own
        counts[-1] = len(layers)
    return Chain(tuple(map(tuple, links)), tuple(layers), tuple(counts))


def _plain(module: nn.Module) -> bool:
    """Whether calling a module does nothing but `forward` of its class, all the way down, and of a class we know."""
    return not any(
        type(part).__module__.partition(".")[0] not in TRUSTED
        or isinstance(part, (torch.jit.ScriptModule, torch.fx.GraphModule))
        or "forward" in part.__dict__
        or part._forward_hooks
        or part._forward_pre_hooks
        or part.training
        for part in module.modules()
    )


def _keeps_state(network: nn.Module, data: Arrays) -> bool:
    """Whether a forward pass leaves something behind in a module: then it matters which calls are made."""
    before = _state(network)
    call_network(network, data, slice(0, 1))
    after = _state(network)
    return before.keys() != after.keys() or any(before[place][1:] != after[place][1:] for place in before)


def _state(network: nn.Module) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Attribute of a module → its value (which so lives on, and its id with it), that id, and its size or version."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for name, module in network.named_modules():
        held = {**module.__dict__, **module._buffers, **module._parameters}
        for key, value in held.items():
            found[name, key] = value, id(value), _size_of(value)
    return found


def _size_of(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return 0 if value.is_inference() else value._version
    return len(value) if isinstance(value, (list, dict, set)) else 0


def halves(module: nn.Module) -> bool:
    """Whether a module takes the largest of each 2 × 2 values, and nothing else."""
    return (
        type(module) is nn.MaxPool2d
        and _plain(module)
        and (
            (
                module.kernel_size,
                module.stride,
                module.padding,
                module.dilation,
                module.ceil_mode,
                module.return_indices,
            )
            == (2, 2, 0, 1, False, False)
        )
    )


def halved(values: torch.Tensor) -> torch.Tensor:
    """`max_pool2d` of 2 × 2, ten times as fast as PyTorch's, which also finds where the largest values are.

    Of 0 and −0 PyTorch takes the first, `torch.maximum` either: values with a −0 are left to PyTorch.
    """
    fits = values.dtype == torch.float32 and values.is_contiguous() and min(values.shape[-2:]) > 1 and values.numel()
    if not fits or int(values.view(torch.int32).amin()) == _NEGATIVE_ZERO:
        return nn.functional.max_pool2d(values, 2)
    even = values[..., : values.shape[-2] // 2 * 2, : values.shape[-1] // 2 * 2]
    columns = torch.maximum(even[..., 0::2], even[..., 1::2])
    return torch.maximum(columns[..., 0::2, :], columns[..., 1::2, :])


class _Instead(functools.partial[Any]):
    """A function in the place of a module's `forward`; a deep copy of the module gets its own `forward` back."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(vars(self)["__wrapped__"], memo)


@contextlib.contextmanager
def replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Modules whose `forward` is another one within, and what it was after; a deep copy of one has its own."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.__dict__["forward"] = functools.update_wrapper(_Instead(forward), module.forward)
    try:
        yield
    finally:
        for module, own in before.items():
            del module.__dict__["forward"]
            if own is not None:
                module.__dict__["forward"] = own
