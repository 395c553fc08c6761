"""What each deployment target can express: the data behind `deploy_to`, the linter and `evoquant export --list`.

A target takes a layer at a precision exactly as it was measured, at the size that was promised, or there is a reason
why not: `target_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evoquant.errors import InputError, quoted, suggestion
from evoquant.profiles.target_rules import (
    FLOATS,
    MATRICES,
    Facts,
    Rule,
    blocks_of,
    blocks_of_inputs,
    divides,
    embedding_of_8,
    even_rows,
    formats,
    held_by_graph,
    if_any,
    if_not_convolution,
    if_not_vector,
    llama_names,
    mobile,
    no_activations,
    nominal,
    not_past_module,
    of_format,
    off_marlin,
    only,
    plain_convolution,
    plain_float,
    rows_of_outputs,
    several_rows,
    slices,
    stored_in_8,
    symmetric,
    unpacked,
    untied,
    vectors_stay,
    whole_range,
)

if TYPE_CHECKING:
    from evoquant.quantization.precision import Precision

_FUSED = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"), ("w1", "w3"))
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
        oversized: like rules, but what they find is taken at more bits than promised: a search leaves it out.
        cautions: like rules, but what they find is taken; people should know it.
        notes: what people should know of every export.
    """

    summary: str
    expresses: str
    executes: str
    verified: Mapping[str, str]
    extra: str | None
    rules: tuple[Rule, ...]
    fuses: bool = False
    oversized: tuple[Rule, ...] = ()
    cautions: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()

    def fault(self, layer: Facts, precision: Precision) -> str | None:
        """Why `layer` cannot be deployed at `precision`; None where it can."""
        return _first(self.rules, layer, precision)

    def excludes(self, layer: Facts, precision: Precision) -> str | None:
        """Why a search for this target leaves `precision` out for `layer`; None where it does not."""
        return _first((*self.rules, *self.oversized), layer, precision)

    def doubts(self, layer: Facts, precision: Precision) -> list[str]:
        """What people should know where `layer` is deployed at `precision`."""
        found = (rule(layer, precision) for rule in (*self.oversized, *self.cautions))
        return [reason for reason in found if reason is not None]


def _first(rules: Sequence[Rule], layer: Facts, precision: Precision) -> str | None:
    return next((reason for rule in rules if (reason := rule(layer, precision)) is not None), None)


_LOW = ("INT2", "INT4", "INT8", "FP8", *FLOATS)
_INTEGERS = tuple(f"INT{bits}" for bits in range(2, 9))
_BASE = (nominal, divides, no_activations)
_ONNX = (*_BASE, formats(*_LOW, of="there is no ONNX type for"))
_ONNX_VERSIONS = {"onnx": "1.23.2", "onnxruntime": "1.32.0"}
_NEW_ONNX = if_any(
    of_format("INT2"), "INT2 needs opset 25 and IR 13, which onnxruntime 1.32.0 loads and OpenVINO's reader does not"
)
_ONE_TYPE = "unquantized layers share the model's one type"
_NOT_RUN = "nothing could be run on it here: compare the outputs yourself before you rely on it"
_OWN_SCALES = "its tool makes codes and scales by itself, so what was measured is only near what it makes"

