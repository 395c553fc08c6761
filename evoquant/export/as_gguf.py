"""GGUF for llama.cpp: a type for each tensor, the recipe's codes and scales in its blocks.

    INT8-g32    Q8_0        FP16, BF16    F16, BF16
    INT4-g32    Q4_0        FP32          F32, and every vector

Names, the order of the rows of queries and keys, and the settings are llama.cpp's. Without a base file, the network is
a Llama whose tokens are bytes; with one, made from the same network by llama.cpp's converter, vocabulary and settings
are the base's, and so are the tensors that the recipe does not have. Beside the file lies what `llama-quantize
--tensor-type-file` takes, for who wants llama.cpp's own rounding at these types.
Imported only once gguf is known to be there.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from evoquant.errors import InputError
from evoquant.export.gguf_base import Base, open_gguf, read_base
from evoquant.export.gguf_blocks import permuted, q4_0, q8_0
from evoquant.export.gguf_llama import add_byte_vocabulary, add_llama, llama_heads, require_llama
from evoquant.export.lint import require_taken
from evoquant.export.source import one_line
from evoquant.files import sync_folder, write_atomic
from evoquant.profiles.llama_names import gguf_name
from evoquant.quantization.formats import bf16_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable

TARGET = "gguf"
SUFFIX = ".gguf"
TYPES_SUFFIX = ".tensor-types.txt"

_VERSION_OF_BLOCKS = 2  # of all types since 2023; llama.cpp refuses others
_MOST_AXES = 2
_FLOATS = {"FP16": "F16", "BF16": "BF16", "FP32": "F32"}
_PACKED = {("INT8", 32): ("Q8_0", q8_0), ("INT4", 32): ("Q4_0", q4_0)}


@dataclass(frozen=True, eq=False)
class Tensor:
    """What stands in the file.

    Attributes:
        kind: GGUF's name of its type.
        data: float16 or float32 numbers, or bytes with rows along the last axis.
    """

    kind: str
    data: NDArray[np.generic]


def gguf_files(recipe: Recipe, ready: Deployable, path: Path, base: Path | None = None) -> list[Path]:
    """Write the network with the recipe's weights to `path` (ending in .gguf), its types to a .txt beside it.

    Args:
        recipe: with its numbers.
        ready: the network.
        path: of the .gguf file.
        base: a GGUF of the same network, made by llama.cpp's converter, for another vocabulary than bytes or another
            architecture than Llama.

    Returns:
        Both paths, the .gguf first.

    Raises:
        InputError: another ending, a network or a layer that GGUF cannot hold, a base of another network, or a file
            cannot be written.
        MissingExtraError: transformers is not installed, and there is no base.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a GGUF model is a {SUFFIX} file; name it {path.with_suffix(SUFFIX).name}.")
    types = tensor_types(recipe)
    writer = _from_network(recipe, ready) if base is None else _from_base(recipe, ready, read_base(base))
    beside = path.with_name(f"{path.stem}{TYPES_SUFFIX}")
    _write(writer, path, types, beside)
    return [path, beside]


def tensor_types(recipe: Recipe) -> str:
    """What `llama-quantize --tensor-type-file` reads: `^blk\\.0\\.attn_q\\.weight$=q4_0`, a matrix a line.

    Raises:
        InputError: a layer that GGUF cannot hold.
    """
    lines = []
    for layer in recipe.layers:
        kind = _kind(layer)
        if len(layer.shape) > 1:
            lines.append(f"^{re.escape(_tensor_name(layer))}$={kind.lower()}\n")
    return "".join(lines)


def stored_bytes(path: Path) -> int:
    """Bytes of all tensors of a GGUF file.

    Raises:
        InputError: it is none, or it cannot be read.
    """
    return sum(int(tensor.n_bytes) for tensor in open_gguf(path).tensors)


def _tensor_name(layer: RecipeLayer) -> str:
    """GGUF's name of a layer that `_kind` has not refused."""
    return gguf_name(layer.name) or layer.name


def _kind(layer: RecipeLayer) -> str:
    """GGUF's type that holds a layer exactly as it was measured, at the size that was promised.

    Raises:
        InputError: there is none.
    """
    width = layer.width
    require_taken(layer, TARGET)
    if len(layer.shape) > _MOST_AXES:
        raise InputError(f"layer {layer.name!r} of shape {layer.shape}: a Llama has matrices and vectors alone.")
    return _PACKED[width.format, width.group_size][0] if width.has_scales else _FLOATS[width.format]


