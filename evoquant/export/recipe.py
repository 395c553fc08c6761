"""The recipe: one model's allocation with codes and scales, in no consumer's own form.

`recipe.json` says for each layer what it is and what it becomes, what size and retention are promised, and where all
that comes from; `recipe.safetensors` beside it holds the numbers, as evoquant's quantizer made them: `NAME:codes`,
`NAME:scales`, `NAME:zero_points` for a layer with scales, `NAME:values` for a plain float (BF16 as the upper halves of
float32, in U16). Codes are one a byte.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from evoquant.errors import InputError, MissingExtraError, PrecisionError, describe_validation
from evoquant.export.recipe_schema import Figures, Promise, RecipeFile, RecipeLayer
from evoquant.files import is_file, pretty_json, read_json, write_atomic
from evoquant.quantization.formats import bf16_bits, bf16_values
from evoquant.quantization.numerics import (
    QUANTIZER_VERSION,
    Quantized,
    dequantize,
    fake_quantize,
    quantize,
    require_scales,
)
from evoquant.quantization.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.rounding import Rounder

SCHEMA = "evoquant.recipe"
VERSION = 1
SUFFIX = ".safetensors"
MAX_TENSOR_BYTES = 64 * 2**30
_FP8_NAN = 0x7F
_LARGEST_NF4 = 15

Tensors = Mapping[str, "NDArray[np.generic]"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """One model's allocation, ready to be exported.

    Attributes:
        model: its name.
        model_digest: sha256 over architecture and weights.
        constant_bits: of what no width applies to.
        promise: size and retention.
        layers: in order of execution.
        tensors: as in the safetensors file; empty where only the recipe's text was read.
        provenance: campaign, seed, gate.
        quantizer: version of what made the codes.
        rounding: name of the rounding method, where it is somebody's own; None for evoquant's.
    """

    model: str
    model_digest: str
    constant_bits: int
    promise: Promise
    layers: tuple[RecipeLayer, ...]
    tensors: Tensors
    provenance: Mapping[str, Any]
    quantizer: str = QUANTIZER_VERSION
    rounding: str | None = None

    def quantized(self, layer: RecipeLayer) -> Quantized:
        """Codes, scales and zero points of a layer that has scales."""
        name = layer.name
        zero_points: Any = self.tensors.get(f"{name}:zero_points")
        codes: Any = self.tensors[f"{name}:codes"]
        scales: Any = self.tensors[f"{name}:scales"]
        return Quantized(codes, scales, layer.width, layer.channel_axis, zero_points)

    def values(self, layer: RecipeLayer) -> NDArray[np.float32]:
        """The weights that the layer stands for, float32 in its shape."""
        if layer.width.has_scales:
            return dequantize(self.quantized(layer))
        stored = self.tensors[f"{layer.name}:values"]
        return bf16_values(stored.astype(np.uint16)) if layer.width.format == "BF16" else stored.astype(np.float32)


def build_recipe(
    profile: ModelProfile,
    widths: Sequence[str],
    weight_of: Callable[[str], NDArray[np.generic]],
    model_digest: str,
    scores: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
    rounder: Rounder | None = None,
) -> Recipe:
    """Quantize every layer of a model at its width.

    Args:
        profile: of the model.
        widths: a precision name for each layer.
        weight_of: layer name → its weight in the profile's shape.
        model_digest: of the model.
        scores: split → measured figures, for the promise.
        provenance: plain data.
        rounder: a rounding method of somebody's own; every tensor is rounded twice, and has to come out the same.

    Raises:
        InputError: such a method gives what are no codes, or other ones the second time.
        PrecisionError: a nominal precision, or one that cannot hold a layer's weights.
    """
    layers, tensors = [], {}
    bits = 0
    checking = None if rounder is None else rounder.checking()
    for layer, name in zip(profile.layers, widths, strict=True):
        precision = Precision.parse(name)
        try:
            require_scales(precision)
            tensors.update(_tensors(layer.name, weight_of(layer.name), precision, layer.channel_axis, checking))
        except PrecisionError as error:
            raise PrecisionError(f"layer {layer.name!r}: {error}") from None
        own = precision.bits(layer.shape, layer.channel_axis)
        bits += own
        layers.append(
            RecipeLayer(
                name=layer.name,
                type=layer.type,
                shape=tuple(layer.shape),
                channel_axis=layer.channel_axis,
                groups=layer.groups,
                holders=layer.holders,
                called=layer.called,
                tie_group=layer.tie_group,
                precision=precision.name,
                granularity=precision.granularity,
                effective_bits=own / layer.parameters,
            )
        )
    promise = promise_of(layers, profile.constant_bits, {split: _figures(one) for split, one in scores.items()})
    made = Recipe(profile.name, model_digest, profile.constant_bits, promise, tuple(layers), tensors, dict(provenance))
    if rounder is None:
        return made
    return replace(made, quantizer=f"{QUANTIZER_VERSION}{rounder.suffix}", rounding=rounder.name)


def promise_of(layers: Sequence[RecipeLayer], constant_bits: int, scores: dict[str, Figures]) -> Promise:
    """What layers at their widths come to.

    Args:
        layers: of the model.
        constant_bits: of what no width applies to.
        scores: split → what was measured.
    """
    bits = sum(layer.width.bits(layer.shape, layer.channel_axis) for layer in layers)
    weights = sum(layer.parameters for layer in layers)
    return Promise(
        bits=bits + constant_bits,
        effective_bits=bits / weights,
        compression=(32 * weights + constant_bits) / (bits + constant_bits),
        scores=scores,
    )


def _figures(scores: Mapping[str, Any]) -> Figures:
    """Of what was measured on a split, what a recipe keeps.

    Raises:
        InputError: figures that are none.
    """
    kept = {key: scores[key] for key in Figures.model_fields if scores.get(key) is not None}
    try:
        return Figures.model_validate(kept, strict=False)
    except ValidationError as error:
        raise InputError(describe_validation(error, "the champion's scores", Figures.model_fields)) from None


def _tensors(
    name: str, weight: NDArray[np.generic], precision: Precision, channel_axis: int | None, rounder: Rounder | None
) -> dict[str, NDArray[np.generic]]:
    if precision.has_scales:
        quantized = quantize(weight, precision, channel_axis, rounder)
        found: dict[str, NDArray[np.generic]] = {f"{name}:codes": quantized.codes, f"{name}:scales": quantized.scales}
        if quantized.zero_points is not None:
            found[f"{name}:zero_points"] = quantized.zero_points
        return found
    values = np.ascontiguousarray(fake_quantize(weight, precision, channel_axis))  # refuses what the format cannot hold
    if precision.format == "FP16":
        return {f"{name}:values": values.astype(np.float16)}
    return {f"{name}:values": bf16_bits(values) if precision.format == "BF16" else values}


def write_recipe(recipe: Recipe, path: Path) -> Path:
    """Write `path` (ending in .json) and the tensors beside it, whose path is returned.

    The tensors come first, so that a recipe that is there has its numbers.

    Raises:
        InputError: another ending, or a file cannot be written.
        MissingExtraError: safetensors is not installed.
    """
    if path.suffix != ".json":
        raise InputError(f"{path}: a recipe is a .json file; its numbers go into {path.stem}{SUFFIX} beside it.")
    beside = path.with_suffix(SUFFIX)
    content = _serialized(recipe)
    data = {
        "schema": SCHEMA,
        "version": VERSION,
        "model": recipe.model,
        "model_digest": recipe.model_digest,
        "quantizer": recipe.quantizer,
        **({} if recipe.rounding is None else {"rounding": recipe.rounding}),
        "constant_bits": recipe.constant_bits,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "promise": recipe.promise.model_dump(mode="json"),
        "layers": [layer.model_dump(mode="json") for layer in recipe.layers],
        "provenance": dict(recipe.provenance),
    }
    write_atomic(beside, content)
    write_atomic(path, pretty_json(data))
    return beside


def read_recipe(path: Path, *, tensors: bool = True) -> Recipe:
    """A recipe from its file.

    Args:
        path: of the .json file.
        tensors: whether the numbers are wanted, too; the linter does without.

    Raises:
        InputError: no recipe, an unknown precision, or the numbers beside it are missing, damaged or another's.
    """
    source = str(path)
    try:
        file = RecipeFile.model_validate(read_json(path), strict=False)
        for layer in file.layers:
            require_scales(layer.width)
            _check_text(layer, source)
    except ValidationError as error:
        raise InputError(
            describe_validation(error, source, (*RecipeFile.model_fields, *RecipeLayer.model_fields))
        ) from None
    except PrecisionError as error:
        raise InputError(f"{source}: {error}") from None
    if file.quantizer.partition("+")[0] != QUANTIZER_VERSION or ("+" in file.quantizer) != (file.rounding is not None):
        raise InputError(
            f"{source}: its codes are of quantizer version {file.quantizer}, this is {QUANTIZER_VERSION}; export anew."
        )
    name, times = Counter(layer.name for layer in file.layers).most_common(1)[0]
    if times > 1:
        raise InputError(f"{source}: the layer {name!r} stands twice; export it anew.")
    due = promise_of(file.layers, file.constant_bits, file.promise.scores)
    for key in ("bits", "effective_bits", "compression"):
        said, made = getattr(file.promise, key), getattr(due, key)
        if not math.isclose(said, made, rel_tol=1e-9):
            raise InputError(
                f"{source}: promises {said:g} {key.replace('_', ' ')}, but its layers come to {made:g}; export it anew."
            )
    found: Tensors = {}
    if tensors:
        found = _read_tensors(path.with_suffix(SUFFIX), file)
    return Recipe(
        file.model,
        file.model_digest,
        file.constant_bits,
        file.promise,
        file.layers,
        found,
        dict(file.provenance),
        file.quantizer,
        file.rounding,
    )


def _read_tensors(path: Path, file: RecipeFile) -> Tensors:
    safetensors = _safetensors()
    if not is_file(path):
        raise InputError(f"{path}: does not exist; the recipe's numbers lie beside it.")
    if path.stat().st_size > MAX_TENSOR_BYTES:
        raise InputError(f"{path}: larger than {MAX_TENSOR_BYTES} bytes.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.tensors_sha256:
        raise InputError(f"{path}: holds other numbers than its recipe was written with; export both anew.")
    try:
        found: Tensors = safetensors.load(content)
    except Exception as error:  # the library's own class, and whatever a strange header makes of the rest
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}); export it anew.") from None
    known = {name for layer in file.layers for name in _check(layer, found, str(path))}
    if strange := sorted(found.keys() - known):
        raise InputError(f"{path}: {strange[0]} belongs to no layer of the recipe; export it anew.")
    return found


def _check_text(layer: RecipeLayer, source: str) -> None:
    """Whether what the text says of a layer goes together.

    Raises:
        InputError: it does not.
    """
    width, axis = layer.width, layer.channel_axis
    own = width.bits(layer.shape, axis) / layer.parameters if axis is None or 0 <= axis < len(layer.shape) else 0.0
    fault = None
    if axis is not None and not 0 <= axis < len(layer.shape):
        fault = f"channel_axis is {axis}; its shape has the axes 0 to {len(layer.shape) - 1}"
    elif layer.granularity != width.granularity:
        fault = f"granularity is {layer.granularity!r}; {layer.precision} has {width.granularity!r}"
    elif not width.fits(layer.shape, axis):
        fault = f"groups of {width.group_size} do not divide the weights of a channel of {layer.shape}"
    elif not math.isclose(layer.effective_bits, own, rel_tol=1e-9):
        fault = f"effective_bits is {layer.effective_bits:g}; {layer.precision} has {own:g} there"
    if fault:
        raise InputError(f"{source}: layer {layer.name!r}: {fault}; export it anew.")


def _check(layer: RecipeLayer, tensors: Tensors, source: str) -> list[str]:
    """Whether a layer's numbers are there, of the right types and shapes, and in their range; their names.

    Raises:
        InputError: they are not.
    """
    precision = layer.width
    slices = (precision.slices(layer.shape, layer.channel_axis),)
    codes = np.int8 if precision.is_integer and not precision.asymmetric else np.uint8
    values = {"FP16": np.float16, "BF16": np.uint16}.get(precision.format, np.float32)
    wanted: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {"values": (layer.shape, values)}
    if precision.has_scales:
        wanted = {"codes": (layer.shape, codes), "scales": (slices, np.float16)}
    if precision.asymmetric:
        wanted["zero_points"] = (slices, np.uint8)
    for part, (shape, dtype) in wanted.items():
        array = tensors.get(f"{layer.name}:{part}")
        if array is None or array.shape != shape or array.dtype != dtype:
            have = "is missing" if array is None else f"is {array.dtype}{array.shape}"
            raise InputError(f"{source}: {layer.name}:{part} {have}; {layer.precision} needs {dtype.__name__}{shape}.")
        if fault := _out_of_range(part, array, precision):
            raise InputError(f"{source}: {layer.name}:{part} {fault}; export it anew.")
    return [f"{layer.name}:{part}" for part in wanted]


def _out_of_range(part: str, array: NDArray[Any], precision: Precision) -> str | None:
    """What no quantizer writes."""
    if part == "scales":
        return None if bool((np.isfinite(array) & (array > 0)).all()) else "has scales that are not finite and positive"
    if part == "values":
        return None
    if precision.format == "FP8":
        return "has codes that are no number" if bool(((array & _FP8_NAN) == _FP8_NAN).any()) else None
    high = _LARGEST_NF4 if precision.format == "NF4" else precision.largest_code
    low = 0 if precision.asymmetric or precision.format == "NF4" else -high
    inside = bool(((array >= low) & (array <= high)).all())
    return None if inside else f"has numbers outside {low} … {high}, which {precision.name} does not have"


def _serialized(recipe: Recipe) -> bytes:
    content: bytes = _safetensors().save({name: np.ascontiguousarray(a) for name, a in recipe.tensors.items()})
    return content


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingExtraError("a recipe's numbers", "safetensors", "onnx") from None
    return safetensors.numpy
