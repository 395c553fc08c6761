"""Measure a quantized PyTorch network: what every sample scores, and how far its output is from the FP32 network's."""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.models.arrays import arrays_of
from evoquant.models.base import REFERENCE, Failed, Measure, Outcome, Request
from evoquant.models.kept import Bounded, Kept, cache_bytes
from evoquant.models.networks import require_torch
from evoquant.models.own_rounding import require_same_code
from evoquant.models.torch_data import TARGETS, call_on_tensors, input_tensors, samples_of
from evoquant.models.torch_hooks import quantized_inputs
from evoquant.models.torch_quantize import fake_quantize_tensor
from evoquant.models.torch_threads import one_thread, tensor_bytes
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch

    from evoquant.models.arrays import Arrays
    from evoquant.models.torch_kinds import Expected, Judge
    from evoquant.models.torch_layers import Layer
    from evoquant.models.torch_layerwise import LayerByLayer
    from evoquant.models.torch_reuse import Reuse
    from evoquant.quantization.rounding import Rounder

REFERENCE_BYTES = 256 << 20
REUSE_BYTES = 512 << 20
INPUT_BYTES = 256 << 20

_IN_TURN = threading.RLock()
"""Workers that are threads may share a network, whose weights are put in and out; PyTorch's threads they do share."""


