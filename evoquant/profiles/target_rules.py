"""Rules of deployment: why a layer cannot be had at a precision, and what can be had instead.

The reasons are what really running each consumer showed; several take a recipe that they cannot keep without a word,
and put other numbers, or more bits, in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from evoquant.profiles.llama_names import gguf_name
from evoquant.quantization.precision import Precision

FLOATS = ("FP16", "BF16", "FP32")
MATRICES = ("Linear", "Attention", "Classifier")

# Weights of PyTorch's RNN, LSTM and GRU, whose gates its ONNX exporter puts in another order; cells keep theirs.
_RNN_WEIGHT = re.compile(r"(.*\.)?weight_[ih]h_l\d+(_reverse)?")


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
    def holders(self) -> int:
        """Modules that hold the weight."""

    @property
    def called(self) -> bool:
        """Whether the module that holds the weight computes with it."""

    @property
    def parameters(self) -> int:
        """Weights."""

    @property
    def tie_group(self) -> str | None:
        """Layers that must share a width."""


Rule: TypeAlias = Callable[[Facts, Precision], str | None]
"""Why a layer cannot be had at a precision, and what can be had instead; None where it can."""


def formats(*names: str, of: str) -> Rule:
    """Only these formats, narrowest first: `INT4`, `FP8`, …; else the next wider one."""

    def rule(_: Facts, precision: Precision) -> str | None:
        if precision.format in names:
            return None
        scaled = [name for name in names if name.startswith("INT") and int(name[3:]) >= precision.code_bits]
        wider = _like(precision, number_format=scaled[0]) if precision.has_scales and scaled else "FP32"
        return f"{of} {precision.format}; choose {wider}"

    return rule


def _like(precision: Precision, *, number_format: str | None = None, slices: str | None = None) -> str:
    """A precision's name with another format, or other slices (`channel`, `g32`)."""
    own, _, rest = precision.name.partition("-")
    first, dash, ending = rest.partition("-")
    return f"{number_format or own}-{slices or first}{dash}{ending}"


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


def whole_range(_: Facts, precision: Precision) -> str | None:
    """No ranges of least squared error."""
    if not precision.clipped:
        return None
    return f"the tool makes scales of the whole range by itself; choose {precision.name.replace('-mse', '')}"


def nominal(_: Facts, precision: Precision) -> str | None:
    """Real precisions, with scales."""
    if precision.granularity != "nominal":
        return None
    return f"{precision.name} is nominal and has no scales; choose {precision.name}-channel"


def divides(layer: Facts, precision: Precision) -> str | None:
    """Groups divide the channels."""
    if precision.fits(layer.shape, layer.channel_axis):
        return None
    by_channel = _like(precision, slices="channel")
    return f"groups of {precision.group_size} do not divide the weights of a channel; choose {by_channel}"


def only(types: Iterable[str], of: str) -> Rule:
    """Other layers stay as they are: FP32."""
    known = tuple(types)

    def rule(layer: Facts, precision: Precision) -> str | None:
        if layer.type in known or precision.name == "FP32":
            return None
        return f"{of} leaves {layer.type} layers in floating point without a word; choose FP32"

    return rule


def held_by_graph(layer: Facts, precision: Precision) -> str | None:
    """PyTorch's exporter cuts the weights of RNN, LSTM and GRU up in the graph, which not every consumer folds."""
    if layer.type != "Recurrent" or precision.name == "FP32" or not _RNN_WEIGHT.fullmatch(layer.name):
        return None
    return "the graph cuts recurrent weights of PyTorch up, which nobody has seen it take; choose FP32"


def rows_of_outputs(layer: Facts, precision: Precision) -> str | None:
    """What is quantized is a matrix of (outputs, inputs)."""
    if not precision.has_scales or (len(layer.shape) == 2 and layer.channel_axis == 0):
        return None
    return "only matrices of (outputs, inputs) are quantized; choose FP32"


def not_past_module(layer: Facts, precision: Precision) -> str | None:
    """PyTorch's own attention reads its projections itself; that of its inputs has not even a module."""
    own = layer.type == "Attention" and layer.name.endswith("in_proj")
    if not precision.has_scales or (layer.called and not own):
        return None
    return "what computes with this weight is not the module that holds it, as in nn.MultiheadAttention; choose FP32"


def if_not_convolution(rule: Rule) -> Rule:
    """A rule that lets convolutions pass."""
    return lambda layer, precision: None if layer.type == "Conv" else rule(layer, precision)


def llama_names(layer: Facts, _: Precision) -> str | None:
    """Layers of a Llama, as Hugging Face names them."""
    if gguf_name(layer.name) is not None:
        return None
    return (
        "llama.cpp has no architecture with such a layer (it wants model.layers.0.mlp.up_proj and the like); "
        "choose the target onnx or openvino"
    )


def plain_float(*names: str, why: str) -> Rule:
    """Of the plain floats only these."""

    def rule(_: Facts, precision: Precision) -> str | None:
        if precision.granularity != "none" or precision.name in names:
            return None
        return f"{why}; choose {' or '.join(names)}"

    return rule


def slices(allowed: Mapping[str, Sequence[str]], of: str) -> Rule:
    """For each format, only these granularities: tensor, channel, group, or a group size as g32."""

    def rule(layer: Facts, precision: Precision) -> str | None:
        options = allowed.get(precision.format)
        size = f"g{precision.group_size}"
        if options is None or not precision.has_scales or precision.granularity in options or size in options:
            return None
        names = [_like(precision, slices="g32" if name == "group" else name) for name in options]
        possible = [name for name in names if Precision.parse(name).fits(layer.shape, layer.channel_axis)]
        return f"{of} has no {precision.format} by {precision.granularity}; choose {' or '.join(possible) or 'FP32'}"

    return rule


