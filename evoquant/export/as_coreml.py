"""Core ML: a config for coremltools that says how each layer is quantized. Nothing here runs Core ML.

coremltools quantizes by itself, and knows a weight by the name that converting gave it. It passes over names that it
does not find without a word; the lines above the config say how to find out. Imports PyTorch where it is used.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import yaml

from evoquant.errors import InputError
from evoquant.export.lint import require_taken
from evoquant.export.source import one_line
from evoquant.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable

TARGET = "coreml"
SUFFIX = ".yaml"
_TYPES = {("INT4", False): "int4", ("INT8", False): "int8", ("INT4", True): "uint4", ("INT8", True): "uint8"}

_HOW = """\
#   import coremltools as ct, coremltools.optimize.coreml as cto
#   model = ct.convert(torch.jit.trace(network, inputs), inputs=[...], convert_to="mlprogram",
#                      minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32)
#   config = cto.OptimizationConfig.from_yaml("THIS_FILE")
#   names = {name for name, layer in config.op_name_configs.items() if layer is not None}
#   print(names - set(cto.get_weights_metadata(model, weight_threshold=0)))  # has to be empty
#   model = cto.linear_quantize_weights(model, config)
#
# coremltools passes over names that it does not find. These are the names after torch.jit.trace with FLOAT32; after
# torch.export they begin with p_, and with FLOAT16 they end in _to_fp16. It makes codes and scales by itself, scales
# in the model's type: FP32 here, of 32 bits each, where evoquant counts 16.
"""


def coreml_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write the config to `path` (ending in .yaml), for `coremltools.optimize.coreml.OptimizationConfig.from_yaml`.

    Args:
        recipe: its text counts, not its numbers.
        ready: a PyTorch network.
        path: of the .yaml file.

    Returns:
        The path.

    Raises:
        InputError: another ending, no PyTorch network, a layer that coremltools cannot hold, that the network lacks or
            that coremltools cannot tell from another, or the file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: the config for coremltools is a {SUFFIX} file; name it {path.stem}{SUFFIX}.")
    named = ready.network(TARGET).named_parameters(remove_duplicate=False)
    shapes = {name: tuple(parameter.shape) for name, parameter in named}
    configs: dict[str, dict[str, Any] | None] = {}
    by_name: dict[str, str] = {}
    for layer in recipe.layers:
        name = weight_name(_parameter(layer, shapes))
        if name in by_name:
            raise InputError(
                f"layers {by_name[name]!r} and {layer.name!r}: coremltools would call both weights {name}; rename one."
            )
        by_name[name] = layer.name
        configs[name] = _config(layer)
    data = {"config_type": "OpLinearQuantizerConfig", "op_name_configs": configs}
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    write_atomic(path, f"{_introduction(recipe)}{body}")
    return [path]


def weight_name(parameter: str) -> str:
    """What coremltools calls a parameter of a traced network: `blocks.0.weight` → `blocks_0_weight`."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", parameter)
    return f"op_{name}" if name[:1].isdigit() else name


def _parameter(layer: RecipeLayer, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The parameter that a layer is; layers have the names of modules, and nn.MultiheadAttention has `in_proj_weight`.

    Raises:
        InputError: the network has none.
    """
    for name in (f"{layer.name}.weight", layer.name, f"{layer.name}_weight"):
        if shapes.get(name) == layer.shape:
            return name
    raise InputError(
        f"layer {layer.name!r}: the network has no weight of this name and the shape {layer.shape}; export a recipe "
        f"of this network."
    )


def _config(layer: RecipeLayer) -> dict[str, Any] | None:
    """Of one weight; None leaves it as it is.

    Raises:
        InputError: coremltools does not take it so.
    """
    width = layer.width
    require_taken(layer, TARGET)
    if not width.has_scales:
        return None
    return {
        "mode": "linear" if width.asymmetric else "linear_symmetric",
        "dtype": _TYPES[width.format, width.asymmetric],
        **_slices(layer),
        "weight_threshold": 0,  # else weights of 2048 numbers and fewer stay as they are
    }


def _slices(layer: RecipeLayer) -> dict[str, Any]:
    """What shares a scale. Blocks say it for each axis, 0 for all of it; by channel coremltools would pick the axis."""
    width, axis = layer.width, layer.channel_axis
    if width.granularity == "tensor" or axis is None:
        return {"granularity": "per_tensor"}
    block = [0] * len(layer.shape)
    block[axis] = 1
    if width.granularity == "group":
        block[1] = width.group_size // math.prod(layer.shape[2:])  # whole input channels, as the rules say
    return {"granularity": "per_block", "block_size": block}


def _introduction(recipe: Recipe) -> str:
    halves = [layer.name for layer in recipe.layers if layer.precision == "FP16"]
    lines = [
        f"# {one_line(recipe.model)} for Core ML, made by evoquant.",
        "# NOT RUN BY EVOQUANT: compare the outputs yourself before you rely on it.",
        "#",
    ]
    text = "".join(f"{line}\n" for line in lines) + _HOW
    if halves:
        text += "#\n# FP16 in the recipe, which is a matter of compute_precision (ct.transform.FP16ComputePrecision):\n"
        text += "".join(f"#   {one_line(name)}\n" for name in halves)
    return text
