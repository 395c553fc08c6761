"""Any PyTorch network as a measured task, and the ready constructors for a network of one's own.

A network of one's own is named `module:factory` on the command line and in configs. The factory is a function, with an
optional argument `seed`, that returns what one of the constructors here makes:

    from evoquant.models.torch_task import classification

    def factory(seed=0):
        network = ...                                     # an nn.Module that takes a batch of samples
        return classification(network, calibration=(x, y), selection=(x2, y2), test=(x3, y3))

It has to return the same network and the same data each time: workers call it too, and check.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakValueDictionary

import numpy as np

from evoquant.errors import EvoquantError, InputError
from evoquant.files import canonical_json
from evoquant.models.arrays import Arrays, digest_arrays
from evoquant.models.base import SPLITS, Block, Measure, Split
from evoquant.models.code import code_digest, structure_of
from evoquant.models.networks import require_torch
from evoquant.models.own_rounding import quantizer_of
from evoquant.models.torch_data import (
    INPUTS,
    SLICES,
    TARGETS,
    call_network,
    check_lengths,
    halves,
    labelled,
    named_inputs,
    samples_of,
    valued,
    with_slices,
    with_tokens,
)
from evoquant.scoring.statistics import ACCURACY, AGREEMENT, COSINE, PERPLEXITY, R2, Metric

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from evoquant.models.torch_layers import Layer
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.quantization.rounding import Rounder

Kind: TypeAlias = Literal["classification", "regression", "language", "embedding"]
KINDS: tuple[Kind, ...] = ("classification", "regression", "language", "embedding")
BLOCK, BATCH = 512, 256
DEFAULT_SIGNALS = ("loss", "divergence", "fisher", "gradient_sensitivity", "activation_range")


@dataclass(frozen=True)
class OwnMetric:
    """A metric of one's own.

    Attributes:
        function: (outputs, targets) of a batch, as arrays (targets None where there are none) → `(samples,)` scores.
        name: for reports.
        lower_is_better: whether retention is FP32 / quantized.
        retention: of (quantized mean score, FP32 mean score), for scores that can be 0 or negative.
    """

    function: Callable[[NDArray[np.float32], NDArray[np.generic] | None], NDArray[Any]]
    name: str = "own"
    lower_is_better: bool = False
    retention: Callable[[float, float], float] | None = None


@dataclass(frozen=True, eq=False)
class TorchTask:
    """A network and its data; see `MeasuredTask`.

    Attributes:
        name: what reports call it.
        network: float32, on the CPU; it is put in eval mode and takes no gradients from here on.
        kind: what its outputs are: `classification` logits `(n, classes, …)` (or `(n,)` and `(n, 1)`: of class 1
            against class 0), `language` logits `(n, T, V)`, `regression` values `(n, …)`, `embedding` `(n, …, D)`.
        data: each of `SPLITS` → `inputs` (`inputs.1`, …, or `inputs.NAME` for keywords), `targets` where the kind has
            them and `slices` (names) where there are any, one row a sample. Without targets a classification is
            scored by agreement with the FP32 network.
        block, batch: samples per block, of which a split's last may be smaller, and per forward pass.
        seed: of the labels and probes that signals draw.
        architecture: for `build_network`, where the network is one of ours: workers rebuild it from plain data.
        factory: `module:factory`, where it is somebody's own.
        tie_groups: name → layers that share a width; these win over what is found. A group of one unties its layer.
        types: layer → type, over what is inferred.
        own: a metric of one's own; only with `factory`, or of a network in memory.
        travels: whether a network in memory is sent to other processes, see `evoquant.models.shipped`.
        rounder: a rounding method of somebody's own.
        quantized_cache: bytes of quantized weights that a worker keeps; None decides by the network's size.
    """

    name: str
    network: torch.nn.Module
    kind: Kind
    data: Mapping[str, Arrays]
    block: int = BLOCK
    batch: int = BATCH
    seed: int = 0
    architecture: dict[str, Any] | None = None
    factory: str | None = None
    tie_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    own: OwnMetric | None = None
    travels: bool = False
    rounder: Rounder | None = None
    quantized_cache: int | None = None

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    @property
    def metric(self) -> Metric:
        """What the scores of samples mean."""
        if self.own is not None:
            return Metric(self.own.name, self.own.lower_is_better, own=self.own.retention)
        if self.kind == "classification":
            return ACCURACY if TARGETS in self.data["calibration"] else AGREEMENT
        return {"regression": R2, "language": PERPLEXITY, "embedding": COSINE}[self.kind]

    @functools.cached_property
    def variance(self) -> NDArray[np.float64] | None:
        """Of the calibration split's targets, for each output of a regression; `(1,)` or `(outputs,)`."""
        if self.kind != "regression":
            return None
        targets = self.data["calibration"][TARGETS].astype(np.float64)
        variance: NDArray[np.float64] = targets.reshape(len(targets), -1).var(axis=0)
        if not variance.all():
            raise InputError("calibration: a target has the same value on every sample, so R² has no scale.")
        return variance

    @functools.cached_property
    def found(self) -> tuple[Layer, ...]:
        """The layers that take a width, in order of execution."""
        from evoquant.models.torch_layers import find_layers

        return find_layers(self.network, self.data["calibration"], tie_groups=self.tie_groups, types=self.types)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that take a width, in order of execution."""
        return tuple(layer.name for layer in self.found)

    @functools.cached_property
    def model_digest(self) -> str:
        """sha256 over the architecture and its code, the layers that take a width, and the bytes of the weights."""
        structure = self.architecture or structure_of(self.network)
        table = [[layer.parameter, layer.channel_axis] for layer in self.found]
        return hashlib.sha256(canonical_json([structure, table, digest_arrays(self.state())]).encode()).hexdigest()

    @property
    def numeric_environment(self) -> str:
        """What besides model, block and widths may change an outcome, how outputs become scores included."""
        from evoquant.models.torch_threads import numeric_environment

        scale = "" if self.variance is None else f"; variance {self.variance.tolist()}"
        code = "" if self.own is None else f"; code {code_digest([self.own.function])}"
        return f"{numeric_environment(self.batch)}; {self.kind} by {self.metric.name}{scale}{code}"

    @functools.cached_property
    def identity(self) -> str:
        """sha256 over the network and all its data: what a worker that builds the task anew compares."""
        blocks = [block.digest for split in SPLITS for block in self.blocks(split)]
        content = [self.model_digest, self.kind, self.metric.name, self.block, self.batch, blocks]
        if self.rounder is not None:
            content.append(self.rounder.suffix)
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def payload(self, *, elsewhere: bool = False) -> dict[str, Any]:
        """For `evoquant.models.measurer.start_measurer`.

        A network of ours travels as plain data and bytes, and one in memory likewise where it `travels`. Of somebody's
        own with a factory only its name does: in this process the live network is measured, another calls the factory.

        `elsewhere`, on Ray: arrays in the place of bytes, which all workers of a node read at one place; and somebody's
        own network with its data, for there may be none, if they can be told in plain data.

        Raises:
            InputError: what should travel cannot.
        """
        from evoquant.models.torch_payload import payload_of

        return payload_of(self, elsewhere=elsewhere)

    @functools.cached_property
    def _blocks(self) -> dict[str, tuple[Block, ...]]:
        return {split: tuple(self._cut(split)) for split in SPLITS}

    def blocks(self, split: Split) -> tuple[Block, ...]:
        """The blocks of a split, in order.

        Raises:
            InputError: no such split.
        """
        if split not in SPLITS:
            raise InputError(f"task {self.name!r} has no split {split!r}; it has {', '.join(SPLITS)}.")
        return self._blocks[split]

    def _cut(self, split: Split) -> list[Block]:
        data = {name: array for name, array in self.data[split].items() if name != SLICES}
        blocks = []
        for index, start in enumerate(range(0, samples_of(data), self.block)):
            part = {name: array[start : start + self.block] for name, array in data.items()}
            blocks.append(Block(split, index, digest_arrays(part), samples_of(part)))
        return blocks

    def slices(self, split: Split) -> tuple[str, ...] | None:
        """The name of each sample's slice, where the task has slices."""
        names = self.data[split].get(SLICES)
        return None if names is None else tuple(str(name) for name in names)

    def profile(
        self,
        menu: Menu,
        measure: Measure,
        signals: Sequence[str] = DEFAULT_SIGNALS,
        *,
        fisher_samples: int | None = None,
    ) -> ModelProfile:
        """The network's profile for `menu` with these of `SIGNALS`; see `evoquant.models.torch_profile`.

        Args:
            menu: the precisions.
            measure: runs forward passes of quantized networks.
            signals: what to measure; statistics and errors of the weights are always there.
            fisher_samples: samples of the Fisher cost, spread evenly over the calibration split; 256 or all of fewer.

        Raises:
            CampaignError: the FP32 network could not be measured.
            InputError: no such signal.
            PrecisionError: the menu holds a nominal precision.
            ProfileError: the FP32 network has no retention.
        """
        from evoquant.models.torch_profile import profile_task

        return profile_task(self, menu, measure, tuple(signals), fisher_samples)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where a profile's figures come from."""
        return {
            "task": self.name,
            "seed": self.seed,
            "model": self.model_digest,
            "quantizer": quantizer_of(self),
            "environment": self.numeric_environment,
        }

    def state(self) -> Arrays:
        """Parameters and buffers by name."""
        return {name: tensor.detach().numpy() for name, tensor in self.network.state_dict().items()}


