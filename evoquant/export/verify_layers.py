"""The bench that a deployed model is verified on; and which of its layers is at fault where outputs differ."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError
from evoquant.export.consumers import LEAST_LOG
from evoquant.export.consumers.launch import run_consumer
from evoquant.export.recipe import Recipe, promise_of
from evoquant.models.base import REFERENCE
from evoquant.models.deployable import Deployable
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.export.consumers.launch import Answer, Consumer
    from evoquant.export.writers import Write
    from evoquant.models.base import Split
    from evoquant.scoring.statistics import Metric

ONE_BY_ONE = 64  # layers that are each tried alone; more are halved first
_CHUNK_BYTES = 2**29  # of models that lie on the disk at once while a layer is looked for
STEPS = 4  # of the outputs' type, where those are coarser than the tolerance


@dataclass(frozen=True, eq=False)
class Bench:
    """What is verified, with what, and where.

    Attributes:
        recipe, ready, write, metric, consumer, split: as given to `verify_recipe`.
        spans: (start, stop) of each batch of samples.
        names: of the inputs.
        inputs: the .npz file that holds them.
        folder: for models and outputs.
    """

    recipe: Recipe
    ready: Deployable
    write: Write
    metric: Metric
    consumer: Consumer
    split: Split
    spans: Sequence[tuple[int, int]]
    names: tuple[str, ...]
    inputs: Path
    folder: Path

    @property
    def widths(self) -> tuple[str, ...]:
        """Of the recipe's layers."""
        return tuple(layer.precision for layer in self.recipe.layers)

    def written(self, recipe: Recipe, name: str) -> list[Path]:
        """A recipe's files, the main one first, in a folder of that name.

        Raises:
            InputError: it cannot be written.
        """
        place = self.folder / name
        place.mkdir()
        return self.write(recipe, self.ready, place / f"model{self.consumer.suffix}")

    def run(
        self,
        models: Mapping[str, Path],
        name: str,
        batches: int,
        repeats: int = 0,
        generate: tuple[int, int] | None = None,
    ) -> Answer:
        """Run models in a fresh process on the first batches; outputs lie in the folder `name`."""
        network = self.ready.recreation() if self.consumer.network else None
        return run_consumer(
            self.consumer,
            models,
            self.inputs,
            self.names,
            batches,
            self.ready.names,
            self.folder / name,
            repeats,
            network,
            generate,
        )

    def measured(self, span: tuple[int, int], widths: tuple[str, ...]) -> list[NDArray[np.generic]]:
        """Outputs of the network as it is measured, in the consumer's form.

        Args:
            span: (start, stop) of the samples.
            widths: of the layers.
        """
        outputs = self.ready.outputs(self.split, *span, widths)
        return [_log_softmax(one) for one in outputs] if self.consumer.log_probabilities else outputs


