"""Calls of a network's modules, remembered: a module that gets the same input at the same widths is not run again.

Two candidates that agree in their first layers share everything up to the first layer in which they differ; query, key
and value share their input whatever becomes of the others. Nothing is assumed of how modules are connected: a call is
found again by what goes into it. A tensor that came out of a remembered call, or was given from outside, is known as
an object, so that along a chain no value is ever looked at; any other is compared bit by bit with those seen before.

Not remembered are calls of modules that somebody else wrote, that keep state, that have hooks, or that write into their
inputs, and calls in inference mode, where PyTorch counts no versions. A remembered tensor that was written into later
(`x += y`) counts as forgotten; writes past PyTorch (`x.numpy()[:] = 0`) are seen where they change one of the values
that are looked at, and not otherwise. Where looking up takes longer than it saves it is left for a while.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evoquant.models.torch_reusable import Chain, halved, halves, replaced, reusable
from evoquant.models.torch_threads import one_thread
from evoquant.models.torch_worth import SECONDS_PER_BYTE, Worth

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_layers import Layer

LARGEST_SHARE = 8  # of the bytes: larger outputs would push out everything else
MOST_SEEN = 10_000  # samples of tensors before those whose tensors are gone are thrown out
SAMPLED = 61  # values of a tensor that tell it from others before all are compared
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Opaque(Exception):
    """A call whose arguments or outputs cannot be compared."""


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a tensor: which number its values have, while its version is this one."""

    tensor: weakref.ref[torch.Tensor]
    number: int
    version: int


@dataclass(frozen=True, eq=False)
class _Call:
    """A remembered call: its tensors live as long as it does."""

    inputs: tuple[torch.Tensor, ...]
    output: Any
    outputs: tuple[torch.Tensor, ...]
    versions: tuple[int, ...]
    samples: tuple[bytes, ...]


