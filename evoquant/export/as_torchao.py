"""torchao: the network's state with low-bit weights as torchao's tensors, which compute with the measured weights.

    INT2 … INT8     IntxUnpackedToInt8Tensor: codes of a byte each, FP16 scales, zero points of a byte, all 0
    INT8 by group   Int8Tensor, where it is a matrix: the same without zero points
    FP8             Float8Tensor: codes of a byte, FP16 scales

These three expand codes · scales in FP32 and then compute. By channel and by tensor Int8Tensor would scale the product
instead, which rounds elsewhere, so INT8 is not its own there. Below 8 bits nothing is packed: `due_bytes` says what is
stored. The state is a safetensors file as torchao's own support writes it, with which tensor is what in its metadata.

Beside it lies torchao's configuration by name, for people who quantize the float network with torchao itself. That
makes scales of its own, and has not every granularity: integers below INT8 by tensor are by channel there, and of
convolutions each place of the kernel has its own scales.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from evoquant.errors import InputError
from evoquant.export.hf import linear, named_tensors, network_state
from evoquant.export.torchao_file import load_torchao, require_torchao, serialized, stored_bytes
from evoquant.files import pretty_json, write_together

if TYPE_CHECKING:
    from pathlib import Path

    from evoquant.export.hf import Holder
    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable

__all__ = ["due_bytes", "load_torchao", "stored_bytes", "torchao_config", "torchao_files", "torchao_state"]

TARGET = "torchao"
SUFFIX = ".safetensors"
_BESIDE = ".torchao.json"
_INTX, _INT8, _FP8 = "IntxUnpackedToInt8Tensor", "Int8Tensor", "Float8Tensor"
_SCALE_BYTES = 2


def torchao_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write the network's state with the recipe's weights to `path`, torchao's configuration beside it.

    Args:
        recipe: with its numbers.
        ready: the network.
        path: of the .safetensors file.

    Returns:
        Both paths, the state first.

    Raises:
        InputError: another ending, no PyTorch network, a layer that torchao cannot hold at its precision, or a file
            cannot be written.
        MissingExtraError: torchao is not installed.
    """
    if path.suffix != SUFFIX:
        raise InputError(
            f"{path}: torchao's state is a {SUFFIX} file; its configuration goes into {path.stem}{_BESIDE} beside it."
        )
    require_torchao("an export to torchao")
    from torchao.core.config import config_to_dict

    network = ready.network(TARGET)
    content = serialized(torchao_state(network, recipe))
    configuration = config_to_dict(torchao_config(network, recipe))
    beside = path.with_name(f"{path.stem}{_BESIDE}")
    write_together(path, content, {beside: pretty_json(configuration)})
    return [path, beside]