def stored_in_8(_: Facts, precision: Precision) -> str | None:
    """Integers below 8 bits are stored in 8."""
    if not precision.is_integer or precision.code_bits == 8:
        return None
    kept = _like(precision, number_format="INT8")
    return f"codes of {precision.code_bits} bits are stored in 8, so the promised size is not kept; choose {kept}"


def plain_convolution(layer: Facts, precision: Precision) -> str | None:
    """Convolutions are two-dimensional, not transposed, without groups; INT8 by channel."""
    if layer.type != "Conv" or not precision.has_scales:
        return None
    if len(layer.shape) != 4 or layer.groups != 1 or layer.channel_axis != 0:
        return "only Conv2d without groups is quantized; choose FP32"
    if precision.format == "INT8" and precision.granularity == "channel":
        return None
    return f"convolutions have no {precision.name}; choose INT8-channel"


def blocks_of(size: int) -> Rule:
    """Blocks of so many weights along the rows of a matrix."""

    def rule(layer: Facts, precision: Precision) -> str | None:
        if not precision.has_scales:
            return None
        columns = layer.shape[-1]
        if columns % size:
            return f"{columns} columns are no multiple of {size}; choose FP16"
        return None

    return rule


def blocks_of_inputs(layer: Facts, precision: Precision) -> str | None:
    """Groups hold whole input channels: of a convolution all places of its kernel."""
    if precision.granularity != "group":
        return None
    kernel = math.prod(layer.shape[2:])
    if layer.channel_axis == 0 and len(layer.shape) > 1 and precision.group_size % kernel == 0:
        return None
    by_channel = _like(precision, slices="channel")
    return (
        f"blocks hold whole input channels, {kernel} weights each, of a tensor with outputs first; choose {by_channel}"
    )


def even_rows(layer: Facts, precision: Precision) -> str | None:
    """INT4 is packed in pairs of rows."""
    if precision.format != "INT4" or layer.shape[0] % 2 == 0:
        return None
    return f"INT4 is packed in pairs of rows, and there are {layer.shape[0]}; choose INT8-channel"


def several_rows(layer: Facts, precision: Precision) -> str | None:
    """INT8 by channel of a single row cannot be packed."""
    if precision.format != "INT8" or layer.shape[0] > 1:
        return None
    return "INT8 of a single row cannot be packed; choose FP8-tensor"


def untied(layer: Facts, precision: Precision) -> str | None:
    """Weights that several modules hold stay as they are."""
    if layer.holders == 1 or not precision.has_scales:
        return None
    return "weights that several modules hold (tied) cannot be quantized there; choose FP32, or untie them"


def embedding_of_8(layer: Facts, precision: Precision) -> str | None:
    """Embeddings in 8 bits or as they are."""
    if layer.type != "Embedding" or not precision.has_scales or precision.code_bits == 8:
        return None
    return f"transformers does not load embeddings in less than 8 bits; choose {_like(precision, number_format='INT8')}"


def vectors_stay(layer: Facts, precision: Precision) -> str | None:
    """Tensors of one axis are FP32."""
    if len(layer.shape) > 1 or precision.name == "FP32":
        return None
    return "vectors stay in FP32; choose FP32"


def if_not_vector(layer: Facts, precision: Precision) -> str | None:
    """Tensors of one axis have no scales."""
    if len(layer.shape) > 1 or not precision.has_scales:
        return None
    return "vectors are left as they are without a word; choose FP32"


def mobile(layer: Facts, precision: Precision) -> str | None:
    """XNNPACK: embeddings weight-only, matrices with INT8 inputs: INT4 by channel or groups of 32, 64, …, or INT8."""
    plain = precision.name.removesuffix("-a8")
    if not precision.has_scales:
        return None
    if layer.type == "Embedding":
        return None if precision.name == plain else f"embeddings read no activations; choose {plain}"
    if precision.code_bits == 2:
        return f"INT2 is for embeddings; choose {_like(precision, number_format='INT4')}"
    if precision.granularity == "group" and (precision.code_bits == 8 or precision.group_size % 32):
        by_channel = _like(precision, slices="channel")
        return f"groups are for INT4 and hold a multiple of 32 weights; choose {by_channel}"
    if precision.activation_bits is None:
        return f"weight-only layers have no kernel; choose {plain}-a8"
    return None


# What a target takes, and people should know.


def if_any(fact: Callable[[Facts, Precision], bool], reason: str) -> Rule:
    """A reason wherever a fact holds."""

    def rule(layer: Facts, precision: Precision) -> str | None:
        return reason if fact(layer, precision) else None

    return rule


def of_format(*names: str) -> Callable[[Facts, Precision], bool]:
    """Whether a precision is of one of these formats."""
    return lambda _, precision: precision.format in names


def off_marlin(layer: Facts, precision: Precision) -> bool:
    """Whether vLLM's fast kernels lack a matrix: INT4 and INT8, by channel or groups of 32, 64 or 128, full tiles."""
    if precision.format not in ("INT4", "INT8") or layer.type == "Embedding":
        return False
    rows, columns = layer.shape[0], layer.shape[-1]
    return precision.group_size not in (0, 32, 64, 128) or rows % 64 != 0 or columns % 128 != 0


def unpacked(layer: Facts, precision: Precision) -> bool:
    """Whether MatMulNBits, which has no other groups and only matrices, leaves a layer to DequantizeLinear."""
    packed = (
        precision.is_integer and precision.code_bits in (2, 4, 8) and precision.group_size in (16, 32, 64, 128, 256)
    )
    return precision.has_scales and not (packed and layer.type in MATRICES and len(layer.shape) == 2)
