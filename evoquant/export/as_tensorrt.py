"""TensorRT: the network in ONNX, and beside it the command lines that build and run it. Nothing here runs TensorRT.

Networks of TensorRT 11 are strongly typed: the types in the file decide, and trtexec has no flags for precisions.
Imported only once onnx is known to be there.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import TYPE_CHECKING

from evoquant.errors import InputError
from evoquant.export.as_onnx import DATA_SUFFIX, onnx_model, write_onnx
from evoquant.export.source import one_line
from evoquant.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import ModelProto

    from evoquant.export.recipe import Recipe
    from evoquant.models.deployable import Deployable

BESIDE = ".trtexec.txt"
_PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # trtexec parts names and shapes with colons and commas


def tensorrt_files(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    """Write the network to `path` (ending in .onnx), and how TensorRT 11 builds it to STEM.trtexec.txt beside it.

    An old text goes first, and where anything fails no new file is left: a model and a text that are there fit.

    Args:
        recipe: with its numbers.
        ready: the network.
        path: of the .onnx file.

    Returns:
        The .onnx file, its tensors where they need a file of their own, the text.

    Raises:
        InputError: another ending, a file cannot be written, or as `onnx_model`.
    """
    if path.suffix != ".onnx":
        raise InputError(f"{path}: an ONNX model is an .onnx file; name it {path.with_suffix('.onnx').name}.")
    model = onnx_model(ready.graph(), recipe, per_axis=True)  # TensorRT has blocks of INT4 alone
    text = _text(recipe, path.name, _free_shapes(model, ready))
    beside, data = path.with_name(f"{path.stem}{BESIDE}"), path.with_name(f"{path.name}{DATA_SUFFIX}")
    made: list[Path] = []
    try:
        beside.unlink(missing_ok=True)
        made += [] if data.exists() else [data]
        files = write_onnx(model, path)
        made += files
        write_atomic(beside, text)
    except BaseException as error:
        for file in made:
            with contextlib.suppress(OSError):
                file.unlink()
        if isinstance(error, OSError):
            raise InputError(f"{beside}: cannot be replaced: {error.strerror or error}.") from None
        raise
    return [*files, beside]


def _free_shapes(model: ModelProto, ready: Deployable) -> dict[str, tuple[int, ...]]:
    """Graph input → shape of the first test samples, where the graph leaves any of its axes open."""
    feeds = ready.feeds("test", 0, ready.batch)
    free = {
        value.name
        for value in model.graph.input
        if any(not axis.HasField("dim_value") for axis in value.type.tensor_type.shape.dim)
    }
    return {name: array.shape for name, array in feeds.items() if name in free}


def _text(recipe: Recipe, name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    plan = f"{name.removesuffix('.onnx')}.plan"
    one_shape: list[str] = []
    remark = "One shape is built, that of the measured samples; widen --minShapes and --maxShapes as you need."
    if not shapes:
        remark = "Every axis of its inputs is fixed."
    elif all(_PLAIN.fullmatch(each) for each in shapes):
        spec = ",".join(f"{each}:{'x'.join(map(str, shape))}" for each, shape in shapes.items())
        one_shape = [f"--{which}Shapes={spec}" for which in ("min", "opt", "max")]
    else:
        remark = "Inputs have open axes, and names that trtexec cannot be told: rename them, then give --optShapes."
    build = shlex.join(["trtexec", f"--onnx={name}", f"--saveEngine={plan}", *one_shape])
    run = shlex.join(
        ["trtexec", f"--loadEngine={plan}", "--loadInputs=NAME:FILE", f"--exportOutput={plan}.outputs.json"]
    )
    lines = [
        f"{recipe.model} for TensorRT 11, made by evoquant.",
        "NOT RUN BY EVOQUANT: compare the outputs yourself before you rely on it.",
        "",
        "Build (the types in the file decide; there are no flags for precisions):",
        "",
        f"    {build}",
        "",
        remark,
        "",
        "Compare: ONNX Runtime gives the measured outputs for the same file (evoquant verify RECIPE --to onnx). Give",
        "TensorRT the same inputs, raw bytes of each in a file of its own, and hold its outputs against those. What",
        "was measured in FP32 it may compute in TF32; trtexec --help says how to keep it from that.",
        "",
        f"    {run}",
        "",
        "Layers:",
        "",
        *(f"    {layer.precision:16} {layer.name}" for layer in recipe.layers),
    ]
    return "".join(f"{one_line(line)}\n" for line in lines)
