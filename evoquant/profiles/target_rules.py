"""Rules of deployment: why a layer cannot be had at a precision, and what can be had instead.

The reasons are what really running each consumer showed; several take a recipe that they cannot keep without a word,
and put other numbers, or more bits, in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from evoquant.quantization.precision import Precision

FLOATS = ("FP16", "BF16", "FP32")
MATRICES = ("Linear", "Attention", "Classifier")


class Facts(Protocol):
    """What rules may know of a layer; see `LayerProfile`."""

    @property
    def name(self) -> str:
        """Unique in the model."""

    @property
    def type(self) -> str:
        """Linear, Conv, Embedding, …."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""

    @property
    def channel_axis(self) -> int | None:
        """Of the output channels."""

    @property
    def groups(self) -> int:
        """Convolution groups."""

    @property
    def parameters(self) -> int:
        """Weights."""

    @property
    def tie_group(self) -> str | None:
        """Layers that must share a width."""


Rule: TypeAlias = "Callable[[Facts, Precision], str | None]"
"""Why a layer cannot be had at a precision, and what can be had instead; None where it can."""


def formats(*names: str, of: str, instead: str) -> Rule:
    """Only these formats: `INT4`, `FP8`, …."""

    def rule(_: Facts, precision: Precision) -> str | None:
        if precision.format in names:
            return None
        return f"{of} {precision.format}; choose {instead}"

    return rule


def no_activations(_: Facts, precision: Precision) -> str | None:
    """Weight-only."""
    if precision.activation_bits is None:
        return None
    plain = precision.name.removesuffix("-a8")
    return f"activations stay in floating point in this export; choose {plain}, measured without -a8"


def symmetric(_: Facts, precision: Precision) -> str | None:
    """No zero points."""
    if not precision.asymmetric:
        return None
    return f"zero points are not taken; choose {precision.name.replace('-asym', '')}"


def nominal(_: Facts, precision: Precision) -> str | None:
    """Real precisions, with scales."""
    if precision.granularity != "nominal":
        return None
    return f"{precision.name} is nominal and has no scales; choose {precision.name}-channel"


def divides(layer: Facts, precision: Precision) -> str | None:
    """Groups divide the channels."""
    if precision.fits(layer.shape, layer.channel_axis):
        return None
    return f"groups of {precision.group_size} do not divide the weights of a channel; choose a granularity of -channel"


def only(types: Iterable[str], of: str) -> Rule:
    """Other layers stay as they are: FP32."""
    known = tuple(types)

    def rule(layer: Facts, precision: Precision) -> str | None:
        if layer.type in known or precision.name == "FP32":
            return None
        return f"{of} leaves {layer.type} layers in floating point without a word; choose FP32"

    return rule


def plain_float(*names: str, why: str) -> Rule:
    """Of the plain floats only these."""

    def rule(_: Facts, precision: Precision) -> str | None:
        if precision.granularity != "none" or precision.name in names:
            return None
        return f"{why}; choose {' or '.join(names)}"

    return rule


def slices(allowed: Mapping[str, Sequence[str]], of: str) -> Rule:
    """For each format, only these granularities: tensor, channel, group, or a group size as g32."""

    def rule(_: Facts, precision: Precision) -> str | None:
        options = allowed.get(precision.format)
        size = f"g{precision.group_size}"
        if options is None or not precision.has_scales or precision.granularity in options or size in options:
            return None
        names = " or ".join(f"{precision.format}-{'g32' if option == 'group' else option}" for option in options)
        return f"{of} has no {precision.format} by {precision.granularity}; choose {names}"

    return rule


def stored_in_8(_: Facts, precision: Precision) -> str | None:
    """Integers below 8 bits are stored in 8."""
    if not precision.is_integer or precision.code_bits == 8:
        return None
    return f"codes of {precision.code_bits} bits are stored in 8, so the promised size would not be kept; choose INT8"


def plain_convolution(layer: Facts, precision: Precision) -> str | None:
    """Convolutions are two-dimensional, without groups, INT8 by channel."""
    if layer.type != "Conv" or precision.name in FLOATS:
        return None
    if len(layer.shape) == 4 and layer.groups == 1 and precision.is_integer and precision.granularity == "channel":
        return None
    return "convolutions take INT8-channel in two dimensions without groups only; choose FP32"


def blocks_of(size: int) -> Rule:
    """Blocks of so many weights along the rows of a matrix."""

    def rule(layer: Facts, precision: Precision) -> str | None:
        if not precision.has_scales:
            return None
        columns = layer.shape[-1]
        if len(layer.shape) != 2 or layer.channel_axis != 0:
            return "blocks run along the last axis of a matrix; choose FP32"
        if columns % size:
            return f"{columns} columns are no multiple of {size}; choose FP16"
        return None

    return rule


def vectors_stay(layer: Facts, precision: Precision) -> str | None:
    """Tensors of one axis are FP32."""
    if len(layer.shape) > 1 or precision.name == "FP32":
        return None
    return "vectors stay in FP32; choose FP32"


def at_least(weights: int) -> Rule:
    """Smaller tensors are skipped."""

    def rule(layer: Facts, precision: Precision) -> str | None:
        if not precision.has_scales or layer.parameters >= weights:
            return None
        return f"tensors of fewer than {weights} weights are left as they are without a word; choose FP32"

    return rule


def mobile(layer: Facts, precision: Precision) -> str | None:
    """XNNPACK: embeddings weight-only, everything else with INT8 activations."""
    if precision.name in FLOATS:
        return None
    if layer.type == "Embedding":
        return None if precision.activation_bits is None else f"choose {precision.name.removesuffix('-a8')}"
    if precision.activation_bits is None:
        return "weight-only layers have no kernel; choose INT8-channel-a8, or INT4-g32-a8 for a Linear"
    if layer.type not in MATRICES and precision.code_bits != 8:
        return "layers other than Linear and Embedding take 8 bits; choose INT8-channel-a8"
    return None
