"""Measure a quantized ONNX network with onnxruntime: one session, whose weights are inputs, whatever the allocation."""

from __future__ import annotations

import platform
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from evoquant.errors import InputError, MissingExtraError
from evoquant.models.base import REFERENCE, Failed, Measure, Outcome, Request
from evoquant.models.onnx_data import TARGETS, Samples
from evoquant.models.onnx_outcomes import outcomes
from evoquant.models.own_rounding import require_same_code
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import onnxruntime
    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.onnx_layers import OnnxLayer
    from evoquant.models.onnx_outcomes import Scoring
    from evoquant.quantization.rounding import Rounder

Key = TypeVar("Key", bound="Hashable")

WEIGHT_CACHE_BYTES = 512 * 2**20
REFERENCE_CACHE_BYTES = 256 * 2**20
_ERRORS_ONLY = 3


def require_onnx(what: str) -> None:
    """Check that onnx and onnxruntime are installed; `what` names who needs them.

    Raises:
        MissingExtraError: one is not.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtraError(what, "onnx and onnxruntime", "onnx") from None
    del onnx


def open_session(model: bytes, source: str) -> onnxruntime.InferenceSession:
    """One thread, no memory arena (many sessions would exhaust a machine), deterministic kernels.

    Raises:
        InputError: onnxruntime cannot run the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes
        text = " ".join(str(error).split())[:500]
        raise InputError(f"{source}: onnxruntime {onnxruntime.__version__} cannot run the model: {text}") from None


def numeric_environment(batch: int) -> str:
    """What may change the last bit of a forward pass in batches of `batch`: versions, CPU features, threads."""
    import onnxruntime

    features: Any = np.show_config(mode="dicts")
    found = ",".join(features.get("SIMD Extensions", {}).get("found", []))
    return (
        f"onnxruntime {onnxruntime.__version__}; {platform.machine()} {found}; threads 1; batch {batch}; "
        f"numpy {np.__version__}"
    )


class ByteBound(Generic[Key]):
    """Arrays by key, the least recently used dropped above a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._arrays: OrderedDict[Key, NDArray[np.generic]] = OrderedDict()

    def get(self, key: Key, make: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
        """The array of `key`, made where it is not there; one larger than the limit is not kept."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = make()
        if array.nbytes <= self.limit:
            self._arrays[key] = array
            self.bytes += array.nbytes
            while self.bytes > self.limit:
                self.bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


class Network:
    """An opened model that runs at any allocation.

    Args:
        model: the graph whose weights are inputs.
        layers: in the order of a request's widths.
        weights: layer name → weight, as stored.
        outputs: names of the outputs to compute.
        inputs: names of the graph's data inputs, in the order of `input<i>`.
        fixed: samples of a batch where the graph fixes them, else None.
        source: what messages call the model.
        rounder: a rounding method of somebody's own.
    """

    def __init__(
        self,
        model: bytes,
        layers: Sequence[OnnxLayer],
        weights: Arrays,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        fixed: int | None,
        source: str,
        rounder: Rounder | None = None,
    ) -> None:
        self._rounder = rounder
        self._model = model
        self._layers = layers
        self._weights = weights
        self._inputs = inputs
        self._outputs = list(outputs)
        self._fixed = fixed
        self._source = source
        self._plain = open_session(model, source)
        self._switched: onnxruntime.InferenceSession | None = None
        self._quantized: ByteBound[tuple[int, str]] = ByteBound(WEIGHT_CACHE_BYTES)

    def run(self, widths: tuple[str, ...], samples: Arrays, shared: Sequence[str], count: int) -> list[Any]:
        """Every output for `count` samples.

        Raises:
            InputError: a wrong number of widths; the outputs do not have the samples first.
            PrecisionError: a weight cannot be held at its width.
        """
        if len(widths) != len(self._layers):
            raise InputError(f"{len(widths)} widths for {len(self._layers)} layers; give one per layer.")
        session, feeds = self._session(widths)
        feeds |= {
            layer.input: self._weight(i, width)
            for i, (layer, width) in enumerate(zip(self._layers, widths, strict=True))
        }
        padding = 0 if self._fixed is None else self._fixed - count
        for index, name in enumerate(self._inputs):
            array = samples[f"input{index}"]
            if padding > 0 and f"input{index}" not in shared:
                array = np.concatenate([array, np.repeat(array[-1:], padding, axis=0)])
            feeds[name] = np.ascontiguousarray(array)
        results = session.run(self._outputs, feeds)
        rows = count + max(padding, 0)
        for name, result in zip(self._outputs, results, strict=True):
            if not isinstance(result, np.ndarray) or (result.ndim and len(result) != rows):
                shape = getattr(result, "shape", type(result).__name__)
                raise InputError(
                    f"{self._source}: the output {name!r} is {shape} for {rows} samples; outputs have samples first: "
                    "choose another output."
                )
        return [result[:count] if result.ndim else result for result in results]

    def _session(self, widths: tuple[str, ...]) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
        """The session for these widths, and its switches: which layers' inputs are quantized, too."""
        dynamic = {width: Precision.parse(width).activation_bits is not None for width in set(widths)}
        wanted = [dynamic[width] for width in widths]
        if not any(wanted):
            return self._plain, {}
        from evoquant.models.onnx_variants import SWITCH, with_switches

        if self._switched is None:
            self._switched = open_session(with_switches(self._model, self._layers), self._source)
        known = {value.name for value in self._switched.get_inputs()}
        switches = {f"{SWITCH}{index}": np.array(on) for index, on in enumerate(wanted)}
        for index, on in enumerate(wanted):
            if on and f"{SWITCH}{index}" not in known:
                raise InputError(
                    f"layer {self._layers[index].name!r} has no inputs to quantize; give it another width."
                )
        return self._switched, {name: on for name, on in switches.items() if name in known}

    def _weight(self, index: int, width: str) -> NDArray[np.generic]:
        layer = self._layers[index]
        original = self._weights[layer.name]
        if width == REFERENCE:
            return original.reshape(layer.dims)

        def make() -> NDArray[np.generic]:
            quantized = fake_quantize(original, Precision.parse(width), layer.channel_axis, self._rounder)
            return quantized.reshape(layer.dims).astype(layer.stored, copy=False)

        return self._quantized.get((index, width), make)


