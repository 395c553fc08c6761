"""A Hugging Face checkpoint in the compressed-tensors form: a folder that transformers and vLLM load.

    config.json             the network's configuration, and under `quantization_config` which layers have which scheme
    generation_config.json  where the network generates
    model.safetensors       a layer with scales as below, everything else in FP32

    matrices in integers    pack-quantized    NAME.weight_packed, int32 words, row by row; NAME.weight_shape
    embeddings in INT8      naive-quantized   NAME.weight, int8
    FP8                     float-quantized   NAME.weight, float8_e4m3fn
    all of these                              NAME.weight_scale, FP16

The codes are the recipe's: the library packs them and does not make them. The model's type is FP32, so transformers
widens the scales as it loads, and code · scale is what was measured, bit for bit. Layers of one scheme are a group,
whose targets match its layers alone; all others are ignored by name. Packed embeddings are not written: transformers
initializes embeddings before it expands them, and fails where there is no weight to initialize.
Imports PyTorch; itself it is imported only once compressed-tensors is known to be there.
"""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from evoquant.errors import InputError
from evoquant.export.hf import fresh_folder, linear, network_state, pretrained
from evoquant.export.lint import require_taken
from evoquant.files import pretty_json, write_atomic
from evoquant.profiles.targets import scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedModel

    from evoquant.export.hf import Holder
    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable
    from evoquant.quantization.precision import Precision

TARGET = "compressed-tensors"
CONFIG, GENERATION, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"

