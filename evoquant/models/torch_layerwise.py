"""A network with only those quantized weights in place that the running module reads, for networks of many gigabytes.

Which module reads a weight is seen, not assumed: weights are tied, read by a parent, by functions or parametrizations.
Every read of a weight's memory is noted, with the innermost module whose `forward` is under way: in a pass at FP32
first, and from then on in every pass, where a quantized weight that is not in place lies there with its FP32 values. So
none of these is ever used unnoticed: a reader that was not known is learned, and the pass made again. Where a module
runs in another thread than the network, where reads are not seen, all weights are in place throughout.

Imports PyTorch; itself it is imported where a network does not fit.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from evoquant.models.torch_layers import is_getter, tensors_in
from evoquant.models.torch_reusable import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence


class LayerByLayer:
    """Who reads the weights of a network.

    Args:
        network: in eval mode; it is as it was after each pass.
        parameters: its weights that take a width.
    """

    def __init__(self, network: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self._modules = [module for module in network.modules() if callable(getattr(module, "forward", None))]
        self._parameters = list(parameters)
        self._originals = [parameter.data for parameter in parameters]
        self._readers: list[set[nn.Module]] = [set() for _ in parameters]
        self._throughout = _sharing(self._originals)
        self._running: list[nn.Module] = []
        self._placed: set[int] = set()
        self._seen: set[tuple[int, nn.Module | None]] = set()
        self._starts: list[int] = []
        self._watched: list[tuple[int, int]] = []
        self._looking = True
        self._thread = 0

    @contextlib.contextmanager
    def running(self, layers: Collection[int], quantized: Callable[[int], torch.Tensor]) -> Iterator[None]:
        """Within, these weights are quantized while a module runs that reads them; `learn` has to be asked after.

        Args:
            layers: numbers of weights.
            quantized: gives the tensor of a number, each time that it is put in place.
        """
        self._thread = threading.get_ident()
        apart = [i for i in layers if i not in self._throughout]
        places = sorted((*_place(self._originals[i]), i) for i in apart)
        self._starts = [start for start, _, _ in places]
        self._watched = [(end, i) for _, end, i in places]
        forwards = {}
        for module in self._modules:
            own = [i for i in apart if module in self._readers[i]]
            forwards[module] = self._reading(module, module.forward, own, quantized)
        throughout = self._in_place([i for i in layers if i in self._throughout], quantized)
        with replaced(forwards), throughout, _Calls(self._note), _Operations(self._note):
            yield

    def learn(self) -> bool:
        """Whether FP32 values were read in the last pass, whose results then count for nothing; the next knows better.

        What a known reader has read all the same (by a view that was taken before, say) is in place throughout from
        now on, as in a network that is quantized whole.
        """
        seen, self._seen = self._seen, set()
        for i, module in seen:
            if module is None or module in self._readers[i]:
                self._throughout.add(i)
            else:
                self._readers[i].add(module)
        return bool(seen)

    def _reading(
        self, module: nn.Module, forward: Callable[..., Any], own: list[int], quantized: Callable[[int], torch.Tensor]
    ) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if threading.get_ident() != self._thread:  # what another thread reads is not seen: all is put in place
                self._seen.update((i, None) for _, i in self._watched)
            self._running.append(module)
            try:
                with self._in_place(own, quantized):
                    return forward(*arguments, **keywords)
            finally:
                self._running.pop()

        return call

    @contextlib.contextmanager
    def _in_place(self, layers: Sequence[int], quantized: Callable[[int], torch.Tensor]) -> Iterator[None]:
        """Those that are not there already: a module that reads a weight may run within another that does."""
        ours: dict[int, int] = {}
        try:
            for i in layers:
                if i not in self._placed:
                    with self._not_looking():
                        self._parameters[i].data = quantized(i)
                    self._placed.add(i)
                    ours[i] = self._parameters[i]._version
            yield
        finally:
            for i, version in ours.items():
                if self._parameters[i]._version != version and i not in self._throughout:
                    self._seen.add((i, None))  # written into, for others to read
                with self._not_looking():
                    self._parameters[i].data = self._originals[i]
                self._placed.discard(i)

    @contextlib.contextmanager
    def _not_looking(self) -> Iterator[None]:
        self._looking = False
        try:
            yield
        finally:
            self._looking = True

    def _note(self, values: Sequence[Any]) -> None:
        """Note which watched weights lie where one of these tensors does."""
        if not self._looking:
            return
        for tensor in tensors_in(values):
            try:
                place = tensor.data_ptr()
            except RuntimeError:  # it has no memory of its own
                continue
            after = bisect_right(self._starts, place)
            if after and place < self._watched[after - 1][0]:
                self._seen.add((self._watched[after - 1][1], self._running[-1] if self._running else None))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, also those that PyTorch makes of a call, or that compiled code makes."""

    def __init__(self, note: Callable[[Sequence[Any]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the tensors, then make the operation."""
        self._note((*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Sees calls that are no operations, such as `numpy`."""

    def __init__(self, note: Callable[[Sequence[Any]], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the tensors, then make the call."""
        if not is_getter(func):
            self._note((*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor's values lie: the first byte, and that after the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def _sharing(tensors: Sequence[torch.Tensor]) -> set[int]:
    """Numbers of those that share memory: whose it is that is read there, nobody can tell."""
    found: set[int] = set()
    end, holder = 0, 0
    for start, stop, i in sorted((*_place(tensor), i) for i, tensor in enumerate(tensors)):
        if start < end:
            found.update((i, holder))
        if stop > end:
            end, holder = stop, i
    return found