def _tensor(recipe: Recipe, layer: RecipeLayer, heads: int | None) -> Tensor:
    """A layer in its type; the rows permuted where there are heads. Blocks move with their rows, whole."""
    kind = _kind(layer)
    if layer.width.has_scales:
        quantized = recipe.quantized(layer)
        codes: NDArray[Any] = quantized.codes
        scales = quantized.scales.reshape(len(codes), -1)
        if heads is not None:
            codes, scales = permuted(codes, heads), permuted(scales, heads)
        pack = _PACKED[layer.width.format, layer.width.group_size][1]
        return Tensor(kind, pack(codes, scales.reshape(-1)))
    values = recipe.values(layer)
    return float_tensor(kind, values if heads is None else permuted(values, heads))


def float_tensor(kind: str, values: NDArray[np.float32]) -> Tensor:
    """F32, F16 or BF16, which hold these values exactly."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if kind == "BF16":
        return Tensor(kind, bf16_bits(values).astype("<u2").view(np.uint8))
    return Tensor(kind, values.astype(np.float16) if kind == "F16" else values)


def _from_network(recipe: Recipe, ready: Deployable) -> GGUFWriter:
    """Of a Llama of transformers, whose tokens are bytes.

    Vectors and matrices that no layer is stay in FP32.
    """
    from evoquant.export.hf import network_state, pretrained

    network = pretrained(ready, TARGET)
    config = network.config
    state = network_state(network)
    require_llama(config, type(network).__name__, state)
    layers = {f"{layer.name}.weight": layer for layer in recipe.layers}
    if strange := sorted(layers.keys() - state.keys()):
        raise InputError(f"layer {strange[0].removesuffix('.weight')!r} is not in the network; is the recipe of it?")
    heads = llama_heads(config)
    writer = GGUFWriter(None, "llama")
    _sign(writer, recipe.model)
    add_llama(writer, config)
    add_byte_vocabulary(writer, config)
    for full, values in state.items():
        name = gguf_name(full.removesuffix(".weight")) or full
        layer = layers.get(full)
        if layer is None:
            own: NDArray[np.float32] = values.numpy()
            of = heads.of(name)
            tensor = float_tensor("F32", own if of is None else permuted(own, of))
        else:
            tensor = _tensor(recipe, layer, heads.of(name))
        _add(writer, name, tensor)
    return writer


def _from_base(recipe: Recipe, ready: Deployable, base: Base) -> GGUFWriter:
    """With the base's settings, vocabulary and vectors; a converter may store vectors in another form than the network.

    A matrix that is a layer is the recipe's. Whether the rows of queries and keys are permuted depends on the
    architecture, so that the base's own matrix says it; it says too whether the base is of this network at all.
    """
    layers = {_tensor_name(layer): layer for layer in recipe.layers}
    base.require(layers)
    writer = GGUFWriter(None, base.architecture)
    base.add_settings(writer)
    _sign(writer, None)
    for tensor in base.tensors:
        layer = layers.get(tensor.name)
        if layer is None or len(layer.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        of = base.heads_of(tensor)
        moved = base.permutes(tensor, ready.weight(layer.name), of)
        _add(writer, tensor.name, _tensor(recipe, layer, of if moved else None))
    return writer


def _sign(writer: GGUFWriter, model: str | None) -> None:
    if model is not None:
        writer.add_name(one_line(model))
    writer.add_quantized_by("evoquant, a type for each tensor")
    writer.add_quantization_version(_VERSION_OF_BLOCKS)


def _add(writer: GGUFWriter, name: str, tensor: Tensor) -> None:
    writer.add_tensor(name, tensor.data, raw_dtype=GGMLQuantizationType[tensor.kind])


def _write(writer: GGUFWriter, path: Path, types: str, beside: Path) -> None:
    """To temporary files, which then take the names: an old model never stands beside new types, nor types alone."""
    placed = done = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            saved = Path(folder) / path.name
            try:
                writer.write_header_to_file(saved)
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            finally:
                writer.close()
            with saved.open("rb") as stream:
                os.fsync(stream.fileno())
            write_atomic(listed := Path(folder) / beside.name, types)
            path.unlink(missing_ok=True)
            os.replace(listed, beside)
            placed = True
            os.replace(saved, path)
            done = True
        sync_folder(path.parent)
    except OSError as fault:
        raise InputError(f"{path}: cannot be written: {fault.strerror or fault}.") from None
    finally:
        if placed and not done:
            beside.unlink(missing_ok=True)
