"""OpenVINO IR: the network with low-bit constants, which OpenVINO expands to exactly the measured weights.

    with scales:    codes ─► Convert ─► [Subtract zero points] ─► Multiply ─► [Reshape] ─► [Transpose] ─► the consumer
                    scales in FP16 ─► Convert to FP32 ───────────────┘
    FP16, BF16:     values ─► Convert ─► …

Scales are FP16 in the file and FP32 in the product: an FP16 product would round. Of 2, 3 and 6 bits there is no signed
type: symmetric codes of b bits are stored plus 2^(b−1), with that as zero point. Groups run along a matrix of
(channels, weights per channel), whatever the tensor's shape is. The graph is the ONNX one, read while its weights are
inputs: what OpenVINO's reader does to constants, such as folding what stands between a weight and its reader, cannot
happen to them, and each is found by its name. MatMul and Gemm keep codes of 2, 4 and 8 bits packed in memory, FP8
aside; everything else OpenVINO expands to floats as it loads.
Imported only once openvino is known to be there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino
from openvino import Type, opset13

from evoquant.errors import InputError
from evoquant.export.as_onnx import PREFIX
from evoquant.export.onnx_tensors import fits_fp32, order_back
from evoquant.files import write_atomic
from evoquant.quantization.formats import bf16_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable, Graph
    from evoquant.models.onnx_layers import OnnxLayer
    from evoquant.quantization.numerics import Quantized

_ROUNDED_GROUPS = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
EXACT = {"INFERENCE_PRECISION_HINT": "f32", _ROUNDED_GROUPS: "0"}
"""Properties of `compile_model` with which the CPU plugin computes in FP32; by itself it takes BF16 where the processor
has it, and rounds the inputs of matrices with integer weights to INT8. The files ask for the second, which is all that
a file can ask for."""

SUFFIX = ".xml"
_BESIDE = ".bin"

_SIGNED = {"INT4": Type.i4, "INT8": Type.i8, "FP8": Type.f8e4m3, "NF4": Type.nf4}
_UNSIGNED = {"INT2": Type.u2, "INT3": Type.u3, "INT4": Type.u4, "INT6": Type.u6, "INT8": Type.u8}
_SPLIT = {3: (2, 1), 6: (4, 2)}
"""Width of codes that do not fit a byte evenly → bits of a code in the first two of three bytes, and in the third."""

_TYPES = {"float16": Type.f16, "float32": Type.f32, "float64": Type.f64}
_WHOLE = (Type.i64, Type.i32, Type.u64, Type.u32, Type.boolean, Type.string)
"""Types of shapes, indices and conditions: no numbers of the network."""


def openvino_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write the network with the recipe's weights to `path` (ending in .xml), its numbers to a .bin beside it.

    The numbers come first, so that a network that is there has its weights.

    Args:
        recipe: with its numbers.
        ready: the network.
        path: of the .xml file.

    Returns:
        Both paths, the .xml first.

    Raises:
        InputError: another ending, a file cannot be written, or as `openvino_model`.
    """
    if path.suffix != SUFFIX:
        raise InputError(
            f"{path}: OpenVINO IR is an {SUFFIX} file; its numbers go into {path.stem}{_BESIDE} beside it."
        )
    model = openvino_model(ready.graph(), recipe)
    beside = path.with_suffix(_BESIDE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            saved = Path(folder) / path.name
            openvino.save_model(model, saved, compress_to_fp16=False)
            path.unlink(missing_ok=True)  # an old network beside new weights would load without a word
            write_atomic(beside, saved.with_suffix(_BESIDE).read_bytes())
            write_atomic(path, saved.read_bytes())
    except OSError as fault:
        raise InputError(f"{path}: cannot be written: {fault.strerror or fault}.") from None
    return [path, beside]


def openvino_model(graph: Graph, recipe: Recipe) -> openvino.Model:
    """The graph with the recipe's weights in it; a weight that nothing reads is left out.

    Args:
        graph: its weights are inputs.
        recipe: with its numbers.

    Raises:
        InputError: no OpenVINO type holds a layer at its precision, or OpenVINO cannot read the graph.
    """
    by_name = {layer.name: layer for layer in recipe.layers}
    _require_types(recipe)
    model = _read(graph.opened.proto.SerializeToString(), recipe.model)
    inputs = {parameter.get_friendly_name(): parameter for parameter in model.get_parameters()}
    holders = Counter(view.layer for view in graph.views)
    made: dict[str, openvino.Output] = {}
    for layer, view in zip(graph.opened.layers, graph.views, strict=True):
        recipe_layer = by_name[view.layer]
        original = graph.opened.weights[layer.name].reshape(layer.dims)
        if recipe_layer.precision == "FP32" and holders[view.layer] == 1 and not fits_fp32(original):
            value = _constant(f"{PREFIX}{layer.input}", original, _TYPES[layer.stored])
        else:
            if view.layer not in made:  # one copy, however many tensors of the graph are the layer
                made[view.layer] = _weight(recipe, recipe_layer)
            value = _placed(made[view.layer], recipe_layer, layer, view.transposed)
        parameter = inputs[layer.input]
        for reader in parameter.output(0).get_target_inputs():
            reader.replace_source_output(value)
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    _name_the_rest(model)
    model.set_rt_info("0", ["runtime_options", _ROUNDED_GROUPS])
    return model


def _require_types(recipe: Recipe) -> None:
    for layer in recipe.layers:
        width = layer.width
        if width.has_scales and width.format not in (_UNSIGNED if width.asymmetric else {**_UNSIGNED, **_SIGNED}):
            raise InputError(
                f"layer {layer.name!r}: no OpenVINO type holds {layer.precision}; choose "
                f"{', '.join(_UNSIGNED)}, FP8 or NF4."
            )
        if width.activation_bits is not None:
            raise InputError(
                f"layer {layer.name!r}: {layer.precision} was measured with inputs in INT8, and here they stay in "
                f"floating point; choose {layer.precision.removesuffix('-a8')}."
            )


def _read(content: bytes, name: str) -> openvino.Model:
    try:
        return openvino.Core().read_model(content)
    except Exception as error:  # the library's own classes; what it cannot do stands in the text
        text = " ".join(str(error).split())[:500]
        raise InputError(
            f"{name}: OpenVINO cannot read the network: {text} Export it to another target (onnx), or write the "
            f"operator in others that OpenVINO has."
        ) from None


def _weight(recipe: Recipe, layer: RecipeLayer) -> openvino.Output:
    """The layer's weight in FP32; one with scales has its channels first."""
    name = f"{PREFIX}{layer.name}"
    if layer.width.has_scales:
        return _dequantized(name, recipe.quantized(layer))
    values = recipe.values(layer)
    if layer.width.format == "FP32":
        return _constant(f"{name}.values", values, Type.f32)
    if layer.width.format == "BF16":
        stored = _constant(f"{name}.values", bf16_bits(np.ascontiguousarray(values)), Type.bf16)
    else:
        stored = _constant(f"{name}.values", values.astype(np.float16), Type.f16)
    return _as_type(stored, Type.f32, f"{name}.fp32")


def _dequantized(name: str, quantized: Quantized) -> openvino.Output:
    """(code − zero point) · scale, in the shape of the weight with its channels first.

    Groups are an axis of their own while they are scaled: (channels, groups of a channel, weights of a group).
    """
    precision, axis = quantized.precision, quantized.channel_axis
    codes = quantized.codes if axis is None else np.moveaxis(quantized.codes, axis, 0)
    moved = codes.shape
    channels = 1 if axis is None else moved[0]
    if precision.granularity == "group":
        codes = codes.reshape(channels, -1, precision.group_size)
        slices: tuple[int, ...] = (channels, codes.shape[1], 1)
    else:
        by_channel = precision.granularity == "channel"
        slices = tuple(channels if by_channel and at == 0 else 1 for at in range(len(moved)))
    zero_points = quantized.zero_points
    kind = _UNSIGNED[precision.format] if precision.asymmetric else _SIGNED.get(precision.format)
    if kind is None:
        kind, zero = _UNSIGNED[precision.format], 1 << precision.code_bits - 1
        codes, zero_points = (codes + zero).astype(np.uint8), np.full(1, zero, dtype=np.uint8)
    value = _as_type(_constant(f"{name}.codes", codes, kind), Type.f32, f"{name}.codes_fp32")
    if zero_points is not None:
        zeros = zero_points.reshape(slices if zero_points.size > 1 else (1,) * codes.ndim)
        stored = _as_type(_constant(f"{name}.zero_points", zeros, kind), Type.f32, f"{name}.zero_points_fp32")
        value = _named(opset13.subtract(value, stored), f"{name}.centred")
    scales = _constant(f"{name}.scales", quantized.scales.reshape(slices), Type.f16)
    scales = _as_type(scales, Type.f32, f"{name}.scales_fp32")
    value = _named(opset13.multiply(value, scales), f"{name}.dequantized")
    return _reshaped(value, moved, name)


def _placed(made: openvino.Output, recipe_layer: RecipeLayer, layer: OnnxLayer, transposed: bool) -> openvino.Output:
    """The weight as the graph reads it."""
    name = f"{PREFIX}{layer.input}.read"
    axis = recipe_layer.channel_axis if recipe_layer.width.has_scales else None
    order = order_back(recipe_layer.shape, axis, transposed)
    value = made
    if order != tuple(range(len(order))):
        value = _named(opset13.transpose(value, np.array(order, dtype=np.int64)), f"{name}.transposed")
    return _as_type(_reshaped(value, layer.dims, name), _TYPES[layer.stored], f"{name}.stored")


def _reshaped(value: openvino.Output, shape: tuple[int, ...], name: str) -> openvino.Output:
    if tuple(value.get_shape()) == shape:
        return value
    return _named(opset13.reshape(value, np.array(shape, dtype=np.int64), special_zero=False), f"{name}.reshaped")


def _as_type(value: openvino.Output, kind: Type, name: str) -> openvino.Output:
    return value if value.get_element_type() == kind else _named(opset13.convert(value, kind), name)


def _named(node: openvino.Node, name: str) -> openvino.Output:
    node.set_friendly_name(name)
    return node.output(0)


def _constant(name: str, numbers: NDArray[np.generic], kind: Type) -> openvino.Output:
    flat = np.ascontiguousarray(numbers).reshape(-1)
    packed = flat.view(np.uint8) if kind.bitwidth >= 8 else _packed(flat.astype(np.uint8), kind.bitwidth)
    tensor = openvino.Tensor(packed, openvino.Shape(numbers.shape), kind)
    # a copy: a constant that shares the memory does not keep it alive
    return _named(openvino.op.Constant(tensor, shared_memory=False), name)


def _packed(codes: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Codes of less than 8 bits as OpenVINO's types have them: two or four a byte, the first in the lowest bits.

    Of u3 and u6, three bytes hold 8 or 4 codes, the first in the highest bits: low bits in two bytes, the others in
    the third.
    """
    low, high = _SPLIT.get(width, (width, width))
    block = 8 // high
    padded = np.zeros((-(-codes.size // block), block), dtype=np.uint8)
    padded.reshape(-1)[: codes.size] = codes & ((1 << width) - 1)
    if width not in _SPLIT:
        return _bytes(padded, np.arange(0, 8, width))
    first = _bytes((padded & ((1 << low) - 1)).reshape(-1, 8 // low), np.arange(8 - low, -1, -low))
    third = _bytes(padded >> low, np.arange(8 - high, -1, -high))
    return np.column_stack([first.reshape(-1, 2), third]).reshape(-1)


def _bytes(fields: NDArray[np.integer], shifts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """`(bytes,)` one of each row: its fields, each shifted to its place."""
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(fields << shifts, axis=1).astype(np.uint8)
    return packed


def constant_bytes(model: openvino.Model | Path) -> int:
    """Bytes of all constants that hold weights, scales and other numbers; shapes and indices are not among them.

    Args:
        model: or the .xml file of one, whose .bin lies beside it.

    Raises:
        InputError: the file cannot be read.
    """
    if isinstance(model, Path):
        try:
            model = openvino.Core().read_model(model)
        except Exception as error:  # the library's own classes
            raise InputError(
                f"{model}: no OpenVINO IR, or a damaged one: {' '.join(str(error).split())[:500]}"
            ) from None
    constants = (node for node in _nodes(model) if node.get_type_name() == "Constant")
    return sum(c.get_byte_size() for c in constants if c.get_element_type() not in _WHOLE)


def _nodes(model: openvino.Model) -> Iterator[openvino.Node]:
    """All nodes, those in branches and loops too."""
    for node in model.get_ordered_ops():
        yield node
        for body in _bodies(node):
            yield from _nodes(body)


def _name_the_rest(model: openvino.Model) -> None:
    """Names that OpenVINO gave count on through the process; these repeat, and so do the files."""
    for index, node in enumerate(_nodes(model)):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{PREFIX}{node.get_type_name()}.{index}")


def _bodies(node: openvino.Node) -> list[openvino.Model]:
    if node.get_type_name() == "If":
        return [node.get_then_body(), node.get_else_body()]
    return [node.get_function()] if node.get_type_name() in ("Loop", "TensorIterator") else []
