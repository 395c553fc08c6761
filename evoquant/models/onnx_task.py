"""Any ONNX network as a measured task: a model file, an .npz of samples, and what its outputs mean."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, suggestion
from evoquant.files import canonical_json
from evoquant.models.arrays import digest_arrays
from evoquant.models.base import REFERENCE, SPLITS, Block, Measure, Split
from evoquant.models.code import code_digest
from evoquant.models.onnx_data import SLICES, TARGETS, InputSpec, Samples, read_npz, split_samples
from evoquant.models.onnx_network import Network
from evoquant.models.onnx_outcomes import Kind, OwnMetric, Score, Scoring
from evoquant.models.onnx_scoring import decide, own_metric
from evoquant.models.onnx_session import numeric_environment, open_session, require_onnx
from evoquant.models.own_rounding import quantizer_of
from evoquant.scoring.statistics import METRICS, Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.onnx_layers import OnnxLayer, OpenedModel
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.quantization.rounding import Rounder

BLOCK, BATCH = 512, 64
DEFAULT_SIGNALS = ("loss", "divergence", "fisher", "activation_range")
_MASKS = ("attention_mask",)
_NUMPY = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool"}
_NUMPY |= {10: "float16", 11: "float64", 12: "uint32", 13: "uint64"}


@dataclass(frozen=True, eq=False)
class OnnxTask:
    """An ONNX network and its data; see `MeasuredTask`.

    Attributes:
        name: what reports call it.
        opened: the graph, its layers and their weights.
        model: the graph as bytes, without the layers' weights.
        data: split → samples.
        specs: the graph's data inputs.
        outputs: the outputs that are computed.
        scoring: what they mean.
        block: samples per block; the last block of a split may be smaller.
        batch: samples per forward pass.
        fixed: samples of a batch where the graph fixes them.
        source: what messages call the model.
        rounder: a rounding method of somebody's own.
        quantized_cache: bytes of quantized weights that a worker keeps; None decides by the network's size.
    """

    name: str
    opened: OpenedModel
    model: bytes
    data: Mapping[Split, Samples]
    specs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    scoring: Scoring
    block: int
    batch: int
    fixed: int | None
    source: str
    rounder: Rounder | None = None
    quantized_cache: int | None = None

    @property
    def table(self) -> tuple[OnnxLayer, ...]:
        """The layers that take a width, in order of execution."""
        return self.opened.layers

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(layer.name for layer in self.table)

    @property
    def metric(self) -> Metric:
        """What the scores of samples mean."""
        own = self.scoring.own
        return METRICS[self.scoring.metric] if own is None else Metric(own.name, own.lower_is_better, own=own.retention)

    @functools.cached_property
    def model_digest(self) -> str:
        """sha256 over the graph, the layers that take a width, and the bytes of the weights."""
        table = [[layer.input, list(layer.shape), layer.channel_axis] for layer in self.table]
        content = [hashlib.sha256(self.model).hexdigest(), table, digest_arrays(self.opened.weights)]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @functools.cached_property
    def numeric_environment(self) -> str:
        """What besides model, block and widths may change an outcome, how outputs become scores included."""
        scoring = self.scoring
        how = f"{scoring.kind} {self.outputs[scoring.output]!r} by {scoring.metric}, classes {scoring.class_axis}"
        scale = ""
        if scoring.kind == "regression":
            scale = f", variance {hashlib.sha256(canonical_json(scoring.variance).encode()).hexdigest()[:16]}"
        return f"{numeric_environment(self.batch)}; {how}{scale}{_code_digest(scoring.own)}"

    @property
    def mask(self) -> str | None:
        """Name of the array that says which positions of a sequence count, None where all do."""
        return next((f"input{i}" for i, spec in enumerate(self.specs) if spec.name in _MASKS), None)

    def payload(self, *, elsewhere: bool = False) -> dict[str, Any]:
        """For `evoquant.models.measurer.start_measurer`: plain data and arrays; an own metric travels by its name.

        The same for workers `elsewhere`: arrays are read where they lie.
        """
        return {
            "runtime": "onnx",
            "model": self.model,
            "layers": [asdict(layer) for layer in self.table],
            "weights": self.opened.weights,
            "inputs": [spec.name for spec in self.specs],
            "outputs": list(self.outputs),
            "data": {split: vars(samples) for split, samples in self.data.items()},
            "scoring": self.scoring,
            "block": self.block,
            "batch": self.batch,
            "fixed": self.fixed,
            "mask": self.mask,
            "source": self.source,
            "rounder": self.rounder,
            "quantized_cache": self.quantized_cache,
        }

    @functools.cached_property
    def _blocks(self) -> dict[Split, tuple[Block, ...]]:
        return {split: tuple(self._cut(split)) for split in SPLITS}

    def _cut(self, split: Split) -> list[Block]:
        samples = self.data[split]
        found = []
        for index, start in enumerate(range(0, samples.count, self.block)):
            stop = min(start + self.block, samples.count)
            part = samples.part(start, stop)
            part.pop(SLICES, None)
            found.append(Block(split, index, digest_arrays(part), stop - start))
        return found

    def blocks(self, split: Split) -> tuple[Block, ...]:
        """The blocks of a split, in order.

        Raises:
            InputError: no such split.
        """
        if split not in SPLITS:
            raise InputError(f"task {self.name!r} has no split {split!r}; it has {', '.join(SPLITS)}.")
        return self._blocks[split]

    def slices(self, split: Split) -> tuple[str, ...] | None:
        """The data's `slices`, else the classes of a classification, one per sample."""
        arrays = self.data[split].arrays
        names = arrays.get(SLICES)
        if names is None and self.scoring.metric == "accuracy" and arrays[TARGETS][0].size == 1:
            names = arrays[TARGETS].reshape(-1)
        return None if names is None else tuple(str(name) for name in names.tolist())

    def profile(self, menu: Menu, measure: Measure, signals: Sequence[str] = DEFAULT_SIGNALS) -> ModelProfile:
        """The network's profile for `menu`; see `profile_onnx`."""
        from evoquant.models.onnx_profile import profile_onnx

        return profile_onnx(self, menu, measure, signals)

    def provenance(self) -> dict[str, Any]:
        """Where figures come from."""
        return {
            "task": self.name,
            "model": self.model_digest,
            "quantizer": quantizer_of(self),
            "environment": self.numeric_environment,
        }

    def switchable(self, layer: OnnxLayer) -> bool:
        """Whether the layer's inputs can be quantized, too: matrix products and convolutions outside of branches."""
        from evoquant.models.onnx_variants import switchable

        return switchable(self.opened.proto, layer)

    def activation_ranges(self) -> list[float]:
        """Per layer, max − min of its output over the calibration split; 0 for layers in branches and loops."""
        from evoquant.models.onnx_variants import MAX, MIN, with_ranges

        seen = [i for i, layer in enumerate(self.table) if layer.output is not None]
        low, high = dict.fromkeys(seen, math.inf), dict.fromkeys(seen, -math.inf)
        session = open_session(with_ranges(self.model, self.table), self.source)
        feeds = {layer.input: self.opened.weights[layer.name].reshape(layer.dims) for layer in self.table}
        samples = self.data["calibration"]
        for start in range(0, samples.count, self.batch):
            part = samples.part(start, start + self.batch)
            for i, spec in enumerate(self.specs):
                array = part[f"input{i}"]
                if self.fixed is not None and f"input{i}" not in samples.shared:
                    array = np.resize(array, (self.fixed, *array.shape[1:]))  # filled up with the same samples
                feeds[spec.name] = np.ascontiguousarray(array)
            names = [f"{prefix}{i}" for i in seen for prefix in (MIN, MAX)]
            values = [float(value) for value in session.run(names, feeds)]
            for place, i in enumerate(seen):
                low[i], high[i] = min(low[i], values[2 * place]), max(high[i], values[2 * place + 1])
        return [high[i] - low[i] if i in low else 0.0 for i in range(len(self.table))]


