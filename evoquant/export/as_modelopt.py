"""NVIDIA ModelOpt: a quantization config and a state, which its simulation runs here, and a checkpoint, which
nothing here reads.

    quant_cfg.json      for `mtq.quantize`: all quantizers off, then an entry for each layer with scales
    state.safetensors   the network's state, `_amax` of each quantizer in it
    checkpoint/         as `export_hf_checkpoint` packs it, of transformers' networks alone
    README.txt          what is what

A quantizer's scale is `_amax` over the largest code, so that `_amax` is scale · largest code: exact in float32, and so
is the quotient. Weights stand in the state as the values that the recipe means, not as the original ones: ModelOpt
rounds them again, and only values on the grid come out as the recipe's codes, whatever range these were found with.
The simulation multiplies by reciprocals, so its weights may be off in the last digit of float32; the checkpoint has
codes and scales themselves, and they are compared with the recipe's before anything is kept.

The checkpoint is written, not loaded here: its readers (TensorRT-LLM, vLLM, SGLang) need a GPU. Its scales are FP32.
Imports PyTorch; itself it is imported where a network is exported.
"""

from __future__ import annotations

import contextlib
import copy
import glob
import importlib.util
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evoquant.errors import InputError, MissingExtraError
from evoquant.export.hf import fresh_folder, is_pretrained, linear, network_state
from evoquant.files import pretty_json, write_atomic
from evoquant.models.hf import require_transformers
from evoquant.models.networks import require_torch
from evoquant.models.quiet import silenced
from evoquant.profiles.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable
    from evoquant.quantization.precision import Precision

TARGET = "modelopt"
CONFIG, STATE, CHECKPOINT, README = "quant_cfg.json", "state.safetensors", "checkpoint", "README.txt"
QUANTIZER = ".weight_quantizer"
_SCALE = ".weight_scale"
_EXPORTED_SCALE = 4
"""Bytes of a scale in the checkpoint: FP32."""

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1}
"""safetensors' types of weights, codes and scales → bytes; others hold counters."""

_HARMLESS: tuple[tuple[str, type[Warning]], ...] = (
    (r"transformers \S+ is not tested with current version of modelopt", UserWarning),
    (r"`torch\.jit\.script", DeprecationWarning),
    (r"To copy construct from a tensor", UserWarning),
    (r"Cannot export model to the model_config", UserWarning),  # the exception that follows says why
)

_TALKATIVE = ("transformers", "modelopt.torch.export.quant_utils")
"""Loggers that warn of an attribute's old name, and of each tied weight that is stored once."""

_SIMULATION = """\
Written by evoquant for NVIDIA ModelOpt (nvidia-modelopt).

quant_cfg.json and state.safetensors are for ModelOpt's simulation in PyTorch, which gives the measured outputs:

    config = json.load(open("quant_cfg.json"))
    for entry in config["quant_cfg"]:
        blocks = entry.get("cfg", {}).get("block_sizes")
        if blocks:  # JSON has no whole numbers as keys
            entry["cfg"]["block_sizes"] = {int(axis): size for axis, size in blocks.items()}
    modelopt.torch.quantization.quantize(network, config, forward_loop=None)
    network.load_state_dict(safetensors.torch.load_file("state.safetensors"))

    (strict=False where the network ties weights: a shared one stands there once)

The state holds float32 weights, each on the grid of its layer: it is no smaller than the network.
"""
_PACKED = """
checkpoint/ holds the packed weights: written, not loaded here, for its readers (TensorRT-LLM, vLLM, SGLang) need a
GPU. Its codes and scales were compared with the recipe's and are the same. It labels INT4 as W4A16_AWQ with a
pre_quant_scale, and there is none to apply; it labels FP8 as of weights and activations, and only weights were
measured. Compare the outputs yourself before you rely on it.
"""
_NOT_PACKED = """
There is no packed checkpoint: ModelOpt writes one for networks of transformers only.
"""