def start_measurer(payload: dict[str, Any]) -> Measure:
    """Open the network, once per worker; the function that comes back answers requests.

    Raises:
        InputError: onnxruntime cannot run the model.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    require_onnx("measuring an ONNX network")
    require_same_code(payload.get("rounder"))
    from evoquant.models.onnx_layers import OnnxLayer

    network = Network(
        payload["model"],
        [OnnxLayer(**layer) for layer in payload["layers"]],
        payload["weights"],
        inputs=payload["inputs"],
        outputs=payload["outputs"],
        fixed=payload["fixed"],
        source=payload["source"],
        rounder=payload.get("rounder"),
    )
    data = {split: Samples(**samples) for split, samples in payload["data"].items()}
    return OnnxMeasurer(network, data, payload["scoring"], payload["block"], payload["batch"], payload["mask"])


class OnnxMeasurer:
    """Answers requests; keeps the FP32 network's outputs of as many batches as fit `REFERENCE_CACHE_BYTES`.

    Args:
        network: what runs.
        data: split → samples.
        scoring: what outputs mean.
        block: samples per block.
        batch: samples per forward pass; a batch never crosses a block.
        mask: name of the array that says which positions of a sequence count, None where all do.
    """

    def __init__(
        self,
        network: Network,
        data: dict[str, Samples],
        scoring: Scoring,
        block: int,
        batch: int,
        mask: str | None,
    ) -> None:
        self.network = network
        self._data = data
        self._scoring = scoring
        self._block = block
        self._batch = batch
        self._mask = mask
        self._references: ByteBound[tuple[str, int]] = ByteBound(REFERENCE_CACHE_BYTES)

    def __call__(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """Outcomes of the requests, in their order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Outcome | Failed:
        try:
            return self._outcomes(request)
        except Exception as error:  # whatever a network may raise is this candidate's failure, not the campaign's
            return Failed(f"raised:{type(error).__name__}", str(error))

    def _outcomes(self, request: Request) -> Outcome | Failed:
        samples, first, last = self._place(request)
        found = []
        for start in range(first, last, self._batch):
            count = min(self._batch, last - start)
            part = samples.part(start, start + count)

            def scored(widths: tuple[str, ...], part: Arrays = part, count: int = count) -> list[Any]:
                return self.network.run(widths, part, samples.shared, count)

            output = scored(request.widths)
            if not np.isfinite(output[self._scoring.output]).all():
                return Failed("not_finite", f"an output of {request.split} block {request.block} is not finite.")
            reference = self._references.get(
                (request.split, start),
                lambda run=scored: run((REFERENCE,) * len(request.widths))[self._scoring.output],  # type: ignore[misc]
            )
            mask = None if self._mask is None else part[self._mask]
            found.append(outcomes(self._scoring, output, reference, part.get(TARGETS), mask))
        outcome: Outcome = np.concatenate(found)
        if not np.isfinite(outcome).all():
            return Failed("not_finite", f"a score of {request.split} block {request.block} is not finite.")
        return outcome

    def _place(self, request: Request) -> tuple[Samples, int, int]:
        """The split's samples, and the first and past the last of the block."""
        if request.split not in self._data:
            raise InputError(f"unknown split {request.split!r}; the task has {', '.join(self._data)}.")
        samples = self._data[request.split]
        first = request.block * self._block
        if not 0 <= first < samples.count:
            raise InputError(f"split {request.split!r} has no block {request.block}; it has {samples.count} samples.")
        return samples, first, min(first + self._block, samples.count)