class Reuse:
    """Remembered calls of one network, within a number of bytes.

    Args:
        network: in eval mode, run without gradients but not in inference mode, where PyTorch counts no versions.
        layers: in the order of the widths that `running` gets.
        data: arrays of a split, of which one sample shows where each layer is used.
        limit_bytes: of all tensors that are kept alive; the least recently used calls go first.
    """

    def __init__(self, network: nn.Module, layers: Sequence[Layer], data: Arrays, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.hits = self.misses = 0
        self._calls: OrderedDict[Hashable, _Call] = OrderedDict()
        self._storages: dict[int, int] = {}  # address → remembered tensors in it
        self._known: dict[int, _Known] = {}
        self._alike: dict[Hashable, list[_Known]] = {}
        self._numbers = 0
        with one_thread(), torch.no_grad():
            self._modules, self._chains = reusable(network, layers, data)
        links = [1] * len(self._modules) + [len(chain.links) for _, chain in self._chains]
        self._worths = [[Worth() for _ in range(count)] for count in links]
        self._pools = [module for module in network.modules() if self.able and halves(module)]

    @property
    def able(self) -> bool:
        """Whether there is anything whose calls may be remembered."""
        return bool(self._modules or self._chains)

    @contextlib.contextmanager
    def running(self, widths: Sequence[str]) -> Iterator[None]:
        """The network's modules look up their calls within."""
        changed: dict[nn.Module, Callable[..., Any]] = dict.fromkeys(self._pools, halved)
        for number, (module, layers) in enumerate(self._modules):
            own = tuple([widths[i] for i in layers])
            forward = changed.get(module, module.forward)
            changed[module] = self._looking_up((number, own), forward, self._worths[number][0])
        for number, (module, chain) in enumerate(self._chains, start=len(self._modules)):
            changed[module] = self._walking(number, chain, widths)
        with replaced(changed):
            yield

    def forget(self) -> None:
        """Let go of everything."""
        self._calls.clear()
        self._storages.clear()
        self._known.clear()
        self._alike.clear()
        self.bytes = 0

    def _looking_up(self, what: Hashable, forward: Callable[..., Any], worth: Worth) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if torch.is_inference_mode_enabled() or not worth.asked():
                return forward(*arguments, **keywords)
            start = perf_counter()
            inputs: list[torch.Tensor] = []
            try:
                key = what, self._key(arguments, inputs), self._key(tuple(keywords.items()), inputs)
            except _Opaque:
                worth.gained(start - perf_counter())
                return forward(*arguments, **keywords)
            found = self._found(key)
            if found is not None:
                worth.gained(worth.mean_s + start - perf_counter())
                return _copied(found.output)
            self.misses += 1
            before = [tensor._version for tensor in inputs]
            began = perf_counter()
            output = forward(*arguments, **keywords)
            ended = perf_counter()
            kept = 0
            if [tensor._version for tensor in inputs] == before:
                kept = self._remember(key, tuple(inputs), output)
            worth.ran(ended - began)
            worth.gained(start - began + ended - perf_counter() - kept * SECONDS_PER_BYTE)
            return output

        return call

    def _walking(self, number: int, chain: Chain, widths: Sequence[str]) -> Callable[[Any], Any]:
        """`forward` of an `nn.Sequential` that begins behind the last link that is remembered."""
        own = tuple([widths[i] for i in chain.layers])
        worths = self._worths[number]

        def call(value: Any) -> Any:
            start = perf_counter()
            able = not torch.is_inference_mode_enabled()
            looked = [last for last, worth in enumerate(worths, start=1) if worth.asked()] if able else []
            inputs: list[torch.Tensor] = []
            try:
                place = self._key(value, inputs) if looked else None
            except _Opaque:
                place = None
            first, before = 0, [tensor._version for tensor in inputs]
            if place is not None:
                for last in reversed(looked):
                    found = self._found((number, last, own[: chain.counts[last - 1]], place))
                    if found is not None:
                        first, value = last, _copied(found.output)
                        break
            _shared(worths, looked, first, perf_counter() - start)
            held = tuple(inputs)
            for last, (link, worth) in enumerate(
                zip(chain.links[first:], worths[first:], strict=True), start=first + 1
            ):
                began = perf_counter()
                for module in link:
                    value = module(value)
                ended = perf_counter()
                worth.ran(ended - began)
                if worth.looks and place is not None and [tensor._version for tensor in held] == before:
                    self.misses += 1
                    kept = self._remember((number, last, own[: chain.counts[last - 1]], place), held, value)
                    worth.gained(ended - perf_counter() - kept * SECONDS_PER_BYTE)
            return value

        return call

    def _found(self, key: Hashable) -> _Call | None:
        """The remembered call, unless something was written into its outputs."""
        found = self._calls.get(key)
        if found is None:
            return None
        if tuple([tensor._version for tensor in found.outputs]) == found.versions and found.samples == _samples(
            found.outputs
        ):
            self._calls.move_to_end(key)
            self.hits += 1
            return found
        self._drop(self._calls.pop(key))
        return None

    def _key(self, value: Any, tensors: list[torch.Tensor]) -> Hashable:
        """What a value is recognised by; its tensors are appended. Lists and dicts might be written into."""
        if isinstance(value, torch.Tensor):
            if value.is_inference():
                raise _Opaque
            tensors.append(value)
            return self._number(value), -1  # no number of Python's looks like this
        kind = type(value)
        if kind is tuple:
            return kind, tuple([self._key(part, tensors) for part in value])
        if value is None or kind in (bool, int, str):
            return kind, value
        if kind is float:
            return kind, value.hex()
        raise _Opaque

    def _number(self, tensor: torch.Tensor) -> int:
        """Equal for tensors of equal bits and layout, and only for those."""
        known = self._known.get(id(tensor))
        if known is not None and known.tensor() is tensor and known.version == tensor._version:
            return known.number
        if type(tensor) is not torch.Tensor or tensor.layout != torch.strided or tensor.is_complex():
            raise _Opaque  # a parameter, too: its values are exchanged without a new version
        bits = tensor.detach().view(_BITS[tensor.element_size()])
        if len(self._alike) > MOST_SEEN:
            self._alike = {key: left for key, seen in self._alike.items() if (left := [k for k in seen if _valid(k)])}
        alike = self._alike.setdefault((tensor.dtype, tensor.shape, tensor.stride(), _sample(bits)), [])
        alike[:] = [known for known in alike if _valid(known)]
        for known in alike:
            other = known.tensor()
            if other is not None and torch.equal(other.detach().view(bits.dtype), bits):
                self._note(tensor, known.number)
                return known.number
        self._numbers += 1
        alike.append(self._note(tensor, self._numbers))
        return self._numbers

    def _note(self, tensor: torch.Tensor, number: int) -> _Known:
        place, table = id(tensor), self._known

        def gone(ref: weakref.ref[torch.Tensor]) -> None:
            known = table.get(place)
            if known is not None and known.tensor is ref:
                del table[place]

        table[place] = known = _Known(weakref.ref(tensor, gone), number, tensor._version)
        return known

    def _remember(self, key: Hashable, inputs: tuple[torch.Tensor, ...], output: Any) -> int:
        """Keep a call; how many bytes are kept for it that were not before."""
        outputs: list[torch.Tensor] = []
        try:
            _collect(output, outputs)
        except _Opaque:
            return 0
        for tensor in outputs:
            known = self._known.get(id(tensor))
            if known is None or known.tensor() is not tensor or known.version != tensor._version:
                self._numbers += 1
                self._note(tensor, self._numbers)
        if sum([tensor.untyped_storage().nbytes() for tensor in outputs]) > self.limit_bytes // LARGEST_SHARE:
            return 0
        versions = tuple([tensor._version for tensor in outputs])
        call = _Call(inputs, _copied(output), tuple(outputs), versions, _samples(outputs))
        self._calls[key] = call
        before = self.bytes
        for tensor in (*inputs, *outputs):
            storage = tensor.untyped_storage()
            place = storage.data_ptr()
            held = self._storages.get(place, 0)
            self._storages[place] = held + 1
            self.bytes += 0 if held else storage.nbytes()
        kept = self.bytes - before
        while self.bytes > self.limit_bytes and self._calls:
            self._drop(self._calls.popitem(last=False)[1])
        return kept

    def _drop(self, call: _Call) -> None:
        for tensor in (*call.inputs, *call.outputs):
            storage = tensor.untyped_storage()
            held = self._storages.pop(storage.data_ptr()) - 1
            if held:
                self._storages[storage.data_ptr()] = held
            else:
                self.bytes -= storage.nbytes()


def _shared(worths: Sequence[Worth], looked: Sequence[int], first: int, seconds: float) -> None:
    """Tell the links of a chain that were looked for what it took, and those up to the `first` found what it saved.

    A link also saves those before it that are not looked for.
    """
    begins = 0
    for last in looked:
        saved = sum([worth.mean_s for worth in worths[begins:last]]) if last <= first else 0.0
        worths[last - 1].gained(saved - seconds / len(looked))
        begins = last


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors agree in shape, type and every bit."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.is_complex():
        first, second = torch.view_as_real(first), torch.view_as_real(second)
    return torch.equal(first.view(_BITS[first.element_size()]), second.view(_BITS[second.element_size()]))


def _valid(known: _Known) -> bool:
    tensor = known.tensor()
    return tensor is not None and tensor._version == known.version


def _sample(bits: torch.Tensor) -> bytes:
    """Some of a tensor's values, as bytes."""
    flat = bits.reshape(-1) if bits.is_contiguous() else bits.flatten() if bits.numel() < SAMPLED else bits[..., :1]
    step = max(flat.numel() // SAMPLED, 1)
    return flat.reshape(-1)[::step].numpy().tobytes()


def _samples(tensors: Sequence[torch.Tensor]) -> tuple[bytes, ...]:
    return tuple([_sample(tensor.detach().view(_BITS[tensor.element_size()])) for tensor in tensors])


def _collect(value: Any, tensors: list[torch.Tensor]) -> None:
    """The tensors of an output."""
    kind = type(value)
    if kind is torch.Tensor and value.layout == torch.strided and not value.is_inference() and not value.is_complex():
        tensors.append(value)
    elif kind in (tuple, list):
        for part in value:
            _collect(part, tensors)
    elif kind is dict:
        for part in value.values():
            _collect(part, tensors)
    elif value is not None and kind not in (bool, int, float, str):
        raise _Opaque


def _copied(value: Any) -> Any:
    """The same tensors in lists and dicts of the caller's own."""
    kind = type(value)
    if kind in (tuple, list):
        return kind(_copied(part) for part in value)
    if kind is dict:
        return {name: _copied(part) for name, part in value.items()}
    return value
