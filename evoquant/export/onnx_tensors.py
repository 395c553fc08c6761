"""A layer's codes and scales as ONNX nodes that give its weight back exactly.

    integers, FP8:  codes ─► DequantizeLinear ─► [Reshape] ─► [Transpose] ─► [Cast] ─► the consumer
                    scales in FP16 ─► Cast to FP32 ─┘
    FP16, BF16:     values ─► Cast ─► …

Scales are FP16 in the file and FP32 in the product: an FP16 product would round. Weights are stored with the output
channels first, a MatMul's too, which reads them through Transpose. Groups run along a matrix of (channels, weights per
channel), whatever the tensor's shape is.

onnxruntime's optimizer turns DequantizeLinear and MatMul side by side into MatMulNBits with accuracy level 4, which
rounds activations to INT8 without a word. A Transpose between keeps them apart, but the optimizer moves it to the
other side of a DequantizeLinear by channel or by tensor. It does not of one by blocks: so the scales of a matrix are
those of blocks, be the block a whole channel or the whole matrix; `per_axis` leaves that out, for consumers that have
no blocks of such kinds.
Imported only once onnx is known to be there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from evoquant.quantization.formats import bf16_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.quantization.numerics import Quantized
    from evoquant.quantization.precision import Precision

_TYPES: dict[tuple[str, bool], type] = {
    ("INT2", False): ml_dtypes.int2,
    ("INT2", True): ml_dtypes.uint2,
    ("INT4", False): ml_dtypes.int4,
    ("INT4", True): ml_dtypes.uint4,
    ("INT8", False): np.int8,
    ("INT8", True): np.uint8,
}
_FLOATS = ("FP16", "BF16", "FP32")
OPSET, OPSET_OF_INT2 = 21, 25
IR, IR_OF_INT2 = 10, 13


@dataclass
class Parts:
    """Initializers and nodes that make one value.

    Attributes:
        name: prefix of all names.
        value: name of the value so far.
        shape: its shape.
    """

    name: str
    value: str = ""
    shape: tuple[int, ...] = ()
    initializers: list[TensorProto] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)

    def constant(self, part: str, array: NDArray[np.generic]) -> str:
        """An initializer; its name."""
        name = f"{self.name}.{part}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def then(self, operator: str, inputs: Sequence[str], part: str, **attributes: Any) -> str:
        """A node of one output; its name, which becomes the value."""
        self.value = f"{self.name}.{part}"
        self.nodes.append(helper.make_node(operator, list(inputs), [self.value], f"{self.name}/{part}", **attributes))
        return self.value

    def reshaped(self, shape: tuple[int, ...]) -> None:
        """The value in another shape."""
        if self.shape != shape:
            target = self.constant("shape", np.array(shape, dtype=np.int64))
            self.then("Reshape", [self.value, target], "reshaped")
            self.shape = shape

    def transposed(self, order: tuple[int, ...]) -> None:
        """The value with its axes in another order."""
        if order != tuple(range(len(order))):
            self.then("Transpose", [self.value], "transposed", perm=list(order))
            self.shape = tuple(self.shape[axis] for axis in order)

    def cast(self, stored: str) -> None:
        """The value, FP32 so far, in the type that the graph stores the weight in."""
        if stored != "float32":
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(stored))
            self.then("Cast", [self.value], "stored", to=kind)


def has_type(precision: Precision) -> bool:
    """Whether ONNX has a type for the codes, and activations stay as they are."""
    known = (precision.format, precision.asymmetric) in _TYPES or precision.format in ("FP8", *_FLOATS)
    return known and precision.activation_bits is None


def quantized_parts(name: str, quantized: Quantized, *, per_axis: bool = False) -> Parts:
    """Codes, scales and zero points that make the weight, its channels first: `Parts.shape` says in which shape.

    Args:
        name: prefix of all names.
        quantized: the weight.
        per_axis: no blocks by channel or tensor.
    """
    precision = quantized.precision
    codes, axis = quantized.codes, quantized.channel_axis
    moved = codes if axis is None else np.moveaxis(codes, axis, 0)
    parts = Parts(name)
    channels = 1 if axis is None else moved.shape[0]
    if precision.granularity == "group":
        stored, block = moved.reshape(channels, -1), precision.group_size
    elif moved.ndim == 2 and not per_axis:  # see above: blocks
        rows = 1 if precision.granularity == "tensor" else channels
        stored = moved.reshape(rows, -1)
        block = stored.shape[1]
    else:
        stored, block = moved, 0
    by_channel = precision.granularity == "channel" and axis is not None
    shape: tuple[int, ...] = (channels,) if by_channel else ()
    how = {"axis": 0} if by_channel else {}
    if block:
        shape, how = (len(stored), stored.shape[1] // block), {"axis": 1, "block_size": block}
    inputs = [_codes(parts, "codes", stored, precision.format, precision.asymmetric)]
    scales = parts.constant("scales", quantized.scales.reshape(shape))
    inputs.append(parts.then("Cast", [scales], "scales_fp32", to=TensorProto.FLOAT))
    if quantized.zero_points is not None:
        zero_points = quantized.zero_points.reshape(shape)
        inputs.append(_codes(parts, "zero_points", zero_points, precision.format, asymmetric=True))
    parts.then("DequantizeLinear", inputs, "dequantized", **how)
    parts.shape = stored.shape
    parts.reshaped(moved.shape)
    return parts


def _codes(parts: Parts, part: str, codes: NDArray[np.generic], number_format: str, asymmetric: bool) -> str:
    if number_format == "FP8":
        return parts.constant(part, codes.view(np.uint8).view(ml_dtypes.float8_e4m3fn))
    return parts.constant(part, codes.astype(_TYPES[number_format, asymmetric]))


def float_parts(name: str, values: NDArray[np.float32], number_format: str) -> Parts:
    """The weight as FP16, BF16 or FP32 values, FP32 in the end."""
    parts = Parts(name, shape=values.shape)
    if number_format == "FP16":
        stored = parts.constant("values", values.astype(np.float16))
    elif number_format == "BF16":
        stored = parts.constant("values", bf16_bits(np.ascontiguousarray(values)).view(ml_dtypes.bfloat16))
    else:
        parts.value = parts.constant("values", values)
        return parts
    parts.then("Cast", [stored], "fp32", to=TensorProto.FLOAT)
    return parts


def order_back(shape: tuple[int, ...], channel_axis: int | None, transposed: bool) -> tuple[int, ...]:
    """Axes of a weight with its channels first, in the order in which the graph wants them.

    Args:
        shape: of the weight, channels where they belong.
        channel_axis: where that is.
        transposed: whether the graph has all axes in reverse order.
    """
    axes = list(range(len(shape)))
    moved = axes if channel_axis is None else [channel_axis, *axes[:channel_axis], *axes[channel_axis + 1 :]]
    wanted = axes[::-1] if transposed else axes
    return tuple(moved.index(axis) for axis in wanted)


def fits_fp32(original: NDArray[np.generic]) -> bool:
    """Whether a weight takes 64 bits without need."""
    return original.dtype == np.float64 and bool((original.astype(np.float32) == original).all())


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's numbers in the file."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    bits: dict[int, int] = {TensorProto.INT2: 2, TensorProto.UINT2: 2, TensorProto.INT4: 4, TensorProto.UINT4: 4}
    size = bits.get(tensor.data_type) or 8 * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    count: int = math.prod(tensor.dims)
    return -(-count * size // 8)
