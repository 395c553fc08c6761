"""The table of what writes recipes: one consumer's form each, every package imported only where it is needed."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evoquant.errors import InputError, MissingExtraError, suggestion
from evoquant.export.recipe import Recipe, write_recipe
from evoquant.models.onnx_session import require_onnx

if TYPE_CHECKING:
    from evoquant.models.deployable import Deployable

Write: TypeAlias = Callable[[Recipe, "Deployable", Path], list[Path]]
"""Writes a recipe for one consumer to a path; the files that there are then, the main one first."""

LEAST_ONNX = (1, 20)  # the first with the types INT2 and UINT2


def _recipe(recipe: Recipe, _: Deployable, path: Path) -> list[Path]:
    return [path, write_recipe(recipe, path)]


def _require_onnx(path: Path | None) -> None:
    """Whether onnx can be used; `path`, where there is one, is that of an ONNX file."""
    if path is not None and path.suffix != ".onnx":
        raise InputError(f"{path}: an ONNX model is an .onnx file; name it {path.with_suffix('.onnx').name}.")
    require_onnx("an export through ONNX")
    found = metadata.version("onnx")
    if tuple(int(part) for part in found.split(".")[:2]) < LEAST_ONNX:
        least = ".".join(map(str, LEAST_ONNX))
        raise InputError(f"onnx {found} is installed; exports need {least} at least: pip install 'evoquant[onnx]' -U.")


def _onnx(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    _require_onnx(path)
    from evoquant.export.as_onnx import onnx_model, write_onnx

    return write_onnx(onnx_model(ready.graph(), recipe), path)


def _matmulnbits(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    _require_onnx(path)
    from evoquant.export.as_matmulnbits import matmulnbits_model
    from evoquant.export.as_onnx import write_onnx

    return write_onnx(matmulnbits_model(ready.graph(), recipe), path)


def _openvino(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    _require_onnx(None)
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("an export to OpenVINO", "openvino", "openvino") from None
    del openvino
    from evoquant.export.as_openvino import openvino_files

    return openvino_files(recipe, ready, path)


def _tensorrt(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    _require_onnx(None)
    from evoquant.export.as_tensorrt import tensorrt_files

    return tensorrt_files(recipe, ready, path)


def _compressed_tensors(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_compressed_tensors import compressed_tensors_files

    return compressed_tensors_files(recipe, ready, path)


def _torchao(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_torchao import torchao_files

    return torchao_files(recipe, ready, path)


def _gguf(recipe: Recipe, ready: Deployable, path: Path, base: Path | None = None) -> list[Path]:
    from evoquant.export.as_gguf import gguf_files

    return gguf_files(recipe, ready, path, base)


def _modelopt(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_modelopt import modelopt_files

    return modelopt_files(recipe, ready, path)


def _executorch(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_executorch import executorch_files

    return executorch_files(recipe, ready, path)


def _coreml(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
    from evoquant.export.as_coreml import coreml_files

    return coreml_files(recipe, ready, path)


def _checked(write: Write, **needed: str) -> Write:
    """The writer, which first looks whether its packages are there: what each is imported by → its extra."""

    def checked(recipe: Recipe, ready: Deployable, path: Path) -> list[Path]:
        for package, extra in {"torch": "torch", "safetensors": "torch", **needed}.items():
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError("this export", package, extra)
        return write(recipe, ready, path)

    return checked


WRITERS: dict[str, Write] = {
    "recipe": _recipe,
    "onnx": _onnx,
    "onnx-matmulnbits": _matmulnbits,
    "openvino": _openvino,
    "compressed-tensors": _checked(_compressed_tensors, transformers="huggingface", compressed_tensors="huggingface"),
    "torchao": _checked(_torchao, torchao="torchao"),
    "gguf": _checked(_gguf, gguf="gguf", transformers="gguf"),
    "modelopt": _checked(_modelopt, modelopt="modelopt", requests="modelopt"),
    "tensorrt": _tensorrt,
    "executorch": _executorch,
    "coreml": _coreml,
}
"""Target → what writes it; names are those of `evoquant.profiles.targets.TARGETS`, and `recipe` itself."""


SUFFIXES = {
    "recipe": ".json",
    "onnx": ".onnx",
    "onnx-matmulnbits": ".onnx",
    "openvino": ".xml",
    "compressed-tensors": "",
    "torchao": ".safetensors",
    "gguf": ".gguf",
    "modelopt": "",
    "tensorrt": ".onnx",
    "executorch": ".py",
    "coreml": ".yaml",
}
"""Of the main file; empty for a folder."""


def writer_of(target: str, others: Iterable[str] = ()) -> Write:
    """What writes recipes for a target.

    Args:
        target: its name.
        others: names that people may have meant besides.

    Raises:
        InputError: no such target.
    """
    if target in WRITERS:
        return WRITERS[target]
    raise InputError(f"unknown export target {target!r}.{suggestion(target, {*WRITERS, *others})}")


def with_base(target: str, base: Path) -> Write:
    """What writes GGUF files with the vocabulary and the settings of another.

    Args:
        target: gguf.
        base: the other file.

    Raises:
        InputError: another target, which takes none.
    """
    if target != "gguf":
        raise InputError(
            f"{target} takes no base; it is for gguf: a file that llama.cpp's converter made of the model."
        )

    return _checked(functools.partial(_gguf, base=base), gguf="gguf")
