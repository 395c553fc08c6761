"""Which parameters of a network take a width: found by watching one forward pass, whatever the modules are.

Every call of a PyTorch function is seen (`TorchFunctionMode`), so a parameter that is used without a module of its own
is found too, and the order is that of first use. Imports PyTorch; itself it is imported where a network is at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from evoquant.errors import InputError, suggestion
from evoquant.models.torch_data import call_network
from evoquant.models.torch_threads import one_thread

if TYPE_CHECKING:
    from evoquant.models.arrays import Arrays
    from evoquant.quantization.activations import ActivationSlice
    from evoquant.quantization.precision import Precision

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.SyncBatchNorm, nn.LocalResponseNorm),
)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Layer:
    """A parameter of a network that takes a width.

    Attributes:
        name: the module's, with the parameter's where a module has several or the parameter is no `weight`.
        type: Conv, Linear, LayerNorm (any normalisation), Embedding, Attention, Recurrent, or Other; Classifier for
            the last Linear.
        module: name of the module whose output is the layer's.
        parameter: name in the network's state, of its first use.
        shape: of the parameter.
        channel_axis: axis of the output channels, None where the tensor is one slice.
        fan_in: inputs of one output value.
        groups: convolution groups.
        holders: modules that hold the parameter.
        called: whether the module that holds it is running where it is first used.
        tie_group: layers of equal tie group share a width.
        activations: what shares a scale where the inputs of `module` are quantized, too (precisions in `-a8`); None
            where the layer has no input of its own that could be: it cannot take such a precision.
    """

    name: str
    type: str
    module: str
    parameter: str
    shape: tuple[int, ...]
    channel_axis: int | None
    fan_in: int
    groups: int = 1
    tie_group: str | None = None
    activations: ActivationSlice | None = None
    holders: int = 1
    called: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layer:
        """The layer of `to_dict`."""
        return cls(**{**data, "shape": tuple(data["shape"])})

    def takes(self, precision: Precision) -> bool:
        """Whether the layer can be given a precision: one in `-a8` only where it has inputs to quantize."""
        return precision.activation_bits is None or self.activations is not None


@dataclass(frozen=True)
class Use:
    """One call of a function with a parameter among its arguments.

    Attributes:
        parameter: `id` of the parameter.
        modules: names of the modules that were running, innermost last.
        linear: whether it was a matrix product by `torch.nn.functional.linear`.
        source: `id` of the input tensor of that product; the tensor lives as long as the trace.
    """

    parameter: int
    modules: tuple[str, ...]
    linear: bool
    source: int | None


@dataclass
class Trace(TorchFunctionMode):
    """Watches one forward pass."""

    watched: frozenset[int]
    uses: list[Use] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note which watched parameters the call takes, then make it."""
        found = [t for t in tensors_in((*args, *(kwargs or {}).values())) if id(t) in self.watched]
        if found and not is_getter(func):
            linear = func is functional.linear
            self.kept.append(args[:1])
            for parameter in found:
                source = id(args[0]) if linear and args and args[0] is not parameter else None
                self.uses.append(Use(id(parameter), tuple(self.running), linear, source))
        return func(*args, **(kwargs or {}))


def trace(network: nn.Module, data: Arrays, samples: int = 1) -> Trace:
    """The uses of every parameter in one forward pass of the first samples."""
    modules = dict(network.named_modules())
    result = Trace(frozenset(id(parameter) for parameter in network.parameters()))

    def enter(name: str) -> Any:
        return lambda module, arguments: result.running.append(name)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        result.running.pop()

    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in modules.items()]
    hooks += [module.register_forward_hook(leave) for module in modules.values()]
    try:
        with one_thread(), torch.no_grad(), result:
            call_network(network, data, slice(0, samples))
    finally:
        for hook in hooks:
            hook.remove()
    return result


def find_layers(
    network: nn.Module,
    data: Arrays,
    *,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
) -> tuple[Layer, ...]:
    """The layers of a network in order of execution, found by running the first sample through it once.

    A shared parameter is one layer, named after its first use. What takes no width: parameters that are not used,
    vectors other than weights of normalisations, and what is not float. Linear layers that receive the very same
    tensor are tied, since stacks fuse them (query, key and value; gate and up).

    Args:
        network: in eval mode.
        data: arrays of a split, as in `TorchTask.data`.
        tie_groups: name → layers; these win over found ones, and a group of one unties its layer.
        types: layer → type, over what is inferred.

    Raises:
        InputError: nothing takes a width, or a declared group or type names no layer.
    """
    seen = trace(network, data)
    modules = dict(network.named_modules())
    owners: dict[int, list[tuple[str, str]]] = {}
    for name, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((name, key))
    parameters = {id(parameter): parameter for parameter in network.parameters()}
    layers: dict[int, Layer] = {}
    for use in seen.uses:
        if use.parameter not in layers:
            name, key = _owner(owners[use.parameter], use.modules)
            layer = _layer(name, key, modules, parameters[use.parameter])
            if layer is not None and name not in use.modules:  # its weight is read past the module, and so are inputs
                layer = replace(layer, activations=None)
            if layer is not None:
                held = len(owners[use.parameter])
                layers[use.parameter] = replace(layer, holders=held, called=name in use.modules)
    if not layers:
        raise InputError("the network uses no weight that could take a width; is it a network with parameters?")
    _name_classifier(layers, seen.uses)
    found = _tied(layers, seen.uses)
    return _declared(found, tie_groups or {}, types or {})


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among the arguments of a call, and in their tuples and lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)


