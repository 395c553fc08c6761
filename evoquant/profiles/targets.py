"""What each deployment target can express: the data behind `deploy_to`, the linter and `evoquant export --list`.

A target takes a layer at a precision exactly as it was measured, at the size that was promised, or there is a reason
why not: `target_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evoquant.errors import InputError, suggestion
from evoquant.profiles.target_rules import (
    FLOATS,
    MATRICES,
    Facts,
    Rule,
    at_least,
    blocks_of,
    divides,
    formats,
    mobile,
    no_activations,
    nominal,
    only,
    plain_convolution,
    plain_float,
    slices,
    stored_in_8,
    symmetric,
    vectors_stay,
)

if TYPE_CHECKING:
    from evoquant.profiles.model import LayerProfile, ModelProfile
    from evoquant.quantization.precision import Menu, Precision

_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
_EXPERT = re.compile(r"(.*\bexperts)\.\d+\.(.+)")


@dataclass(frozen=True)
class Target:
    """A stack that recipes are deployed on.

    Attributes:
        summary: what the export is, in a few words.
        expresses: precisions and layers, for people.
        executes: where and in what arithmetic it runs.
        verified: package → version that the rules were checked with; empty where nothing could be run.
        extra: of evoquant, that brings those packages; None where none does.
        rules: asked in order, the first reason counts.
        fuses: whether the consumer merges query, key and value, gate and up, and experts, so that they share a width.
    """

    summary: str
    expresses: str
    executes: str
    verified: Mapping[str, str]
    extra: str | None
    rules: tuple[Rule, ...]
    fuses: bool = False

    def fault(self, layer: Facts, precision: Precision) -> str | None:
        """Why `layer` cannot be deployed at `precision`; None where it can."""
        return next((reason for rule in self.rules if (reason := rule(layer, precision)) is not None), None)


_ONNX_FORMATS = formats(
    *("INT2", "INT4", "INT8", "FP8", *FLOATS), of="there is no ONNX type for", instead="INT2, INT4, INT8 or FP8"
)
_ONNX = (nominal, divides, no_activations, _ONNX_FORMATS)
_ONNX_VERSIONS = {"onnx": "1.23.2", "onnxruntime": "1.32.0"}

TARGETS: dict[str, Target] = {
    "onnx": Target(
        "ONNX with a DequantizeLinear for each weight",
        "INT2 INT4 INT8 (also -asym), FP8, FP16, BF16, FP32; tensor, channel, group; every layer",
        "ONNX Runtime, any provider; floating-point arithmetic, exactly the measured weights",
        _ONNX_VERSIONS,
        "onnx",
        _ONNX,
    ),
    "onnx-matmulnbits": Target(
        "ONNX with MatMulNBits where a MatMul allows it, else as onnx",
        "as onnx; MatMul by groups of 16, 32, 64, 128 or 256 stays packed in memory",
        "ONNX Runtime's CPU and CUDA providers; floating-point arithmetic, exactly the measured weights",
        _ONNX_VERSIONS,
        "onnx",
        _ONNX,
    ),
    "openvino": Target(
        "OpenVINO IR with low-bit constants",
        "INT2 INT4 INT8 (also -asym), FP8, FP16, BF16, FP32; tensor, channel, group; every layer",
        "OpenVINO's CPU plugin; exact with INFERENCE_PRECISION_HINT f32 and DYNAMIC_QUANTIZATION_GROUP_SIZE 0",
        {"openvino": "2026.4.1"},
        "openvino",
        (
            nominal,
            divides,
            no_activations,
            formats(
                *("INT2", "INT4", "INT8", "FP8", *FLOATS),
                of="no verified OpenVINO type holds",
                instead="INT2, INT4, INT8 or FP8",
            ),
        ),
    ),
    "compressed-tensors": Target(
        "a Hugging Face checkpoint with compressed-tensors",
        "INT2 to INT8, FP8; tensor, channel, group; Linear and Embedding, other layers FP32",
        "transformers (floating-point arithmetic after decompression) and vLLM",
        {"compressed-tensors": "0.20.0", "transformers": "5.22.0"},
        None,
        (
            nominal,
            divides,
            no_activations,
            only((*MATRICES, "Embedding"), "compressed-tensors"),
            symmetric,
            formats(
                *(f"INT{bits}" for bits in range(2, 9)),
                *("FP8", *FLOATS),
                of="compressed-tensors has no",
                instead="INT4 or FP8",
            ),
            slices({"FP8": ("tensor", "channel")}, "compressed-tensors"),
            plain_float("FP32", why="unquantized layers share the model's one type"),
        ),
        fuses=True,
    ),
    "torchao": Target(
        "a state dict of torchao's tensors",
        "INT8, FP8; tensor, channel, group; Linear, Embedding, Conv2d by channel; FP16, BF16, FP32",
        "PyTorch; floating-point arithmetic, exactly the measured weights",
        {"torchao": "0.18.0", "torch": "2.13.0"},
        None,
        (
            nominal,
            divides,
            no_activations,
            symmetric,
            formats(
                *(f"INT{bits}" for bits in range(2, 9)), "FP8", *FLOATS, of="torchao has no", instead="INT8 or FP8"
            ),
            stored_in_8,
            plain_convolution,
            only((*MATRICES, "Embedding", "Conv"), "torchao"),
        ),
    ),
    "gguf": Target(
        "GGUF, a type for each tensor",
        "INT8-g32 (Q8_0), INT4-g32 (Q4_0), FP16, BF16, FP32; matrices of Llama-like models",
        "llama.cpp; its kernels round activations to 8 bits",
        {"gguf": "0.19.0"},
        None,
        (
            nominal,
            no_activations,
            only((*MATRICES, "Embedding"), "llama.cpp"),
            vectors_stay,
            symmetric,
            formats("INT4", "INT8", *FLOATS, of="no exact GGUF type holds", instead="INT4-g32 or INT8-g32"),
            slices({"INT4": ("g32",), "INT8": ("g32",)}, "GGUF"),
            blocks_of(32),
        ),
    ),
    "modelopt": Target(
        "NVIDIA ModelOpt's checkpoint",
        "INT4 by group, INT8-channel, FP8-tensor; Linear, other layers FP32",
        "TensorRT-LLM, vLLM, SGLang; not run here",
        {"nvidia-modelopt": "0.47.0"},
        None,
        (
            nominal,
            divides,
            no_activations,
            only(MATRICES, "the checkpoint"),
            symmetric,
            formats("INT4", "INT8", "FP8", *FLOATS, of="the checkpoint has no", instead="INT4-g128, INT8-channel"),
            slices({"INT4": ("group",), "INT8": ("channel",), "FP8": ("tensor",)}, "the checkpoint"),
            plain_float("FP32", why="unquantized layers share the model's one type"),
        ),
        fuses=True,
    ),
    "tensorrt": Target(
        "ONNX for TensorRT 11 (strongly typed)",
        "INT4, INT8, FP8, symmetric; FP16, BF16, FP32",
        "NVIDIA GPUs; not run here",
        {},
        None,
        (
            nominal,
            divides,
            no_activations,
            symmetric,
            formats("INT4", "INT8", "FP8", *FLOATS, of="TensorRT has no weights of", instead="INT4, INT8 or FP8"),
        ),
    ),
    "executorch": Target(
        "torchao configs for ExecuTorch's XNNPACK backend",
        "Embedding INT2, INT4, INT8; Linear INT4 or INT8 with INT8 activations; other layers INT8 with them",
        "mobile CPUs; not run here",
        {},
        None,
        (
            nominal,
            divides,
            symmetric,
            formats("INT2", "INT4", "INT8", "FP32", of="XNNPACK has no", instead="INT4, INT8 or FP32"),
            mobile,
        ),
    ),
    "coreml": Target(
        "a Core ML optimization config",
        "INT4, INT8; tensor, channel, group; at least 2048 weights; FP16, FP32",
        "Apple devices; not run here",
        {},
        None,
        (
            nominal,
            divides,
            no_activations,
            formats("INT4", "INT8", "FP16", "FP32", of="Core ML has no", instead="INT4 or INT8"),
            at_least(2048),
        ),
    ),
}


def target_named(name: str) -> Target:
    """A target by its name.

    Raises:
        InputError: there is none.
    """
    if name not in TARGETS:
        raise InputError(f"unknown deployment target {name!r}.{suggestion(name, TARGETS)}")
    return TARGETS[name]


def fused_groups(layers: Sequence[Facts]) -> list[tuple[str, ...]]:
    """Layers that serving stacks merge into one matrix: query, key and value; gate and up; all experts of a block.

    Found by the names that Hugging Face models have; at least two layers each.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        expert = _EXPERT.fullmatch(layer.name)
        if expert:
            found.setdefault((expert[1], "experts"), []).append(layer.name)
            continue
        parent, _, last = layer.name.rpartition(".")
        for names in _FUSED:
            if last in names:
                found.setdefault((parent, names[0]), []).append(layer.name)
    return [tuple(names) for names in found.values() if len(names) > 1]


