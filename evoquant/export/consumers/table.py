"""Which consumer runs a target's models, and how to read in what arithmetic it has run one."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from evoquant.errors import InputError, MissingExtraError
from evoquant.export.consumers.launch import Consumer, Facts
from evoquant.profiles.targets import TARGETS, target_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto

    from evoquant.export.recipe import Recipe

_MODULES = {"nvidia-modelopt": "modelopt"}
"""Package → what it is imported by, where that is another name."""

_FUSED_LEVEL = 2  # MatMulNBits: 0 as it likes (float on CPUs), 1 float32, 2 float16, 3 bfloat16, 4 int8
_INTEGER_OPERATORS = ("QuantizeLinear", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "QGemm", "QAttention")
_INTEGER_PREFIXES = ("DynamicQuantize", "QLinear")


def consumer_of(target: str) -> Consumer:
    """The consumer of a target's models, known to be installed.

    Raises:
        InputError: no such target, or its models cannot be run here.
        MissingExtraError: its packages are not installed.
    """
    verified = target_named(target)
    if target not in CONSUMERS:
        raise InputError(f"{target}: its models are not run by evoquant; verify can run {', '.join(CONSUMERS)}.")
    for package in verified.verified:
        if importlib.util.find_spec(_MODULES.get(package, package.replace("-", "_"))) is None:
            raise MissingExtraError(f"running models of {target}", package, verified.extra or target)
    return CONSUMERS[target]


def version_notes(target: str) -> tuple[str, ...]:
    """Packages whose version is another than the one that the target's rules were checked with."""
    notes = []
    for package, wanted in TARGETS[target].verified.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:  # under another name, as onnxruntime-gpu
            continue
        if found.partition("+")[0] != wanted:  # a build, as +cpu, is no other version
            notes.append(f"{target} was checked with {package} {wanted}, this is {found}.")
    return tuple(notes)


def _rounding_nodes(facts: Facts, fp32: Facts) -> tuple[str, ...] | None:
    """Nodes of ONNX Runtime's optimized graph that round activations; not those that a user's own FP32 graph has."""
    import onnx

    def found(file: str | None) -> list[str]:
        return [] if file is None else list(_rounding_in(onnx.load_model(file, load_external_data=False).graph))

    if facts["optimized"] is None:
        return None
    theirs = found(fp32["optimized"])
    return tuple(name for name in found(facts["optimized"]) if name not in theirs)


def _rounding_in(graph: GraphProto) -> Iterator[str]:
    from onnx import AttributeProto

    for node in graph.node:
        level = next((a.i for a in node.attribute if a.name == "accuracy_level"), 0)
        label = node.name or next(iter(node.output), "")
        if node.op_type in _INTEGER_OPERATORS or node.op_type.startswith(_INTEGER_PREFIXES):
            yield f"{node.op_type} {label}"
        elif node.op_type == "MatMulNBits" and level >= _FUSED_LEVEL:
            yield f"MatMulNBits {label} (accuracy_level {level})"
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _rounding_in(attribute.g)


def _rounding_settings(facts: Facts, _: Facts) -> tuple[str, ...]:
    said = _said(facts["settings"])
    return (said,) if said else ()


def _said(settings: Facts) -> str:
    """Activations in which types; empty for float32."""
    parts = [] if settings["precision"] == "f32" else [settings["precision"].upper()]
    group = settings["dynamic_quantization_group"]
    if group:
        parts.append(f"INT8 in groups of {group}")
    return " / ".join(parts)


def _onnx_bytes(path: Path) -> int:
    import onnx

    from evoquant.export.as_onnx import float_bytes

    return float_bytes(onnx.load_model(str(path)))


def _openvino_bytes(path: Path) -> int:
    from evoquant.export.as_openvino import constant_bytes

    return int(constant_bytes(path))


def _compressed_tensors_bytes(path: Path) -> int:
    from evoquant.export.as_compressed_tensors import stored_bytes

    return stored_bytes(path)


def _torchao_bytes(path: Path) -> int:
    from evoquant.export.as_torchao import stored_bytes

    return stored_bytes(path)


def _gguf_bytes(path: Path) -> int:
    from evoquant.export.as_gguf import stored_bytes

    return stored_bytes(path)


def _modelopt_bytes(path: Path) -> int:
    from evoquant.export.as_modelopt import stored_bytes

    return stored_bytes(path)


def _torchao_due(recipe: Recipe, _: Path) -> float:
    from evoquant.export.as_torchao import due_bytes

    return due_bytes(recipe)


def _modelopt_due(recipe: Recipe, path: Path) -> float:
    from evoquant.export.as_modelopt import CHECKPOINT, due_bytes

    return due_bytes(recipe, checkpoint=(path.parent / CHECKPOINT).is_dir())


def _floating_point(_: Facts, __: Facts) -> tuple[str, ...]:
    """Of consumers that expand weights and compute with them."""
    return ()


_ONNXRUNTIME = Consumer(
    "ONNX Runtime",
    "onnxruntime",
    "evoquant.export.consumers.onnxruntime_run",
    ".onnx",
    _onnx_bytes,
    _rounding_nodes,
)
_LLAMACPP_ROUNDS = "llama.cpp's kernels round the inputs of a matrix to its own kind: 8 bits by blocks, or 16 bits"
CONSUMERS: dict[str, Consumer] = {
    "onnx": _ONNXRUNTIME,
    "onnx-matmulnbits": _ONNXRUNTIME,
    "openvino": Consumer(
        "OpenVINO",
        "openvino",
        "evoquant.export.consumers.openvino_run",
        ".xml",
        _openvino_bytes,
        _rounding_settings,
        lambda facts: _said(facts["defaults"]),
    ),
    "compressed-tensors": Consumer(
        "transformers",
        "transformers",
        "evoquant.export.consumers.transformers_run",
        "",
        _compressed_tensors_bytes,
        _floating_point,
    ),
    "torchao": Consumer(
        "PyTorch with torchao",
        "torchao",
        "evoquant.export.consumers.torchao_run",
        ".safetensors",
        _torchao_bytes,
        _floating_point,
        due=_torchao_due,
        network=True,
    ),
    "gguf": Consumer(
        "llama.cpp",
        "xllamacpp",
        "evoquant.export.consumers.llamacpp_run",
        ".gguf",
        _gguf_bytes,
        lambda facts, _: tuple(f"inputs of {kind} matrices" for kind in facts["types"] if kind != "F32"),
        rounds=_LLAMACPP_ROUNDS,
        outputs=0.04,
        retention=0.005,
        log_probabilities=True,
        values=600_000,
        timed=False,
    ),
    "modelopt": Consumer(
        "ModelOpt's simulation",
        "nvidia-modelopt",
        "evoquant.export.consumers.modelopt_run",
        "",
        _modelopt_bytes,
        lambda facts, _: tuple(facts["rounding"]),
        due=_modelopt_due,
        network=True,
    ),
}
"""Target → what runs its models; targets that are not here are not run by evoquant."""