LIVE: WeakValueDictionary[str, TorchTask] = WeakValueDictionary()
"""Tasks of this process by identity, so that a network that is here is not loaded again."""


def classification(
    network: torch.nn.Module, *, calibration: Any, selection: Any, test: Any, agreement: bool = False, **options: Any
) -> TorchTask:
    """A classifier: logits `(n, classes)`, or `(n, classes, …)` for a class a position, or `(n,)` for two classes.

    Args:
        network: takes the inputs of a batch and returns logits.
        calibration, selection, test: `(inputs, labels)` each: arrays or tensors, several inputs as a tuple or dict.
            Half of `selection`, drawn with `seed`, chooses the champion; the other half is for the gate.
        agreement: the splits are inputs alone, without labels; the score is agreement with the FP32 network.
        options: `tie_groups`, `types`, `slices`, `metric`, `seed`; see `make_task`.

    Raises:
        InputError: shapes, lengths or types that do not fit; the message names the split.
    """
    splits = {"calibration": calibration, "selection": selection, "test": test}
    make = named_inputs if agreement else labelled
    return make_task("classification", network, {split: make(data, split) for split, data in splits.items()}, **options)


def regression(network: torch.nn.Module, *, calibration: Any, selection: Any, test: Any, **options: Any) -> TorchTask:
    """A regression: values of the targets' shape, scored by R²; arguments as for `classification`."""
    splits = {"calibration": calibration, "selection": selection, "test": test}
    return make_task("regression", network, {split: valued(data, split) for split, data in splits.items()}, **options)


