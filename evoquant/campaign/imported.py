"""Other tools' recipes as allocations: what kind a file is, by its content, and the reader for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evoquant.campaign.imported_compressed import compressed_tensors
from evoquant.campaign.imported_gguf import MAGIC, gguf_types
from evoquant.campaign.imported_layers import dtype_width
from evoquant.campaign.imported_modelopt import quant_cfg
from evoquant.campaign.imported_stated import checkpoint
from evoquant.errors import InputError, quoted
from evoquant.files import is_file, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from evoquant.campaign.imported_layers import Foreign

CONFIG, QUANT_CFG, STATED = "config.json", "quant_cfg.json", "hf_quant_config.json"
KINDS = "compressed-tensors (a checkpoint, or its config.json), ModelOpt (quant_cfg, hf_quant_config.json), GGUF"
_QUANTIZED, _OLDER = "quantization_config", "compression_config"
_GROUPS, _ENTRIES, _SECTION = "config_groups", "quant_cfg", "quantization"


def foreign_folder(folder: Path, limit: int) -> Foreign | None:
    """The recipe of a checkpoint's folder; None where it holds none.

    Args:
        folder: of another tool.
        limit: bytes of JSON that are read.

    Raises:
        InputError: a file is damaged, or asks for what evoquant cannot measure.
    """
    for name in (QUANT_CFG, STATED, CONFIG):
        path = folder / name
        if path.is_file():
            data = read_json(path, limit=limit)
            beside = folder / CONFIG
            rest = None
            if name == STATED and beside.is_file():
                rest = dtype_width(read_json(beside, limit=limit), str(beside))
            found = foreign_json(data, str(path), rest)
            if found is not None:
                return found
    return None


def foreign_binary(path: Path) -> Foreign | None:
    """The recipe of a GGUF file; None where the file is none.

    Raises:
        InputError: it is damaged, or has a type that evoquant has nothing like.
    """
    if not is_file(path):  # who opens a pipe waits for its other end
        return None
    try:
        with path.open("rb") as stream:
            begins = stream.read(len(MAGIC))
    except OSError:
        return None  # whoever reads it as text says so
    return gguf_types(path) if begins == MAGIC else None


def foreign_json(data: Any, source: str, rest: str | None = None) -> Foreign | None:
    """The recipe in a JSON file of another tool; None where it is none.

    Args:
        data: what the file holds.
        source: for messages.
        rest: precision of what is not quantized, where another file says it.

    Raises:
        InputError: it is damaged, or asks for what evoquant cannot measure.
    """
    if not isinstance(data, dict):
        return None
    if isinstance(data.get(_ENTRIES), (dict, list)):
        return quant_cfg(data, rest, source)
    if isinstance(data.get(_SECTION), dict) and "quant_algo" in data[_SECTION]:
        return checkpoint(data[_SECTION], rest, source)
    if isinstance(data.get(_GROUPS), dict):
        return _by_method(data, rest, source)
    for key in (_QUANTIZED, _OLDER):
        if isinstance(data.get(key), dict):
            return _by_method(data[key], dtype_width(data, source), f"{source}: {key}")
    if isinstance(data.get("architectures"), list) and isinstance(data.get("model_type"), str):
        return _unquantized(data, source)
    return None


def _by_method(config: Mapping[str, Any], rest: str | None, source: str) -> Foreign:
    method = config.get("quant_method", "compressed-tensors")
    if method == "modelopt":
        stated = {**config, "exclude_modules": config.get("ignore")}
        if "quant_algo" not in config:
            raise InputError(f"{source}: says no quant_algo; name its {STATED}.")
        return checkpoint(stated, rest, source)
    if method != "compressed-tensors":
        raise InputError(f"{source}: quant_method {quoted(method, 60)} is not read; evoquant reads {KINDS}.")
    return compressed_tensors(config, rest, source)


def _unquantized(config: Mapping[str, Any], source: str) -> Foreign:
    """Of a checkpoint without quantization: every layer at its dtype."""
    plain = compressed_tensors({_GROUPS: {}}, dtype_width(config, source), source)
    return replace(plain, warnings=(*plain.warnings, f"{source} has no {_QUANTIZED}: no layer is quantized"))