def torchao_state(network: nn.Module, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Name → tensor of the network's state, layers with scales as tensors of torchao; a shared one once.

    Raises:
        InputError: a layer is none of the network, or torchao cannot hold it at its precision.
    """
    state = network_state(network)
    first = {id(tensor): names[0] for tensor, names in named_tensors(network)}
    for layer in recipe.layers:
        if layer.width.has_scales:
            module = _holder(network, layer)
            name = first.get(id(module.weight))
            if name is None or "." not in name:
                raise InputError(
                    f"layer {layer.name!r}: torchao's files name a weight after its module, and this one has no module "
                    f"of its own in the network; put the network into another nn.Module."
                )
            state[name] = _tensor(recipe, layer)
        elif layer.precision != "FP32":
            raise InputError(
                f"layer {layer.name!r}: torchao's file holds weights without scales in FP32, not in {layer.precision}; "
                f"choose FP32."
            )
    return state


def torchao_config(network: nn.Module, recipe: Recipe) -> Any:
    """torchao's `FqnToConfig` with each layer that has scales; tied modules all stand in it.

    Raises:
        InputError: as `torchao_state`.
    """
    from torchao.quantization import FqnToConfig

    of_weight = {id(_holder(network, layer).weight): layer for layer in recipe.layers if layer.width.has_scales}
    found = {}
    for name, module in network.named_modules():
        layer = of_weight.get(id(getattr(module, "weight", None)))
        if layer is not None:
            found[name] = _config(layer)
    return FqnToConfig(found)


def _config(layer: RecipeLayer) -> Any:
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerAxis,
        PerGroup,
        PerRow,
        PerTensor,
    )

    width, block = layer.width, _block(layer)
    parts = {"tensor": PerTensor(), "channel": PerRow(), "group": PerGroup(block[1])}
    own: Any = parts[width.granularity]
    # the settings of PyTorch's compiler that it would change hold for the whole process
    if width.format == "FP8":
        return Float8WeightOnlyConfig(granularity=own, set_inductor_config=False)
    by_tensor = width.format == "INT8" and width.granularity == "tensor" and len(block) == 2
    if by_tensor or _kind(layer) == _INT8:
        return Int8WeightOnlyConfig(granularity=own, set_inductor_config=False)
    return IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{width.code_bits}"),
        granularity=own if width.granularity == "group" else PerAxis(0),
        scale_dtype=torch.float16,
    )


def _holder(network: nn.Module, layer: RecipeLayer) -> Holder:
    """The module of a layer that torchao can hold.

    Raises:
        InputError: it cannot.
    """
    module = linear(network, layer.name, TARGET)
    width, shape = layer.width, tuple(module.weight.shape)
    convolution, kernel = isinstance(module, nn.Conv2d), math.prod(shape[2:])
    by_channel = layer.precision.replace(f"-g{width.group_size}", "-channel")
    fault = None
    if shape != layer.shape or layer.channel_axis != 0:
        fault = f"its weight is {shape} with outputs first, not {layer.shape}; export the recipe of this network"
    elif width.activation_bits is not None:
        fault = f"activations stay in floating point; choose {layer.precision.removesuffix('-a8')}"
    elif width.asymmetric:
        fault = f"zero points are not taken; choose {layer.precision.replace('-asym', '')}"
    elif not (width.is_integer or width.format == "FP8"):
        fault = f"torchao has no {width.format}; choose {layer.precision.replace(width.format, 'INT4')}"
    elif convolution and module.groups != 1:
        fault = "convolutions with groups are not taken; choose FP32"
    elif convolution and width.format == "FP8":
        fault = "convolutions in FP8 need a GPU; choose INT8-channel"
    elif not width.fits(shape, 0) or width.group_size % kernel:
        fault = f"groups have to hold whole inputs of {kernel} weights and divide a channel; choose {by_channel}"
    if fault:
        raise InputError(f"layer {layer.name!r} at {layer.precision}: {fault}.")
    return module


def _kind(layer: RecipeLayer) -> str:
    """Which of torchao's tensors a layer with scales becomes."""
    width = layer.width
    if width.format == "FP8":
        return _FP8
    parts = len(layer.shape) == 2 and width.granularity == "group" and width.group_size < layer.shape[1]
    return _INT8 if width.format == "INT8" and parts else _INTX


def _block(layer: RecipeLayer) -> list[int]:
    """Of each axis how many weights share a scale."""
    rows, *rest = layer.shape
    if layer.width.granularity == "tensor":
        return [rows, *rest]
    if layer.width.granularity == "channel":
        return [1, *rest]
    return [1, layer.width.group_size // math.prod(rest[1:]), *rest[1:]]


def _tensor(recipe: Recipe, layer: RecipeLayer) -> torch.Tensor:
    from torchao.quantization import Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor

    quantized, block, kind = recipe.quantized(layer), _block(layer), _kind(layer)
    codes = torch.from_numpy(np.array(quantized.codes, order="C"))
    slices = [size // part for size, part in zip(layer.shape, block, strict=True)]
    scales = torch.from_numpy(np.array(quantized.scales, order="C")).reshape(slices)
    if kind == _FP8:
        made = Float8Tensor(codes.view(torch.float8_e4m3fn), scales, block_size=block, dtype=torch.float32)
    elif kind == _INT8:
        made = Int8Tensor(codes, scales, block_size=block, dtype=torch.float32)
    else:
        zeros = torch.zeros(slices, dtype=torch.int8)
        bits = getattr(torch, f"int{layer.width.code_bits}")
        made = IntxUnpackedToInt8Tensor(codes, scales, zeros, bits, block, torch.float32, None)
    tensor: torch.Tensor = made
    return tensor


def due_bytes(recipe: Recipe) -> float:
    """Bytes that torchao's tensors take for a recipe: codes of a byte, FP16 scales, zero points where there are any."""
    total = recipe.constant_bits / 8
    for layer in recipe.layers:
        if layer.width.has_scales:
            zero_point = 1 if _kind(layer) == _INTX else 0
            slices = layer.width.slices(layer.shape, layer.channel_axis)
            total += layer.parameters + slices * (_SCALE_BYTES + zero_point)
        else:
            total += layer.width.bits(layer.shape, layer.channel_axis) / 8
    return total