def constrained(profile: ModelProfile, menu: Menu, targets: Sequence[str]) -> ModelProfile:
    """The profile with what all of these targets can take: narrower `allowed`, and fused layers tied.

    Raises:
        InputError: no such target, or a layer cannot be deployed at any width of the menu; the message says why.
    """
    chosen = {name: target_named(name) for name in targets}
    layers = []
    for layer in profile.layers:
        faults = {}
        for precision in menu:
            if not layer.allows(precision):
                continue
            faults[precision.name] = next(
                (f"{name}: {why}" for name, target in chosen.items() if (why := target.fault(layer, precision))), None
            )
        allowed = tuple(name for name, fault in faults.items() if fault is None)
        if not allowed:
            reason = next(iter(faults.values()), None) or "its own list allows none"
            raise InputError(
                f"deploy_to: layer {layer.name!r} ({layer.type}) cannot be deployed at any width of the menu "
                f"{', '.join(menu.names)}: {reason}."
            )
        layers.append(layer if len(allowed) == len(menu) else replace(layer, allowed=allowed))
    if any(target.fuses for target in chosen.values()):
        layers = _tied(layers, fused_groups(layers))
    return replace(profile, layers=tuple(layers))


def _tied(layers: Sequence[LayerProfile], groups: Sequence[tuple[str, ...]]) -> list[LayerProfile]:
    """Tie the members of each group with each other and with all that they are tied to already."""
    group_of = {layer.name: layer.tie_group for layer in layers}
    for names in groups:
        merged = {group_of[name] for name in names} - {None}
        label = next((group_of[name] for name in names if group_of[name]), f"{names[0]}+{len(names) - 1}")
        for name, group in group_of.items():
            if name in names or (group is not None and group in merged):
                group_of[name] = label
    return [
        layer if layer.tie_group == group_of[layer.name] else replace(layer, tie_group=group_of[layer.name])
        for layer in layers
    ]