def language_model(
    network: torch.nn.Module, *, calibration: Any, selection: Any, test: Any, **options: Any
) -> TorchTask:
    """A language model: tokens `(n, T)` → logits `(n, T, V)`, scored by perplexity.

    A split is the tokens alone, or a dict of inputs whose first are the tokens: each position predicts the next
    token, and the last none. Or it is a pair `(inputs, targets)` with targets `(n, T)`, −100 where nothing is scored.
    Other arguments as for `classification`.
    """
    splits = {"calibration": calibration, "selection": selection, "test": test}
    return make_task(
        "language", network, {split: with_tokens(data, split) for split, data in splits.items()}, **options
    )


def embedding(network: torch.nn.Module, *, calibration: Any, selection: Any, test: Any, **options: Any) -> TorchTask:
    """A network without labels: outputs `(n, …, D)`, scored by their cosine with the FP32 network's.

    A split is the inputs alone. Other arguments as for `classification`.
    """
    splits = {"calibration": calibration, "selection": selection, "test": test}
    return make_task("embedding", network, {split: named_inputs(x, split) for split, x in splits.items()}, **options)


def make_task(
    kind: Kind,
    network: torch.nn.Module,
    arrays: Mapping[str, Arrays],
    *,
    name: str = "network",
    tie_groups: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, str] | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
    metric: OwnMetric | None = None,
    block: int = BLOCK,
    batch: int = BATCH,
    seed: int = 0,
    architecture: dict[str, Any] | None = None,
) -> TorchTask:
    """A task from named arrays of calibration, selection (or selection and gate) and test.

    Args:
        kind: of `KINDS`.
        network: is put in eval mode, float32, on the CPU, and takes no gradients.
        arrays: split → arrays as in `TorchTask.data`; without `gate`, `selection` is cut in halves.
        name: for reports.
        tie_groups: group → layers that share a width.
        types: layer → type.
        slices: split (`calibration`, `selection`, `test`) → the name of each sample's slice.
        metric: scores of one's own.
        block, batch, seed, architecture: see `TorchTask`.

    Raises:
        InputError: shapes, lengths or types that do not fit; the message names the split.
    """
    require_torch("measuring a network")
    named = {split: with_slices(a, (slices or {}).get(split), split) for split, a in arrays.items()}
    for split, data in named.items():
        check_lengths(data, split)
        if INPUTS not in {key.partition(".")[0] for key in data}:
            raise InputError(f"{split}: has no inputs; it has {', '.join(data)}.")
    selection, gate = (named["selection"], named["gate"]) if "gate" in named else halves(named["selection"], seed)
    splits = {"calibration": named["calibration"], "selection": selection, "gate": gate, "test": named["test"]}
    network = network.cpu().float()
    task = TorchTask(
        name=name,
        network=network,
        kind=kind,
        data=splits,
        block=block,
        batch=batch,
        seed=seed,
        architecture=architecture,
        tie_groups=dict(tie_groups or {}),
        types=dict(types or {}),
        own=metric,
    )
    _check_outputs(task)
    return task


def _check_outputs(task: TorchTask) -> None:
    """Run the network once: it has to work, and to return what fits the targets; else an InputError says so."""
    import torch

    from evoquant.models.torch_kinds import Judge
    from evoquant.models.torch_threads import one_thread

    judge, data = Judge(task.kind, task.variance, task.own), task.data["calibration"]
    few = slice(0, 2)
    try:
        with one_thread(), torch.no_grad():
            outputs = call_network(task.network, data, few)
    except EvoquantError:
        raise
    except Exception as error:  # whatever the network may raise
        raise InputError(
            f"the network does not take the calibration inputs: {type(error).__name__}: {error}"
        ) from error
    for split, arrays in task.data.items():
        if (TARGETS in arrays) != (TARGETS in data):
            raise InputError(f"{split}: either all splits have targets or none has.")
        judge.check(outputs, min(2, samples_of(data)), data[TARGETS][few] if TARGETS in data else None)
        if TARGETS in arrays:
            judge.check_labels(outputs, arrays[TARGETS], split)