def _log_softmax(logits: NDArray[np.generic]) -> NDArray[np.generic]:
    """Over the last axis, at least `LEAST_LOG`, in the type of the logits."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    return np.maximum(exact, LEAST_LOG).astype(logits.dtype)


@dataclass
class Largest:
    """How far outputs are from their references, batch by batch.

    Attributes:
        tolerated: by the consumer, of `relative`.
        difference, reference: output → largest absolute difference, and largest absolute reference.
        step: the type of the outputs resolves so much of 1.
    """

    tolerated: float
    difference: dict[int, float] = field(default_factory=dict)
    reference: dict[int, float] = field(default_factory=dict)
    step: float = 0.0

    def add(self, outputs: Sequence[NDArray[np.generic]], references: Sequence[NDArray[np.generic]]) -> None:
        """Take in one batch of all outputs."""
        for index, (ours, theirs) in enumerate(zip(outputs, references, strict=True)):
            if not np.issubdtype(theirs.dtype, np.floating):
                continue  # indices and flags: what they come from is among the floats, or scored
            if ours.dtype == np.float16:
                self.step = float(np.finfo(np.float16).eps)
            difference, largest = _apart(ours, theirs)
            self.difference[index] = max(self.difference.get(index, 0.0), difference)
            self.reference[index] = max(self.reference.get(index, 0.0), largest)

    @property
    def relative(self) -> float:
        """Largest difference over the largest absolute reference of its output; infinity where none can be told."""
        found = [
            0.0 if not apart else apart / self.reference[index] if self.reference[index] else math.inf
            for index, apart in self.difference.items()
        ]
        return max(found, default=0.0)

    @property
    def tolerance(self) -> float:
        """What `relative` may be."""
        return max(self.tolerated, STEPS * self.step)


def _apart(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> tuple[float, float]:
    """Largest absolute difference, and largest absolute reference; what is not finite has to be equal."""
    if ours.shape != theirs.shape:
        return math.inf, 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf, 0.0
    return float(np.abs(a - b)[finite].max(initial=0.0)), float(np.abs(b)[finite].max(initial=0.0))


def only(recipe: Recipe, ready: Deployable, kept: set[str]) -> Recipe:
    """The recipe with these layers at their widths and all others at FP32, as they are.

    Args:
        recipe: with its numbers.
        ready: the network.
        kept: names of layers.
    """
    full = Precision.parse(REFERENCE)
    tensors = {name: array for name, array in recipe.tensors.items() if name.rpartition(":")[0] in kept}
    layers = []
    for layer in recipe.layers:
        if layer.name not in kept:
            update = {"precision": full.name, "granularity": full.granularity, "effective_bits": 32.0}
            layer = layer.model_copy(update=update)
            tensors[f"{layer.name}:values"] = np.ascontiguousarray(ready.weight(layer.name), dtype=np.float32)
        layers.append(layer)
    promise = promise_of(layers, recipe.constant_bits, {})
    return replace(recipe, promise=promise, layers=tuple(layers), tensors=tensors)


def layer_at_fault(bench: Bench, model_bytes: int) -> tuple[str, float] | None:
    """The layer whose outputs differ most where it alone is at its width, on the first batch, and by how much.

    Args:
        bench: what is verified.
        model_bytes: of the FP32 model's files, so that not too many lie on the disk at once.

    Returns:
        Its name and its relative difference; None where not even that can be written or run.
    """
    names = [layer.name for layer in bench.recipe.layers if layer.precision != REFERENCE]
    try:
        while len(names) > ONE_BY_ONE:
            halves = names[: len(names) // 2], names[len(names) // 2 :]
            first, second = _differences(bench, [tuple(half) for half in halves], model_bytes)
            names = halves[int(second > first)]
        found = _differences(bench, [(name,) for name in names], model_bytes)
    except InputError:
        return None
    return max(zip(names, found, strict=True), key=lambda pair: pair[1], default=None)


def _differences(bench: Bench, groups: Sequence[tuple[str, ...]], model_bytes: int) -> list[float]:
    """For each group of layers the relative difference of the outputs where it alone is at its widths."""
    at_once = max(1, _CHUNK_BYTES // max(model_bytes, 1))
    found = []
    for start in range(0, len(groups), at_once):
        found += _chunk(bench, groups[start : start + at_once])
    return found


def _chunk(bench: Bench, groups: Sequence[tuple[str, ...]]) -> list[float]:
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        inside = replace(bench, folder=Path(folder))
        models, widths = {}, {}
        for index, group in enumerate(groups):
            recipe = only(bench.recipe, bench.ready, set(group))
            models[f"m{index}"] = inside.written(recipe, f"model{index}")[0]
            widths[f"m{index}"] = tuple(layer.precision for layer in recipe.layers)
        answer = inside.run(models, "run", 1)
        if answer.fault:
            raise InputError(answer.fault)
        found = []
        for name in models:
            with np.load(Path(folder) / "run" / f"{name}.npz", allow_pickle=False) as file:
                outputs = [file[f"0.{i}"] for i in range(len(bench.ready.names))]
            largest = Largest(bench.consumer.outputs)
            largest.add(outputs, bench.measured(bench.spans[0], widths[name]))
            found.append(largest.relative)
    return found
