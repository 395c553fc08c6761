"""Layers whose output is linear in their weight, and whose rows are the samples: what makes per-sample products cheap.

Imports PyTorch; itself it is imported where a network is profiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from evoquant.models.torch_data import TARGETS, call_network, samples_of
from evoquant.models.torch_layers import CONVOLUTIONS, trace
from evoquant.models.torch_threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_kinds import Judge
    from evoquant.models.torch_layers import Layer
    from evoquant.quantization.rounding import Rounder

CHECKED = 3  # samples that show how a module orders its rows

Call: TypeAlias = tuple[torch.Tensor, torch.Tensor, int]  # input, a copy of the output, the input's version then

_TRANSPOSED: dict[int, Callable[..., torch.Tensor]] = {
    3: functional.conv_transpose1d,
    4: functional.conv_transpose2d,
    5: functional.conv_transpose3d,
}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Subject:
    """What signals are measured on.

    Attributes:
        network: in eval mode; its parameters take no gradients outside a signal.
        layers: that take a width.
        data: arrays of the calibration split.
        judge: what outputs mean.
        batch: samples per forward pass.
        seed: of draws and probes.
        rounder: a rounding method of somebody's own.
    """

    network: nn.Module
    layers: tuple[Layer, ...]
    data: Arrays
    judge: Judge
    batch: int
    seed: int
    rounder: Rounder | None = None

    @property
    def weights(self) -> list[torch.Tensor]:
        """The layers' parameters, in order."""
        parameters = dict(self.network.named_parameters(remove_duplicate=False))
        return [parameters[layer.parameter] for layer in self.layers]

    def rows(self, samples: int) -> NDArray[np.intp]:
        """So many samples, spread evenly over the split, in order."""
        total = samples_of(self.data)
        return np.arange(min(samples, total), dtype=np.intp) * total // min(samples, total)

    def targets(self, rows: NDArray[np.intp]) -> torch.Tensor | None:
        """The targets of some samples."""
        targets = self.data.get(TARGETS)
        return None if targets is None else torch.from_numpy(targets[rows])


def direct_layers(subject: Subject) -> dict[str, int]:
    """Module → layer, for layers all of whose uses are calls of modules that are linear in their weight."""
    numbers = {id(weight): i for i, weight in enumerate(subject.weights)}
    modules = dict(subject.network.named_modules())
    users: dict[int, set[str]] = {}
    for use in trace(subject.network, subject.data).uses:
        if use.parameter in numbers:
            users.setdefault(numbers[use.parameter], set()).add(use.modules[-1] if use.modules else "")
    found: dict[str, int] = {}
    for layer, names in users.items():
        if all(_is_linear_in_weight(modules[n]) and id(modules[n].weight) in numbers for n in names):
            found.update(dict.fromkeys(names, layer))
    fit = _in_sample_order(subject, {name: modules[name] for name in found})
    doubtful = {layer for name, layer in found.items() if name not in fit}
    return {name: layer for name, layer in found.items() if layer not in doubtful}


def _in_sample_order(subject: Subject, modules: Mapping[str, nn.Module]) -> set[str]:
    """Modules whose inputs and outputs hold the samples one after the other along axis 0, and are not overwritten.

    Seen by exchanging the last of three samples: what belongs to the other two must not change.
    """
    total = samples_of(subject.data)
    if total <= CHECKED:
        return set()
    calls: list[dict[str, list[Call]]] = []
    extra: set[str] = set()  # called with more than one tensor

    def note(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            if len(arguments) != 1 or keywords or not isinstance(output, torch.Tensor):
                extra.add(name)
                return
            calls[-1].setdefault(name, []).append((arguments[0], output.clone(), arguments[0]._version))

        return hook

    hooks = [module.register_forward_hook(note(name), with_kwargs=True) for name, module in modules.items()]
    try:
        with one_thread(), torch.no_grad():
            for last in (CHECKED - 1, total - 1):
                calls.append({})
                call_network(subject.network, subject.data, np.array([*range(CHECKED - 1), last]))
    finally:
        for hook in hooks:
            hook.remove()

    def fits(name: str) -> bool:
        pairs = list(zip(calls[0].get(name, []), calls[1].get(name, []), strict=False))
        same_count = len(calls[0].get(name, [])) == len(calls[1].get(name, []))
        untouched = all(call[0]._version == call[2] for run in calls for call in run.get(name, []))
        return bool(pairs) and same_count and untouched and all(map(_is_sample_major, pairs))

    return {name for name in modules if name not in extra and fits(name)}


def _is_sample_major(
    pair: tuple[tuple[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor, int]],
) -> bool:
    changed = False
    for first, second in zip(pair[0][:2], pair[1][:2], strict=True):
        if first.shape != second.shape or not first.ndim or first.shape[0] % CHECKED:
            return False
        kept = first.shape[0] // CHECKED * (CHECKED - 1)
        if not torch.equal(first[:kept], second[:kept]):
            return False
        changed = changed or not torch.equal(first[kept:], second[kept:])
    return changed


def _is_linear_in_weight(module: nn.Module) -> bool:
    """Whether `apply_weight` knows the module; subclasses may do anything."""
    if type(module) is nn.Embedding:
        return module.max_norm is None
    if type(module) in _BATCH_NORMS:
        return module.running_mean is not None
    return type(module) in (nn.Linear, *CONVOLUTIONS, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def apply_weight(module: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The module's output for this weight, without its bias."""
    if isinstance(module, nn.Linear):
        return functional.linear(x, weight)
    if isinstance(module, nn.Embedding):
        return functional.embedding(x, weight)
    if isinstance(module, CONVOLUTIONS):
        if not module.transposed:
            return module._conv_forward(x, weight, None)  # knows the padding modes
        options = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
        return _TRANSPOSED[weight.ndim](x, weight, None, *options)
    if isinstance(module, _BATCH_NORMS):
        return functional.batch_norm(x, module.running_mean, module.running_var, weight, None, False, 0.0, module.eps)
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(x, module.num_groups, weight, None, module.eps)
    if isinstance(module, nn.RMSNorm):
        return functional.rms_norm(x, module.normalized_shape, weight, module.eps)
    return functional.layer_norm(x, module.normalized_shape, weight, None, module.eps)