def is_getter(func: Any) -> bool:
    """Reading a parameter's shape or type is no use of its values."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(func.__self__, "__name__", "") not in ("T", "mT", "H", "mH", "data")
    return name in ("size", "dim", "numel", "is_floating_point", "stride", "__len__")


def _owner(owners: Sequence[tuple[str, str]], running: Sequence[str]) -> tuple[str, str]:
    """The module that a parameter belongs to: of several, the innermost that is running."""
    depth = {name: i for i, name in enumerate(running)}
    return max(owners, key=lambda owner: depth.get(owner[0], -1))


def _layer(name: str, key: str, modules: Mapping[str, nn.Module], parameter: torch.Tensor) -> Layer | None:
    """The layer that a parameter makes; None where it takes no width."""
    if not parameter.is_floating_point():
        return None
    module, shape = modules[name], tuple(parameter.shape)
    full = f"{name}.{key}".lstrip(".")
    axis: int | None = 0
    fan_in, groups, short = math.prod(shape[1:]), 1, name or key
    activations: ActivationSlice | None = None
    parent, _, last = name.rpartition(".")
    if isinstance(module, NORMS) or (key == "weight" and len(shape) == 1 and "norm" in type(module).__name__.lower()):
        if key != "weight":
            return None
        kind, axis, fan_in = "LayerNorm", None, 1
    elif len(shape) < 2:
        return None
    elif isinstance(module, nn.MultiheadAttention) and key.endswith("weight"):
        kind, short, activations = "Attention", full.removesuffix("_weight"), "token"
    elif isinstance(module, nn.Linear) and key == "weight":
        if isinstance(modules.get(parent), nn.MultiheadAttention) and last == "out_proj":
            return Layer(name, "Attention", parent, full, shape, 0, fan_in)  # it is never called as a module
        attends = any("attention" in type(modules[above]).__name__.lower() for above in _above(name))
        kind, activations = "Attention" if attends else "Linear", "token"
    elif isinstance(module, CONVOLUTIONS) and key == "weight":
        kind, groups, activations = "Conv", int(module.groups), "sample"
        if module.transposed:  # (inputs, outputs / groups, …)
            axis, fan_in = 1, math.prod(shape) // groups // shape[1]
    elif isinstance(module, EMBEDDINGS) and key == "weight":
        kind, fan_in = "Embedding", 1
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and key.startswith("weight_"):
        kind, short = "Recurrent", full
        if key == "weight_ih" or key.startswith("weight_ih_l0"):  # the others read hidden states, which no hook sees
            activations = "token"
    else:
        kind, short = ("Embedding" if "pos" in key.lower() else "Other"), full
        # of a (1, T, D) table the channels are the T; a (1, 1, D) token is one slice
        axis = next((i for i, size in enumerate(shape[:-1]) if size > 1), None)
        fan_in = math.prod(shape) // (shape[axis] if axis is not None else 1)
    return Layer(short, kind, name, full, shape, axis, max(fan_in, 1), groups, None, activations)


def _above(name: str) -> Iterator[str]:
    """The names of the modules that a module lies in."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _name_classifier(layers: dict[int, Layer], uses: Sequence[Use]) -> None:
    """The Linear that is used last is the Classifier, unless that place is held by a tied embedding."""
    last = next((use.parameter for use in reversed(uses) if use.linear and use.parameter in layers), None)
    if last is not None and layers[last].type == "Linear":
        layers[last] = replace(layers[last], type="Classifier")


def _tied(layers: Mapping[int, Layer], uses: Sequence[Use]) -> list[Layer]:
    """The layers, with those that first receive the very same tensor in a matrix product tied."""
    first: dict[int, int] = {}
    for use in uses:
        if use.source is not None and layers.get(use.parameter):
            first.setdefault(use.parameter, use.source)
    together: dict[tuple[int, int], list[Layer]] = {}
    for parameter, source in first.items():
        layer = layers[parameter]
        if layer.type in ("Linear", "Attention", "Classifier"):
            together.setdefault((source, layer.shape[1]), []).append(layer)
    groups = {}
    for members in together.values():
        if len(members) > 1:
            group = _group_name([layer.name for layer in members])
            groups.update({layer.name: group for layer in members})
    return [replace(layer, tie_group=groups.get(layer.name)) for layer in layers.values()]


def _group_name(names: Sequence[str]) -> str:
    """`block.attn.q+k+v` of `block.attn.q`, `block.attn.k`, `block.attn.v`."""
    parts = [name.split(".") for name in names]
    common = 0
    while all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    return ".".join([*parts[0][:common], "+".join(".".join(p[common:]) for p in parts)])


def _declared(
    found: Sequence[Layer], tie_groups: Mapping[str, Sequence[str]], types: Mapping[str, str]
) -> tuple[Layer, ...]:
    names = [layer.name for layer in found]
    groups: dict[str, str | None] = {}
    for group, members in tie_groups.items():
        for member in members:
            if member in groups:
                raise InputError(f"tie group {group!r}: layer {member!r} is in two groups; leave it in one.")
            groups[member] = group if len(members) > 1 else None
    for what, named in (("tie_groups", groups), ("types", types)):
        for name in named:
            if name not in names:
                raise InputError(f"{what}: the network has no layer {name!r}.{suggestion(name, names)}")
    return tuple(
        replace(layer, type=types.get(layer.name, layer.type), tie_group=groups.get(layer.name, layer.tie_group))
        for layer in found
    )
