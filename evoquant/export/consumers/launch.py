"""Start a consumer in a fresh process, and read in what arithmetic it has run a model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evoquant.errors import InputError, MissingExtraError
from evoquant.export.consumers import ANSWER
from evoquant.files import canonical_json, read_json, write_atomic
from evoquant.profiles.targets import TARGETS, target_named

if TYPE_CHECKING:
    from onnx import GraphProto

Facts: TypeAlias = Mapping[str, Any]

LONGEST = 600  # characters of a consumer's message
_FUSED_LEVEL = 2  # MatMulNBits: 0 as it likes (float on CPUs), 1 float32, 2 float16, 3 bfloat16, 4 int8
_INTEGER_OPERATORS = ("QuantizeLinear", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "QGemm", "QAttention")
_INTEGER_PREFIXES = ("DynamicQuantize", "QLinear")


@dataclass(frozen=True)
class Consumer:
    """What runs the models of a target.

    Attributes:
        name: for people.
        package: whose version counts.
        module: the script.
        suffix: of a model file.
        stored: bytes of a model file's float tensors.
        rounding: facts of a model and of the FP32 one → what rounds activations in the first; None where that cannot
            be known.
        defaults: a model's facts → what the consumer would round if it were left to itself; empty for nothing.
    """

    name: str
    package: str
    module: str
    suffix: str
    stored: Callable[[Path], int]
    rounding: Callable[[Facts, Facts], tuple[str, ...] | None]
    defaults: Callable[[Facts], str]


@dataclass(frozen=True)
class Answer:
    """What a consumer has to say.

    Attributes:
        fault: why there is nothing else; empty where all went well.
        version: its own.
        facts: model → how it was run.
        seconds: model → of each timed pass.
    """

    fault: str = ""
    version: str = ""
    facts: Mapping[str, Facts] | None = None
    seconds: Mapping[str, Sequence[float]] | None = None


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
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"verifying {target}", package, verified.extra or target)
    return CONSUMERS[target]


def version_notes(target: str) -> tuple[str, ...]:
    """Packages whose version is another than the one that the target's rules were checked with."""
    notes = []
    for package, wanted in TARGETS[target].verified.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:  # under another name, as onnxruntime-gpu
            continue
        if found != wanted:
            notes.append(f"{target} was checked with {package} {wanted}, this is {found}.")
    return tuple(notes)


def run_consumer(
    consumer: Consumer,
    models: Mapping[str, Path],
    inputs: Path,
    names: Sequence[str],
    batches: int,
    outputs: Sequence[str],
    folder: Path,
    repeats: int = 0,
) -> Answer:
    """Run models in a fresh process; their outputs are in `folder`, NAME.npz for each.

    Args:
        consumer: what runs them.
        models: name → file.
        inputs: as `evoquant.export.consumers.write_arrays` writes them.
        names: of the inputs.
        batches: how many of them are run.
        outputs: names of the outputs.
        folder: made anew.
        repeats: timed passes over the first batch.
    """
    folder.mkdir()
    job = {
        "models": [[name, str(path)] for name, path in models.items()],
        "inputs": str(inputs),
        "names": list(names),
        "batches": batches,
        "outputs": list(outputs),
        "folder": str(folder),
        "repeats": repeats,
    }
    file = folder / "job.json"
    write_atomic(file, canonical_json(job))
    # the same packages as here, and nothing that happens to lie in the current folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", consumer.module, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode:
        return Answer(_message(consumer, done.returncode, done.stderr.decode("utf-8", "replace")))
    answer = read_json(folder / ANSWER)
    return Answer("", answer["version"], answer["facts"], answer["seconds"])


def _message(consumer: Consumer, code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    tail = lines[-1] if lines else "it said nothing"
    return f"{consumer.name} {how}: {tail[:LONGEST]}"


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


_ONNXRUNTIME = Consumer(
    "ONNX Runtime",
    "onnxruntime",
    "evoquant.export.consumers.onnxruntime_run",
    ".onnx",
    _onnx_bytes,
    _rounding_nodes,
    lambda _: "",
)
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
}
"""Target → what runs its models; targets that are not here are not run by evoquant."""
