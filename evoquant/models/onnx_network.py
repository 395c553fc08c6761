"""An ONNX network at any allocation: one session whose weights are inputs, or stages where those are too large."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from evoquant.errors import InputError
from evoquant.models.base import REFERENCE
from evoquant.models.kept import Kept, cache_bytes
from evoquant.models.onnx_session import open_session
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision

Feeds: TypeAlias = "dict[str, NDArray[Any]]"

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays
    from evoquant.models.onnx_layers import OnnxLayer
    from evoquant.models.onnx_stages import Stages
    from evoquant.quantization.rounding import Rounder

STAGE_BYTES = 32 * 2**20
"""Of weights in a stage: a run of one more session takes a thousandth of the time that quantizing these does."""
BETWEEN_BYTES = 256 * 2**20
"""Of values between stages, of batches that go through them together, so that weights are quantized once for all."""


class Graph:
    """A graph whose weights are inputs, as one session; and in stages from when that is asked for."""

    def __init__(self, model: bytes, source: str) -> None:
        self.session = open_session(model, source)
        self.inputs = {value.name for value in self.session.get_inputs()}
        self._model = model
        self._source = source
        self._stages: Stages | None = None
        self._whole = False

    def stages(self, weights: Mapping[str, int], limit: int) -> Stages | None:
        """The graph in stages; None where it has to run as a whole.

        Args:
            weights: input → bytes of the weight.
            limit: bytes of weights in a stage.
        """
        from evoquant.models.onnx_stages import CannotBeCutError, Stages

        if self._stages is None and not self._whole:
            try:
                self._stages = Stages(self._model, weights, limit, self._source)
            except (CannotBeCutError, InputError, OSError) as reason:
                self.keep_whole(str(reason), sum(weights.values()))
        return self._stages

    def keep_whole(self, reason: str, needed: int) -> None:
        """From now on run it as a whole."""
        self._stages, self._whole = None, True
        warnings.warn(
            f"{self._source}: cannot run in stages ({reason}); each worker needs {needed / 1e6:,.0f} MB for all "
            "quantized weights at once, whatever quantized_cache says.",
            RuntimeWarning,
            stacklevel=2,
        )


class Network:
    """An opened model that runs at any allocation.

    Where the quantized weights of an allocation are more than are kept, the graph runs in stages, each with its own
    weights alone: the outputs are the same to the last bit.

    Args:
        model: the graph whose weights are inputs.
        layers: in the order of a request's widths.
        weights: layer name → weight, as stored.
        outputs: names of the outputs to compute.
        inputs: names of the graph's data inputs, in the order of `input<i>`.
        fixed: samples of a batch where the graph fixes them, else None.
        source: what messages call the model.
        rounder: a rounding method of somebody's own.
        quantized_cache: bytes of quantized weights that are kept; None decides by the network's size.
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
        quantized_cache: int | None = None,
    ) -> None:
        self._rounder = rounder
        self._model = model
        self._layers = layers
        self._weights = weights
        self._inputs = inputs
        self._outputs = list(outputs)
        self._fixed = fixed
        self._source = source
        self._plain = Graph(model, source)
        self._switched: Graph | None = None
        self._places = {layer.input: place for place, layer in enumerate(layers)}
        self._bytes = [weights[layer.name].size * np.dtype(layer.stored).itemsize for layer in layers]
        self._quantized: Kept[NDArray[np.generic]] = Kept(cache_bytes(sum(self._bytes), quantized_cache))

    def run(self, widths: tuple[str, ...], samples: Arrays, shared: Sequence[str], count: int) -> list[Any]:
        """Every output for `count` samples.

        Raises:
            InputError: a wrong number of widths; the outputs do not have the samples first.
            PrecisionError: a weight cannot be held at its width.
        """
        return next(self.run_all(widths, [(samples, count)], shared))

    def run_all(
        self, widths: tuple[str, ...], batches: Sequence[tuple[Arrays, int]], shared: Sequence[str]
    ) -> Iterator[list[Any]]:
        """Every output, batch after batch.

        Args:
            widths: one per layer.
            batches: samples, and how many they are.
            shared: names of the inputs that are one for all samples.

        Raises:
            InputError: a wrong number of widths; the outputs do not have the samples first.
            PrecisionError: a weight cannot be held at its width.
        """
        if len(widths) != len(self._layers):
            raise InputError(f"{len(widths)} widths for {len(self._layers)} layers; give one per layer.")
        graph, switches = self._graph(widths)
        keys = [(place, width) for place, width in enumerate(widths) if width != REFERENCE]
        needed = sum(self._bytes[place] for place, _ in keys)
        done = 0
        while done < len(batches):
            stages = None
            if needed and not self._quantized.begin(needed, keys):
                sizes = dict(zip(self._places, self._bytes, strict=True))
                stages = graph.stages(sizes, min(STAGE_BYTES, self._quantized.limit_bytes))
            together = batches[done : done + (1 if stages is None else stages.together(BETWEEN_BYTES))]
            feeds = [switches | self._feeds(samples, shared, count) for samples, count in together]
            results = self._results(graph, stages, feeds, widths)
            for (_, count), outputs in zip(together, results, strict=True):
                yield self._checked(outputs, count)
            done += len(together)

    def _feeds(self, samples: Arrays, shared: Sequence[str], count: int) -> Feeds:
        """The graph's data inputs; where it fixes its batch, the last sample fills it up."""
        padding = 0 if self._fixed is None else self._fixed - count
        feeds: Feeds = {}
        for index, name in enumerate(self._inputs):
            array = samples[f"input{index}"]
            if padding > 0 and f"input{index}" not in shared:
                array = np.concatenate([array, np.repeat(array[-1:], padding, axis=0)])
            feeds[name] = np.ascontiguousarray(array)
        return feeds

    def _checked(self, results: Sequence[Any], count: int) -> list[Any]:
        """The outputs without those of what filled up the batch."""
        rows = count if self._fixed is None else max(count, self._fixed)
        for name, result in zip(self._outputs, results, strict=True):
            if not isinstance(result, np.ndarray) or (result.ndim and len(result) != rows):
                shape = getattr(result, "shape", type(result).__name__)
                raise InputError(
                    f"{self._source}: the output {name!r} is {shape} for {rows} samples; outputs have samples first: "
                    "choose another output."
                )
        return [result[:count] if result.ndim else result for result in results]

    def _results(
        self, graph: Graph, stages: Stages | None, feeds: Sequence[Feeds], widths: tuple[str, ...]
    ) -> Iterator[list[Any]]:
        """The outputs of each batch."""

        def weight(name: str) -> NDArray[np.generic]:
            place = self._places[name]
            return self._weight(place, widths[place])

        failed = None
        if stages is not None:
            try:
                found = stages.run(self._outputs, feeds, weight)
            except Exception as fault:  # what is wrong, and whether anything is, the whole session says as ever
                failed = fault
            else:
                yield from found
                return
        weights = {name: weight(name) for name in self._places}
        for one in feeds:
            yield graph.session.run(self._outputs, one | weights)
        if failed is not None:
            graph.keep_whole(str(failed), sum(self._bytes))

    def _graph(self, widths: tuple[str, ...]) -> tuple[Graph, dict[str, Any]]:
        """The graph for these widths, and its switches: which layers' inputs are quantized, too."""
        dynamic = {width: Precision.parse(width).activation_bits is not None for width in set(widths)}
        wanted = [dynamic[width] for width in widths]
        if not any(wanted):
            return self._plain, {}
        from evoquant.models.onnx_variants import SWITCH, with_switches

        if self._switched is None:
            self._switched = Graph(with_switches(self._model, self._layers), self._source)
        switches = {f"{SWITCH}{index}": np.array(on) for index, on in enumerate(wanted)}
        for index, on in enumerate(wanted):
            if on and f"{SWITCH}{index}" not in self._switched.inputs:
                raise InputError(
                    f"layer {self._layers[index].name!r} has no inputs to quantize; give it another width."
                )
        return self._switched, {name: on for name, on in switches.items() if name in self._switched.inputs}

    def _weight(self, index: int, width: str) -> NDArray[np.generic]:
        layer = self._layers[index]
        original = self._weights[layer.name]
        if width == REFERENCE:
            return original.reshape(layer.dims)

        def make() -> NDArray[np.generic]:
            quantized = fake_quantize(original, Precision.parse(width), layer.channel_axis, self._rounder)
            return quantized.reshape(layer.dims).astype(layer.stored, copy=False)

        return self._quantized.get((index, width), self._bytes[index], make)
