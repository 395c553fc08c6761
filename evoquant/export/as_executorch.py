"""ExecuTorch: a Python script that quantizes a network with torchao and lowers it to XNNPACK. Nothing here runs it.

The script is text without numbers: torchao makes codes and scales by itself. Its table of layers is made of literals,
so that no name can become code. Imports PyTorch where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.export.python_text import escaped, literal
from evoquant.files import write_atomic
from evoquant.profiles.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from evoquant.export.recipe import Recipe
    from evoquant.export.recipe_schema import RecipeLayer
    from evoquant.models.deployable import Deployable

TARGET = "executorch"
SUFFIX = ".py"


def executorch_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write the script to `path` (ending in .py).

    Args:
        recipe: its text counts, not its numbers.
        ready: a PyTorch network.
        path: of the .py file.

    Returns:
        The path.

    Raises:
        InputError: another ending, no PyTorch network, a layer that XNNPACK does not take at its precision, or the
            file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: the script for ExecuTorch is a {SUFFIX} file; name it {path.stem}{SUFFIX}.")
    network = ready.network(TARGET)  # before PyTorch is imported: an ONNX file needs none to be refused
    rows, untouched = [], []
    for layer in recipe.layers:
        if layer.precision == "FP32":
            untouched.append(f"    {literal(layer.name)},\n")
            continue
        kind = "embedding" if _is_embedding(network, layer) else "linear"
        width = layer.width
        rows.append(
            f"    ({literal(layer.name)}, {literal(kind)}, {width.code_bits}, {width.group_size}, {layer.shape!r}),\n"
        )
    text = (
        f'"""{escaped(recipe.model)} for ExecuTorch, quantized layer by layer; made by evoquant.\n{_USAGE}'
        f"# Module, what it is, bits, weights that share a scale (0: those of an output), shape of its weight.\n"
        f"LAYERS = (\n{''.join(rows)})\n"
        f"\n# What stays in FP32.\nUNTOUCHED = (\n{''.join(untouched)})\n{_CODE}"
    )
    write_atomic(path, text)
    return [path]


def _is_embedding(network: nn.Module, layer: RecipeLayer) -> bool:
    """Whether a layer is quantized as an embedding; else it is a matrix.

    Raises:
        InputError: XNNPACK does not take it so, or its module is not what the recipe says.
    """
    from torch import nn

    from evoquant.export.hf import linear

    fault = TARGETS[TARGET].fault(layer, layer.width)
    if layer.name.startswith("re:") or layer.name == "_default":
        fault = "torchao takes such a name for a pattern; rename the module"
    if fault is None:
        module = linear(network, layer.name, "ExecuTorch")
        embedding = isinstance(module, nn.Embedding)
        if embedding == (layer.type == "Embedding"):
            return embedding
        fault = (
            f"the recipe takes it for a layer of type {layer.type}, and it is a {type(module).__name__}; choose FP32"
        )
    raise InputError(f"layer {layer.name!r} at {layer.precision}: {fault}.")


_USAGE = '''
NOT RUN BY EVOQUANT: compare the outputs yourself before you rely on it. torchao makes codes and scales by itself, so
what was measured is only near what it makes.

    from this_file import lower, quantize
    quantize(network)                           in place
    lower(network, (inputs,), "model.pte")      or a module that holds it and gives the outputs that you want

It needs torch, torchao and, to lower, executorch.
"""

'''

_CODE = '''

def configuration():
    """The torchao config of every layer, by the name of its module."""
    import torch
    from torchao.quantization import (
        FqnToConfig,
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        PerAxis,
        PerGroup,
    )

    types = {2: torch.int2, 4: torch.int4, 8: torch.int8}
    configs = {}
    for name, kind, bits, group, _ in LAYERS:
        slices = PerGroup(group) if group else PerAxis(0)
        if kind == "embedding":
            configs[name] = IntxWeightOnlyConfig(weight_dtype=types[bits], granularity=slices)
        else:
            configs[name] = Int8DynamicActivationIntxWeightConfig(weight_dtype=types[bits], weight_granularity=slices)
    return FqnToConfig(configs)


def quantize(network):
    """Quantize a network in place and return it; ValueError where it lacks a layer, which torchao passes over."""
    from torchao.quantization import quantize_

    modules = dict(network.named_modules())
    for name, _, _, _, shape in LAYERS:
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or tuple(weight.shape) != shape:
            raise ValueError("the network has no module " + repr(name) + " with a weight of shape " + repr(shape))
    if LAYERS:
        quantize_(network, configuration(), filter_fn=None)
    return network


def lower(network, inputs, path):
    """Lower a quantized network to XNNPACK for a tuple of example inputs, and write the .pte file."""
    import executorch.kernels.quantized  # registers what reads quantized embeddings
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

    exported = torch.export.export(network.eval(), inputs)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    # Without the fusion quantized embeddings have no kernel.
    program = lowered.to_executorch(ExecutorchBackendConfig(do_quant_fusion_and_const_prop=True))
    with open(path, "wb") as file:
        file.write(program.buffer)
'''