TARGETS: dict[str, Target] = {
    "onnx": Target(
        "ONNX with a DequantizeLinear for each weight",
        "INT2 INT4 INT8 (also -asym), FP8, FP16, BF16, FP32; tensor, channel, group; every layer",
        "ONNX Runtime, any provider; floating-point arithmetic, exactly the measured weights",
        _ONNX_VERSIONS,
        "onnx",
        _ONNX,
        cautions=(_NEW_ONNX,),
    ),
    "onnx-matmulnbits": Target(
        "ONNX with MatMulNBits where a MatMul allows it, else as onnx",
        "as onnx; MatMul by groups of 16, 32, 64, 128 or 256 stays packed in memory",
        "ONNX Runtime's CPU and CUDA providers; floating-point arithmetic, exactly the measured weights",
        _ONNX_VERSIONS,
        "onnx",
        _ONNX,
        cautions=(
            if_any(
                unpacked,
                "expanded in memory, as in onnx: MatMulNBits is for matrices of INT2, INT4 or INT8 by groups of 16 to "
                "256, powers of two",
            ),
            _NEW_ONNX,
        ),
    ),
    "openvino": Target(
        "OpenVINO IR with low-bit constants",
        "INT2 INT3 INT4 INT6 INT8 (also -asym), FP8, NF4, FP16, BF16, FP32; tensor, channel, group; every layer",
        "OpenVINO's CPU plugin; exactly the measured weights, in floating-point arithmetic once told so",
        {"openvino": "2026.4.1"},
        "openvino",
        (
            *_BASE,
            formats("INT2", "INT3", "INT4", "INT6", "INT8", "FP8", "NF4", *FLOATS, of="OpenVINO has no type for"),
        ),
        notes=(
            "by default OpenVINO may compute in bfloat16 and round activations to 8 bits; compile with "
            "INFERENCE_PRECISION_HINT f32 and DYNAMIC_QUANTIZATION_GROUP_SIZE 0 for what was measured",
        ),
    ),
    "compressed-tensors": Target(
        "a Hugging Face checkpoint with compressed-tensors",
        "Linear INT2 to INT8, FP8; tensor, channel, group; Embedding in 8 bits; other layers FP32",
        "transformers (floating-point arithmetic after decompression) and vLLM",
        {"compressed-tensors": "0.20.0", "transformers": "5.22.0"},
        "huggingface",
        (
            *_BASE,
            only((*MATRICES, "Embedding"), "compressed-tensors"),
            rows_of_outputs,
            not_past_module,
            symmetric,
            formats(*_INTEGERS, "FP8", *FLOATS, of="compressed-tensors has no"),
            untied,
            embedding_of_8,
            slices({"FP8": ("tensor", "channel")}, "compressed-tensors"),
            plain_float("FP32", why=_ONE_TYPE),
        ),
        fuses=True,
        cautions=(
            if_any(of_format("INT2", "INT3", "INT5", "INT6", "INT7"), "vLLM takes these bits in recent releases only"),
            if_any(
                lambda _, precision: precision.is_integer and precision.granularity == "tensor",
                "vLLM takes a scale for each channel or group, not one for the tensor",
            ),
            if_any(
                lambda layer, precision: layer.type == "Embedding" and precision.has_scales,
                "transformers loads it; nobody here has seen vLLM take a quantized embedding",
            ),
            if_any(
                off_marlin,
                "vLLM's fast kernels want outputs in multiples of 64, inputs of 128, and groups of 32, 64 or 128",
            ),
        ),
        notes=(
            "transformers 5.23.0 with dequantize=True decodes mixed recipes wrongly and without a word: use another "
            "release",
        ),
    ),
    "torchao": Target(
        "a state dict of torchao's tensors",
        "INT2 to INT8, FP8; tensor, channel, group; Linear, Embedding, Conv2d by channel; other layers FP32",
        "PyTorch; floating-point arithmetic, exactly the measured weights",
        {"torchao": "0.18.0", "torch": "2.13.0"},
        "torchao",
        (
            *_BASE,
            only((*MATRICES, "Embedding", "Conv"), "torchao"),
            plain_convolution,
            if_not_convolution(rows_of_outputs),
            symmetric,
            not_past_module,
            formats(*_INTEGERS, "FP8", *FLOATS, of="torchao has no"),
            plain_float("FP32", why="layers in 16 bits do not take inputs in 32"),
        ),
        oversized=(stored_in_8,),
        notes=(
            "some of its tensors keep a zero point of 8 bits beside each scale, which the promised size leaves out",
        ),
    ),
    "gguf": Target(
        "GGUF, a type for each tensor",
        "INT8-g32 (Q8_0), INT4-g32 (Q4_0), FP16, BF16, FP32; matrices of Llama-like models",
        "llama.cpp; its kernels round activations to 8 bits",
        {"gguf": "0.19.0", "xllamacpp": "2026.10.11549"},
        "gguf",
        (
            llama_names,
            nominal,
            no_activations,
            only((*MATRICES, "Embedding"), "llama.cpp"),
            vectors_stay,
            rows_of_outputs,
            blocks_of(32),
            symmetric,
            formats("INT4", "INT8", *FLOATS, of="no exact GGUF type holds"),
            slices({"INT4": ("g32",), "INT8": ("g32",)}, "GGUF"),
        ),
        notes=(
            "llama.cpp's kernels round activations to 8 bits, so outputs are a percent or two from the measured",
            "without --base, tokens are written as bytes, 3 specials before them: right for byte-level models alone",
        ),
    ),
    "modelopt": Target(
        "NVIDIA ModelOpt's checkpoint",
        "INT4 by group, INT8-channel, FP8-tensor; Linear, other layers FP32",
        "ModelOpt's simulation; the checkpoint is for TensorRT-LLM, vLLM, SGLang, not run here",
        {"nvidia-modelopt": "0.47.0"},
        "modelopt",
        (
            *_BASE,
            only(MATRICES, "the checkpoint"),
            rows_of_outputs,
            not_past_module,
            symmetric,
            formats("INT4", "INT8", "FP8", *FLOATS, of="the checkpoint has no"),
            even_rows,
            several_rows,
            slices({"INT4": ("group",), "INT8": ("channel",), "FP8": ("tensor",)}, "the checkpoint"),
            plain_float("FP32", why=_ONE_TYPE),
        ),
        fuses=True,
        cautions=(
            if_any(
                of_format("FP8"), "the checkpoint labels FP8 as of weights and activations; consumers may round both"
            ),
        ),
        notes=(
            "the checkpoint keeps scales in FP32, 2 bytes each more than promised",
            "only ModelOpt's own simulation runs here; what reads the checkpoint needs a GPU: compare the outputs "
            "yourself before you rely on it",
        ),
    ),
    "tensorrt": Target(
        "ONNX for TensorRT 11 (strongly typed)",
        "INT4-g64, INT4-g128; INT8, FP8 by tensor or channel; symmetric; FP16, BF16, FP32",
        "NVIDIA GPUs",
        {},
        "onnx",
        (
            *_BASE,
            held_by_graph,
            symmetric,
            formats("INT4", "INT8", "FP8", *FLOATS, of="TensorRT has no weights of"),
            slices({"INT4": ("g64", "g128"), "INT8": ("channel", "tensor"), "FP8": ("channel", "tensor")}, "TensorRT"),
        ),
        cautions=(if_any(of_format("FP8"), "FP8 needs a GPU of compute capability 8.9 or newer"),),
        notes=(_NOT_RUN,),
    ),
    "executorch": Target(
        "a script with torchao configs for ExecuTorch's XNNPACK backend",
        "Embedding INT2, INT4, INT8 by channel, group; Linear INT8-channel-a8, INT4-channel-a8, INT4-g32-a8 (g64, …); "
        "others FP32",
        "mobile CPUs",
        {},
        None,
        (
            nominal,
            divides,
            only((*MATRICES, "Embedding"), "XNNPACK"),
            rows_of_outputs,
            not_past_module,
            untied,
            symmetric,
            whole_range,
            formats("INT2", "INT4", "INT8", "FP32", of="XNNPACK has no"),
            slices(dict.fromkeys(("INT2", "INT4", "INT8"), ("channel", "group")), "its config"),
            mobile,
        ),
        notes=(_OWN_SCALES, _NOT_RUN),
    ),
    "coreml": Target(
        "a Core ML optimization config",
        "INT4, INT8 (also -asym); tensor, channel, group; two axes and more; FP16, FP32",
        "Apple devices",
        {},
        None,
        (
            *_BASE,
            whole_range,
            held_by_graph,
            if_not_vector,
            formats("INT4", "INT8", "FP16", "FP32", of="Core ML has no"),
            blocks_of_inputs,
        ),
        notes=(
            "scales take the converted model's type: in FP32, 2 bytes each more than promised",
            _OWN_SCALES,
            _NOT_RUN,
        ),
    ),
}


def target_named(name: str) -> Target:
    """A target by its name.

    Raises:
        InputError: there is none.
    """
    if name not in TARGETS:
        raise InputError(f"unknown deployment target {quoted(name)}.{suggestion(name, TARGETS)}")
    return TARGETS[name]


def fused_groups(layers: Sequence[Facts]) -> list[tuple[str, ...]]:
    """Layers that serving stacks merge into one matrix: query, key and value; gate and up; all experts of a block.

    Found by the names that Hugging Face models have; at least two layers each.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        name = layer.name.removesuffix(".weight")
        expert = _EXPERT.fullmatch(name)
        if expert:
            found.setdefault((expert[1], "experts"), []).append(layer.name)
            continue
        parent, _, last = name.rpartition(".")
        for names in _FUSED:
            if last in names:
                found.setdefault((parent, names[0]), []).append(layer.name)
    return [tuple(names) for names in found.values() if len(names) > 1]


def scheme(precision: Precision) -> tuple[object, ...]:
    """What has to agree where layers are fused: all but how the ranges were found."""
    return (
        precision.format,
        precision.granularity,
        precision.group_size,
        precision.asymmetric,
        precision.activation_bits,
    )