def start_measurer(payload: dict[str, Any]) -> Measure:
    """Rebuild network and data, once per worker; the function that comes back answers requests.

    A network of somebody's own that lives in this process is measured as it is, not loaded again.

    Raises:
        InputError: the payload is damaged, or its factory makes something else here.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("measuring a network")
    from evoquant.models.torch_kinds import Judge
    from evoquant.models.torch_layers import Layer
    from evoquant.models.torch_payload import network_of

    sizes = {key: payload[key] for key in ("block", "batch", "quantized_cache")}
    require_same_code(payload.get("rounder"))
    if "identity" in payload:
        from evoquant.models.torch_factory import live_task

        task = live_task(payload)
        judge = Judge(task.kind, task.variance, task.own)
        return Measurer(task.network, task.found, task.data, judge, rounder=task.rounder, **sizes)
    network, own = network_of(payload)
    data = {split: arrays_of(packed, f"the task's {split} data") for split, packed in payload["data"].items()}
    layers = [Layer.from_dict(row) for row in payload["layers"]]
    variance = payload["variance"]
    judge = Judge(payload["kind"], None if variance is None else np.array(variance), own)
    return Measurer(network, layers, data, judge, rounder=payload.get("rounder"), **sizes)


class Measurer:
    """Answers requests on one network, which has its FP32 weights again after each call.

    Beside those it keeps quantized tensors, within the bound of `evoquant.models.kept`, and FP32 outputs, within
    `REFERENCE_BYTES`. Where an allocation's tensors do not fit their bound, each is in place only while a module runs
    that reads it, see `evoquant.models.torch_layerwise`; outcomes are the same to the last bit.

    Args:
        network: in eval mode.
        layers: in the order of a request's widths.
        data: split → arrays as in `TorchTask.data`.
        judge: what outputs mean.
        block: samples per block.
        batch: samples per forward pass; a batch never crosses a block.
        rounder: a rounding method of somebody's own.
        quantized_cache: bytes of quantized tensors; None decides by the network's size.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        layers: Sequence[Layer],
        data: Mapping[str, Arrays],
        judge: Judge,
        *,
        block: int,
        batch: int,
        rounder: Rounder | None = None,
        quantized_cache: int | None = None,
    ) -> None:
        self._rounder = rounder
        self._network, self._layers, self._data, self._judge = network, layers, data, judge
        self._block, self._batch = block, batch
        parameters = dict(network.named_parameters(remove_duplicate=False))
        self._parameters = [parameters[layer.parameter] for layer in layers]
        self._originals = [parameter.data for parameter in self._parameters]
        self._modules = dict(network.named_modules())
        self._precisions: dict[str, Precision] = {}
        self._reuse: Reuse | None = None
        self._reuses = True
        self._unchecked = 0
        self._next_gap = 0
        self._layerwise: LayerByLayer | None = None
        self._divides = True
        self._holdable: set[tuple[int, str]] = set()
        weights = sum(map(tensor_bytes, self._originals))
        self._quantized: Kept[torch.Tensor] = Kept(cache_bytes(weights, quantized_cache))
        self._references: Bounded[list[Expected]] = Bounded(REFERENCE_BYTES)
        self._inputs: Bounded[list[dict[str, torch.Tensor]]] = Bounded(INPUT_BYTES)

    def __call__(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """The outcome of each request, in order."""
        with _IN_TURN, one_thread():
            reused = self._reuses
            answers = [self._answer(request) for request in requests]
            if reused and not self._reuses:  # it turned out to be wrong: so may be what was answered before
                answers = [self._answer(request) for request in requests]
            return answers

    def _answer(self, request: Request) -> Outcome | Failed:
        try:
            return self._outcomes(request)
        except Exception as error:  # whatever a network may raise is this candidate's failure, not the campaign's
            return Failed(f"raised:{type(error).__name__}", str(error))

    @contextlib.contextmanager
    def quantized(self, widths: Sequence[str]) -> Iterator[None]:
        """The network at these widths within, all of it at once, at FP32 after.

        Raises:
            InputError: a width that a layer cannot take.
            PrecisionError: unknown, or it cannot hold the layer's weights.
        """
        changes = self._changes(widths)
        self._fits(changes)
        with self._whole(changes), self._quantized_inputs(changes):
            yield

    def _changes(self, widths: Sequence[str]) -> dict[int, Precision]:
        """Layers that are not at FP32, and their precisions."""
        changes = {}
        for i, width in enumerate(widths):
            if width == REFERENCE:
                continue
            if width not in self._precisions:
                self._precisions[width] = Precision.parse(width)
            precision, layer = self._precisions[width], self._layers[i]
            if not layer.takes(precision):
                raise InputError(f"layer {layer.name!r} has no inputs of its own to quantize: it cannot be {width}.")
            changes[i] = precision
        return changes

    def _fits(self, changes: Mapping[int, Precision]) -> bool:
        """Begin an allocation; whether its tensors can be kept at once."""
        needed = sum(tensor_bytes(self._originals[i]) for i in changes)
        return self._quantized.begin(needed, [(i, precision.name) for i, precision in changes.items()])

    @contextlib.contextmanager
    def _whole(self, changes: Mapping[int, Precision]) -> Iterator[None]:
        changed: list[int] = []
        try:
            for i, precision in changes.items():
                changed.append(i)
                self._parameters[i].data = self._tensor(i, precision)
            yield
        finally:
            for i in changed:
                self._parameters[i].data = self._originals[i]

    def _quantized_inputs(self, changes: Mapping[int, Precision]) -> AbstractContextManager[None]:
        of = [self._layers[i] for i, precision in changes.items() if precision.activation_bits is not None]
        return quantized_inputs((self._modules[layer.module], layer) for layer in of)

    def _tensor(self, layer: int, precision: Precision) -> torch.Tensor:
        original = self._originals[layer]

        def make() -> torch.Tensor:
            return fake_quantize_tensor(original, precision, self._layers[layer].channel_axis, self._rounder)

        return self._quantized.get((layer, precision.name), tensor_bytes(original), make)

    def _outcomes(self, request: Request) -> Outcome | Failed:
        if len(request.widths) != len(self._layers):
            raise InputError(f"{len(request.widths)} widths for {len(self._layers)} layers; give one per layer.")
        arrays = self._samples(request)
        references = self._references.get(
            (request.split, request.block),
            lambda: [self._judge.expected(output) for output in self._outputs(request, arrays)],
            lambda x: sum(part.bytes for part in x),
        )
        changes = self._changes(request.widths)
        if not changes:
            return self._judged(request, arrays, [part.outputs for part in references], references)
        if self._reuses and self._reuse is None:
            self._start_reuse()

        def run() -> list[torch.Tensor]:
            return self._reusing(request, arrays) if self._reuses else self._outputs(request, arrays)

        if self._fits(changes) or not self._divided(request, arrays, references):
            with self._whole(changes), self._quantized_inputs(changes):
                outputs = run()
        else:
            outputs = self._layer_by_layer(changes, run)
        return self._judged(request, arrays, outputs, references)

    def _divided(self, request: Request, arrays: Arrays, references: Sequence[Expected]) -> bool:
        """Whether the network can be run layer by layer: the first time it is watched at FP32, for a batch."""
        if self._layerwise is not None or not self._divides:
            return self._divides
        from evoquant.models.torch_layerwise import LayerByLayer
        from evoquant.models.torch_reuse import same_bits

        try:
            layerwise = LayerByLayer(self._network, self._parameters)
            with layerwise.running(range(len(self._layers)), self._originals.__getitem__):
                (output,) = self._outputs(request, arrays, batches=1)
            layerwise.learn()
            self._divides = same_bits(output, references[0].outputs)
        except Exception:  # whatever a network may hold: run whole it still can be
            self._divides = False
        if self._divides:
            self._layerwise = layerwise
        else:
            warnings.warn(
                "the network gives other outputs when it is watched, and so it cannot be measured layer by layer: "
                "each worker holds all quantized weights at once.",
                RuntimeWarning,
                stacklevel=2,
            )
        return self._divides

    def _layer_by_layer(
        self, changes: Mapping[int, Precision], run: Callable[[], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """What `run` gives with each quantized tensor in place only where it is read."""
        assert self._layerwise is not None
        for i, precision in changes.items():  # one that cannot be held fails here, whether the network reads it or not
            if (i, precision.name) not in self._holdable:
                self._tensor(i, precision)
                self._holdable.add((i, precision.name))
        while True:
            outputs: list[torch.Tensor] | Exception
            with (
                self._layerwise.running(changes, lambda i: self._tensor(i, changes[i])),
                self._quantized_inputs(changes),
            ):
                try:
                    outputs = run()
                except Exception as error:
                    outputs = error
            if not self._layerwise.learn():
                break
            if self._reuse is not None:
                self._reuse.forget()
        if isinstance(outputs, Exception):
            raise outputs
        return outputs

    def _start_reuse(self) -> None:
        """While the network is as it was given, without our hooks."""
        from evoquant.models.torch_reuse import Reuse

        try:
            self._reuse = Reuse(self._network, self._layers, next(iter(self._data.values())), REUSE_BYTES)
        except Exception:  # whatever a network may hold: run whole it still can be
            self._reuses = False

    def _reusing(self, request: Request, arrays: Arrays) -> list[torch.Tensor]:
        """The outputs at these widths, with what is remembered of other widths.

        The first, and then at doubling distances those in which something was found, are compared with those of a plain
        pass: what cannot be seen from outside (tensors that are written into past PyTorch, drawn numbers) would show.
        """
        from evoquant.models.torch_reuse import same_bits

        assert self._reuse is not None
        hits = self._reuse.hits
        outputs: list[torch.Tensor] | None = None
        with contextlib.suppress(Exception), self._reuse.running(request.widths):
            outputs = self._outputs(request, arrays)
        self._unchecked += self._reuse.hits > hits
        if outputs is not None and self._unchecked < self._next_gap:
            return outputs
        plain = self._outputs(request, arrays)  # what this raises the network raises by itself
        if outputs is None or not all(map(same_bits, outputs, plain)):
            since, self._reuses, self._reuse = self._unchecked, False, None
            warnings.warn(
                "the network gives other outputs where modules with equal inputs are not run again; it keeps state "
                "outside of its parameters, or draws numbers. From here on every measurement runs it whole. Up to "
                f"{since} earlier outcomes were not checked: to be sure, start anew with another `cache:`.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._next_gap = max(2 * self._next_gap, 1)
        self._unchecked = 0
        return plain

    def _judged(
        self, request: Request, arrays: Arrays, outputs: Sequence[torch.Tensor], references: Sequence[Expected]
    ) -> Outcome | Failed:
        parts = []
        targets = arrays.get(TARGETS)
        for start, (output, reference) in enumerate(zip(outputs, references, strict=True)):
            rows = slice(start * self._batch, (start + 1) * self._batch)
            part = self._judge.outcome(output, reference, None if targets is None else targets[rows])
            if part is None:
                return Failed("not_finite", f"an output of {request.split} block {request.block} is not finite.")
            parts.append(part)
        return np.concatenate(parts)

    def _outputs(self, request: Request, arrays: Arrays, batches: int | None = None) -> list[torch.Tensor]:
        """Of each batch, or the first so many. Not in inference mode, where writing into tensors would go unnoticed."""
        import torch

        inputs = self._inputs.get(
            (request.split, request.block), lambda: self._batches(arrays), lambda x: sum(map(_bytes_of, x))
        )
        if any(tensor._version for tensors in inputs for tensor in tensors.values()):
            inputs = self._batches(arrays)  # the network writes into its inputs
        with torch.no_grad():
            return [call_on_tensors(self._network, tensors) for tensors in inputs[:batches]]

    def _batches(self, arrays: Arrays) -> list[dict[str, torch.Tensor]]:
        """Copies of each batch's inputs: the same objects, by which calls are found again, as long as they are kept."""
        starts = range(0, samples_of(arrays), self._batch)
        batches = [input_tensors(arrays, slice(start, start + self._batch)) for start in starts]
        return [{name: tensor.clone() for name, tensor in batch.items()} for batch in batches]

    def _samples(self, request: Request) -> Arrays:
        if request.split not in self._data:
            raise InputError(f"unknown split {request.split!r}; the task has {', '.join(self._data)}.")
        data = self._data[request.split]
        block = slice(request.block * self._block, (request.block + 1) * self._block)
        arrays = {name: array[block] for name, array in data.items()}
        if request.block < 0 or not samples_of(arrays):
            raise InputError(
                f"split {request.split!r} has no block {request.block}; it has {samples_of(data)} samples."
            )
        return arrays


def _bytes_of(tensors: dict[str, torch.Tensor]) -> int:
    return sum(map(tensor_bytes, tensors.values()))