def load_onnx_task(
    model: Path | bytes,
    data: Path | Mapping[str, NDArray[np.generic]],
    *,
    metric: str | Score | OwnMetric | None = None,
    kind: Kind | None = None,
    output: str | None = None,
    block: int = BLOCK,
    batch: int = BATCH,
    seed: int = 0,
    types: Mapping[str, str] | None = None,
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    name: str | None = None,
) -> OnnxTask:
    """An ONNX model and samples as a measured task.

    Args:
        model: a file, or its bytes.
        data: an .npz file or its arrays; see `split_samples` for their names.
        metric: accuracy, agreement, r2, perplexity or cosine, or one's own function: (all outputs of a batch, its
            targets or None) → `(samples,)` scores, perhaps with attributes `lower_is_better` and `retention`. None
            takes accuracy for targets that are whole numbers, r2 for others, and agreement without targets. Agreement
            becomes cosine where the output is an embedding, and r2 against the FP32 output for a regression.
        kind: what the scored output is: logits, probabilities, regression or embedding; None looks at it.
        output: name of the scored output; None takes the first.
        block: samples per block.
        batch: samples per forward pass; a graph that fixes its batch has its own.
        seed: of the order of samples.
        types: layer → type, over what is inferred.
        tie_groups: name → layers that share a width, over what is found. A group of one unties its layer.
        name: what reports call it; the file's name by default.

    Raises:
        InputError: model, data or options are wrong or do not fit each other.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    require_onnx("an ONNX network")
    from evoquant.models.onnx_file import check_model, read_model
    from evoquant.models.onnx_layers import open_model

    source = "the model" if isinstance(model, bytes) else str(model)
    for what, value in (("block", block), ("batch", batch)):
        if value < 1:
            raise InputError(f"{source}: {what} is {value}; it is at least 1 sample.")
    proto = read_model(model, source)
    specs = _specs(proto, source)
    outputs = [value.name for value in proto.graph.output]
    scored = output or outputs[0]
    if scored not in outputs:
        raise InputError(f"{source}: no output {scored!r}.{suggestion(scored, outputs)}")
    wanted = metric if metric is None or isinstance(metric, (str, OwnMetric)) else own_metric(metric)
    if not isinstance(wanted, OwnMetric):
        outputs = [scored]
    arrays = read_npz(data) if isinstance(data, Path) else data
    samples = split_samples(arrays, list(specs), seed, str(data) if isinstance(data, Path) else "the data")
    opened = open_model(proto, types or {}, tie_groups or {}, source)
    check_model(opened.proto, source)
    fixed = _fixed_batch(specs, samples["calibration"], source)
    task = OnnxTask(
        name=name or ("onnx" if isinstance(model, bytes) else model.stem),
        opened=opened,
        model=opened.proto.SerializeToString(deterministic=True),
        data=samples,
        specs=specs,
        outputs=tuple(outputs),
        scoring=Scoring("agreement", "logits", outputs.index(scored)),
        block=block,
        batch=fixed or batch,
        fixed=fixed,
        source=source,
    )
    first = open_network(task).run(
        (REFERENCE,) * len(task.layers),
        samples["calibration"].part(0, task.batch),
        samples["calibration"].shared,
        min(task.batch, samples["calibration"].count),
    )[task.scoring.output]
    targets = samples["calibration"].arrays.get(TARGETS)
    return replace(task, scoring=decide(task.scoring.output, wanted, kind, first, targets, f"{source}: {scored!r}"))


def _specs(proto: Any, source: str) -> tuple[InputSpec, ...]:
    """The graph's inputs but for those that are weights with a default."""
    defaults = {tensor.name for tensor in proto.graph.initializer}
    specs = []
    for value in proto.graph.input:
        if value.name in defaults:
            continue
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type not in _NUMPY:
            raise InputError(f"{source}: the input {value.name!r} is no tensor of numbers, which alone can be given.")
        if not tensor.HasField("shape"):
            raise InputError(f"{source}: the input {value.name!r} has no shape; export it with the number of its axes.")
        dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
        specs.append(InputSpec(value.name, _NUMPY[tensor.elem_type], dims))
    if not specs:
        raise InputError(f"{source}: the graph has no input, so there is nothing to measure it on.")
    return tuple(specs)