def require_modelopt(what: str) -> None:
    """Check that ModelOpt and what it needs are installed; `what` names who needs it.

    Raises:
        MissingExtraError: one of them is not.
    """
    require_torch(what)
    for module, package in (("modelopt", "nvidia-modelopt"), ("requests", "requests"), ("safetensors", "safetensors")):
        if importlib.util.find_spec(module) is None:  # ModelOpt imports requests, and does not say so
            raise MissingExtraError(what, package, TARGET)
    if importlib.util.find_spec("transformers") is not None:
        require_transformers(what)  # quietly; ModelOpt imports it


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without ModelOpt's notices on standard output, and warnings that nothing follows from here."""
    with (
        silenced(*_TALKATIVE, below=logging.ERROR),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        for message, category in _HARMLESS:
            warnings.filterwarnings("ignore", message, category)
        yield


def modelopt_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write config, state, and of a network of transformers the checkpoint, to a new folder.

    Args:
        recipe: with its numbers.
        ready: the network, of PyTorch.
        path: of the folder.

    Returns:
        The files, quant_cfg.json first.

    Raises:
        InputError: the folder is there already or cannot be written, a layer is none that ModelOpt quantizes at its
            precision, the network is an ONNX file, or ModelOpt cannot export it or gives it other codes.
        MissingExtraError: ModelOpt, or what it needs, is not installed.
    """
    require_modelopt("an export to ModelOpt")
    scaled = _scaled(recipe)
    network = copy.deepcopy(ready.network(TARGET))
    config = quant_config(recipe)
    with fresh_folder(path) as folder:
        _simulate(network, recipe, scaled, config)
        write_atomic(folder / CONFIG, pretty_json(config))
        write_atomic(folder / STATE, _saved(network))
        packed = is_pretrained(network)
        if packed:
            _write_checkpoint(network, folder / CHECKPOINT, recipe.model)
            _compare(recipe, scaled, folder / CHECKPOINT)
        write_atomic(folder / README, _SIMULATION + (_PACKED if packed else _NOT_PACKED))
        names = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [path / CONFIG, *(path / name for name in names if name != Path(CONFIG))]


def quant_config(recipe: Recipe) -> dict[str, Any]:
    """What `mtq.quantize` takes, as JSON holds it: entries in order, later ones win, everything off first."""
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for layer in recipe.layers:
        if layer.width.has_scales:
            name = f"{glob.escape(layer.name)}{QUANTIZER}"  # names are patterns
            entries.append({"quantizer_name": name, "cfg": _attributes(layer.width), "enable": True})
    return {"quant_cfg": entries, "algorithm": "max"}


def _attributes(width: Precision) -> dict[str, Any]:
    if width.format == "FP8":
        return {"num_bits": [4, 3], "axis": None}
    if width.granularity == "group":
        return {"num_bits": width.code_bits, "block_sizes": {"-1": width.group_size}}
    return {"num_bits": width.code_bits, "axis": 0}


def _scaled(recipe: Recipe) -> list[RecipeLayer]:
    """Layers that become codes.

    Raises:
        InputError: a layer at a precision that the target does not have.
    """
    for layer in recipe.layers:
        fault = TARGETS[TARGET].fault(layer, layer.width)
        if fault is not None:
            raise InputError(f"layer {layer.name!r}: {layer.precision}: {fault}")
    return [layer for layer in recipe.layers if layer.width.has_scales]


def _simulate(network: torch.nn.Module, recipe: Recipe, scaled: list[RecipeLayer], config: Mapping[str, Any]) -> None:
    """Put the recipe's weights and scales into the network, and quantizers around them."""
    with torch.no_grad():
        for layer in scaled:
            weight = linear(network, layer.name, TARGET).weight
            weight.copy_(torch.from_numpy(recipe.values(layer)))
        quantize(network, config)
        for layer in scaled:
            amax = getattr(getattr(network.get_submodule(layer.name), QUANTIZER[1:], None), "_amax", None)
            if amax is None:
                kind = type(network.get_submodule(layer.name)).__name__
                raise InputError(f"layer {layer.name!r}: ModelOpt does not quantize a {kind}; choose FP32.")
            scales = recipe.quantized(layer).scales.astype(np.float32)
            largest = np.float32(layer.width.largest_code)
            amax.copy_(torch.from_numpy(scales * largest).reshape(amax.shape))


def quantize(network: torch.nn.Module, config: Mapping[str, Any]) -> None:
    """`mtq.quantize`, in place, by a config as JSON holds it: numbers of axes are texts there."""
    entries = copy.deepcopy(config["quant_cfg"])
    for entry in entries:
        blocks = (entry.get("cfg") or {}).get("block_sizes")
        if blocks:
            entry["cfg"]["block_sizes"] = {int(axis): size for axis, size in blocks.items()}
    with _quiet():
        import modelopt.torch.quantization as mtq

        mtq.quantize(network, {"quant_cfg": entries, "algorithm": config["algorithm"]}, forward_loop=None)


def _saved(network: torch.nn.Module) -> bytes:
    from safetensors.torch import save

    content: bytes = save(network_state(network))
    return content


def _write_checkpoint(network: Any, folder: Path, name: str) -> None:
    """By ModelOpt, which changes the network.

    Raises:
        InputError: it cannot export the network.
    """
    import transformers

    bars: Any = transformers.utils.logging
    network.config.architectures = [type(network).__name__]  # of a network made from a config there are none yet
    network.config.dtype = torch.float32
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with _quiet():
            from modelopt.torch.export import export_hf_checkpoint

            export_hf_checkpoint(network, dtype=torch.float32, export_dir=folder)
    except Exception as error:  # whatever ModelOpt and the network raise; it asserts much
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        if "different quantization formats" in text:
            text = (
                "layers that read one input must have one format: query, key, value; gate and up; in networks with "
                "parallel blocks the first layer of the MLP, too. Give them one width."
            )
        raise InputError(f"{name}: ModelOpt, which runs the network on two tokens, cannot export it: {text}") from None
    finally:
        if shown:
            bars.enable_progress_bar()


def _compare(recipe: Recipe, scaled: list[RecipeLayer], folder: Path) -> None:
    """Whether the checkpoint's codes and scales are those of the recipe.

    Raises:
        InputError: they are not.
    """
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    for layer in scaled:
        names = [layer.name]
        if f"{layer.name}.weight" not in found:  # ModelOpt goes back to the names of the hub, which may be others
            names = [name.removesuffix(_SCALE) for name in found if name.endswith(_SCALE)]
        pairs = [pair for name in names if (pair := _apart(found, name, layer, recipe)) is not None]
        codes, scales = min(pairs, key=sum, default=(layer.parameters, layer.width.slices(layer.shape, 0)))
        if codes or scales:
            raise InputError(
                f"layer {layer.name!r}: ModelOpt's checkpoint has {codes} other codes and {scales} other scales than "
                f"the recipe; choose FP32 for it."
            )


def _apart(found: Mapping[str, torch.Tensor], name: str, layer: RecipeLayer, recipe: Recipe) -> tuple[int, int] | None:
    """How many codes and scales under a name are not the layer's; None where it can only be another layer."""
    weight, scale, quantized = found.get(f"{name}.weight"), found.get(f"{name}{_SCALE}"), recipe.quantized(layer)
    if weight is None or scale is None or scale.numel() != quantized.scales.size:
        return None
    codes = _codes(weight, layer)
    if codes.shape != quantized.codes.shape:
        return None
    scales = quantized.scales.astype(np.float32)
    return int((codes != quantized.codes).sum()), int((scale.float().numpy().reshape(-1) != scales).sum())


def _codes(stored: torch.Tensor, layer: RecipeLayer) -> NDArray[np.int8 | np.uint8]:
    """Codes as the recipe has them: of INT4, two rows a byte, the first in the low bits."""
    codes: NDArray[np.uint8] = stored.contiguous().view(torch.uint8).numpy()
    if not layer.width.is_integer:
        return codes
    if layer.width.code_bits == 8:
        return codes.view(np.int8)
    pairs: NDArray[np.int8] = np.stack([codes << 4, codes], axis=1).view(np.int8) >> 4  # shifted back with its sign
    return pairs.reshape(-1, codes.shape[-1])


def stored_bytes(path: Path) -> int:
    """Bytes of weights, codes and scales: of the checkpoint; where there is none, of the state, which is not packed.

    Args:
        path: of quant_cfg.json.

    Raises:
        InputError: a file cannot be read.
    """
    from safetensors import safe_open

    packed = path.parent / CHECKPOINT
    files = sorted(packed.glob("*.safetensors")) if packed.is_dir() else [path.parent / STATE]
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118  (no mapping)
                total += sum(int(np.prod(one.get_shape())) * _WIDTHS.get(one.get_dtype(), 0) for one in slices)
        except Exception as error:  # the library's own class, a missing file
            raise InputError(f"{file}: cannot be read ({type(error).__name__}: {error}).") from None
    return total


def due_bytes(recipe: Recipe, *, checkpoint: bool) -> float:
    """Bytes that the files take: as promised, but with scales in FP32; without a checkpoint all weights are FP32."""
    scales = sum(
        layer.width.slices(layer.shape, layer.channel_axis) for layer in recipe.layers if layer.width.has_scales
    )
    if checkpoint:
        return recipe.promise.bytes + (_EXPORTED_SCALE - 2) * scales
    weights = sum(layer.parameters for layer in recipe.layers)
    return 4 * (weights + scales) + recipe.constant_bits / 8