_PACKED, _BYTES, _FLOAT8, _MIXED = "pack-quantized", "naive-quantized", "float-quantized", "mixed-precision"
_HELD = (nn.Linear, nn.Embedding)
_NUMBERED = re.compile(r"(|.*?\.)(\d+)\.(|.*\.)([^.]+)")
_FLOAT_BYTES = {"F8_E4M3": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_CODE_BYTES = {"I8": 1, "I32": 4}


def compressed_tensors_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write the network with the recipe's weights to a new folder `path`.

    Args:
        recipe: with its numbers.
        ready: the network.
        path: of the folder; it appears whole or not at all.

    Returns:
        The files, config.json first.

    Raises:
        InputError: no network of transformers' own, a layer that the form cannot hold, `path` is there already, or
            cannot be written.
        MissingExtraError: transformers is not installed.
    """
    network = pretrained(ready, TARGET)
    _require_own(network, recipe.model)
    formats = _formats(network, recipe)
    weights = save(_state(network, recipe, formats), metadata={"format": "pt"})
    names = [CONFIG, WEIGHTS]
    with fresh_folder(path) as folder:
        write_atomic(folder / WEIGHTS, weights)
        if network.can_generate() and network.generation_config is not None:
            write_atomic(folder / GENERATION, network.generation_config.to_json_string())
            names.insert(1, GENERATION)
        write_atomic(folder / CONFIG, pretty_json(_config(network, recipe, formats)))
    return [path / name for name in names]


def _require_own(network: PreTrainedModel, model: str) -> None:
    """Whether transformers itself has the network's class: others load only by running somebody's code."""
    import transformers

    kind = type(network)
    if getattr(transformers, kind.__name__, None) is not kind:
        raise InputError(
            f"{model}: transformers has no {kind.__name__} of its own, so that what reads the checkpoint would have to "
            f"run your code; export it to torchao, onnx or openvino."
        )


def _formats(network: PreTrainedModel, recipe: Recipe) -> dict[str, str]:
    """Layer with scales → the form that it is stored in.

    Raises:
        InputError: a layer that has none, or whose weight others share.
    """
    sharing: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        sharing.setdefault(id(parameter), []).append(name)
    found = {}
    for layer in recipe.layers:
        require_taken(layer, TARGET)
        if layer.width.has_scales:
            found[layer.name] = _format(layer, linear(network, layer.name, TARGET), sharing)
    return found


def _format(layer: RecipeLayer, module: Holder, sharing: Mapping[int, Sequence[str]]) -> str:
    if not isinstance(module, _HELD):
        raise InputError(
            f"layer {layer.name!r} is a {type(module).__name__}; {TARGET} holds nn.Linear and nn.Embedding; "
            f"choose FP32."
        )
    own = f"{layer.name}.weight"
    others = [name for name in sharing[id(module.weight)] if name != own]
    if others:
        raise InputError(
            f"layer {layer.name!r} at {layer.precision}: its weight is {others[0]}, too, and transformers does not "
            f"load quantized weights that are tied; choose FP32, or untie them (tie_word_embeddings=False)."
        )
    if layer.width.format == "FP8":
        return _FLOAT8
    if not isinstance(module, nn.Embedding):
        return _PACKED
    if layer.width.code_bits == 8:
        return _BYTES
    raise InputError(
        f"layer {layer.name!r} at {layer.precision}: transformers does not load embeddings in less than 8 bits; choose "
        f"INT8-channel."
    )


def _state(network: PreTrainedModel, recipe: Recipe, formats: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Name → tensor of the file."""
    state = network_state(network)
    for layer in recipe.layers:
        if layer.name in formats:
            del state[f"{layer.name}.weight"]
            parts = _compressed(recipe, layer, formats[layer.name])
            state |= {f"{layer.name}.{part}": tensor for part, tensor in parts.items()}
    return state


def _compressed(recipe: Recipe, layer: RecipeLayer, form: str) -> dict[str, torch.Tensor]:
    """The tensors that the library would make of a weight, made of our own codes."""
    from compressed_tensors.compressors.pack_quantized import pack_to_int32

    quantized, width = recipe.quantized(layer), layer.width
    slices = {"tensor": (1,), "channel": (layer.shape[0], 1), "group": (layer.shape[0], -1)}[width.granularity]
    codes = torch.from_numpy(np.array(quantized.codes))
    scale = torch.from_numpy(np.array(quantized.scales)).reshape(slices)
    if form == _PACKED:
        shape = torch.tensor(layer.shape, dtype=torch.int64)
        return {"weight_packed": pack_to_int32(codes, width.code_bits), "weight_scale": scale, "weight_shape": shape}
    return {"weight": codes.view(torch.float8_e4m3fn) if form == _FLOAT8 else codes, "weight_scale": scale}


def _config(network: PreTrainedModel, recipe: Recipe, formats: Mapping[str, str]) -> dict[str, Any]:
    """config.json as plain data; of a recipe without scales that of an ordinary checkpoint."""
    own = copy.deepcopy(network.config)
    own.architectures = [type(network).__name__]
    own.dtype = "float32"
    data: dict[str, Any] = json.loads(own.to_json_string())
    if formats:
        held = [name for name, module in network.named_modules() if isinstance(module, _HELD)]
        data["quantization_config"] = _quantization(recipe, formats, [name for name in held if name not in formats])
    return data


def _quantization(recipe: Recipe, formats: Mapping[str, str], ignored: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint says of its layers, checked by the library itself."""
    import compressed_tensors
    from compressed_tensors.quantization import QuantizationConfig

    groups: dict[tuple[object, ...], list[RecipeLayer]] = {}
    for layer in recipe.layers:
        if layer.name in formats:
            groups.setdefault((scheme(layer.width), formats[layer.name]), []).append(layer)
    described = {
        f"group_{index}": {
            "targets": patterns(layer.name for layer in members),
            "weights": _arguments(members[0].width),
            "format": formats[members[0].name],
        }
        for index, members in enumerate(groups.values())
    }
    several = sorted(set(formats.values()))
    checked = QuantizationConfig.model_validate(
        {
            "config_groups": described,
            "format": several[0] if len(several) == 1 else _MIXED,
            "quantization_status": "compressed",
            "ignore": list(ignored),
        }
    )
    return {"version": compressed_tensors.__version__, **checked.model_dump(mode="json")}


def _arguments(precision: Precision) -> dict[str, Any]:
    return {
        "num_bits": precision.code_bits,
        "type": "float" if precision.format == "FP8" else "int",
        "symmetric": True,
        "strategy": precision.granularity,
        "group_size": precision.group_size if precision.granularity == "group" else None,
        "dynamic": False,
    }


def patterns(names: Iterable[str]) -> list[str]:
    """Regular expressions, as the form has them (`re:…`), each anchored, that match these names and nothing else.

    Names share one where they differ in their first number alone, or besides that in their last part.
    """
    made = []
    numbers: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found is None:
            made.append(f"re:^{re.escape(name)}$")
        else:
            before, number, parents, last = found.groups()
            numbers.setdefault((before, parents, last), []).append(number)
    lasts: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for (before, parents, last), own in numbers.items():
        lasts.setdefault((before, tuple(own), parents), []).append(last)
    for (before, own_numbers, parents), own_lasts in lasts.items():
        number, last = _either(own_numbers), _either(own_lasts)
        made.append(rf"re:^{re.escape(before)}{number}\.{re.escape(parents)}{last}$")
    return made


def _either(parts: Sequence[str]) -> str:
    escaped = [re.escape(part) for part in parts]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def stored_bytes(path: Path) -> int:
    """Bytes of all codes, scales and floats of a checkpoint; shapes and indices are not among them.

    Args:
        path: of its config.json.

    Raises:
        InputError: the weights beside it are missing or damaged.
    """
    file = path.with_name(WEIGHTS)
    try:
        with safe_open(file, framework="np") as tensors:
            found = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  (no mapping)
            return sum(_item_bytes(name, found) * math.prod(one.get_shape()) for name, one in found.items())
    except Exception as error:  # the library's own classes
        raise InputError(f"{file}: no weights of a checkpoint, or damaged ones: {error}") from None


def _item_bytes(name: str, tensors: Mapping[str, Any]) -> int:
    """Bytes of one number of a tensor; 0 where it is no number of the network."""
    layer, _, part = name.rpartition(".")
    kind = tensors[name].get_dtype()
    if part in ("weight", "weight_packed") and f"{layer}.weight_scale" in tensors and kind in _CODE_BYTES:
        return _CODE_BYTES[kind]
    return _FLOAT_BYTES.get(kind, 0)