def _fixed_batch(specs: Sequence[InputSpec], samples: Samples, source: str) -> int | None:
    """The batch that the graph fixes, None where it is free.

    Raises:
        InputError: two inputs fix different ones.
    """
    found = {
        spec.dims[0]: spec.name
        for i, spec in enumerate(specs)
        if f"input{i}" not in samples.shared and spec.dims[0] is not None
    }
    if len(found) > 1:
        (a, b), *_ = zip(found.items(), list(found.items())[1:], strict=False)
        raise InputError(
            f"{source}: the input {a[1]!r} fixes a batch of {a[0]}, {b[1]!r} one of {b[0]}; export it anew."
        )
    return next(iter(found), None)


def open_network(task: OnnxTask) -> Network:
    """The task's network, ready to run at any allocation."""
    return Network(
        task.model,
        task.table,
        task.opened.weights,
        inputs=[spec.name for spec in task.specs],
        outputs=task.outputs,
        fixed=task.fixed,
        source=task.source,
        rounder=task.rounder,
        quantized_cache=task.quantized_cache,
    )


def _code_digest(own: OwnMetric | None) -> str:
    """sha256 of the file that defines an own metric: edited, it gives other outcomes."""
    if own is None:
        return ""
    held = getattr(own.function, "function", None)  # of a function that a program holds, perhaps without a file
    if held is not None:
        return f", code {code_digest([held])}"
    try:
        file = inspect.getsourcefile(own.function)
        return f", code {hashlib.sha256(Path(file).read_bytes()).hexdigest()}" if file else ""
    except (TypeError, OSError):
        return ""
