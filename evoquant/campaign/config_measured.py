"""The parts of the campaign's configuration that are for real networks: where they come from, racing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator

from evoquant.campaign.config_base import CODE, Closed, size_in_bytes
from evoquant.errors import InputError, describe_validation, quoted, suggestion
from evoquant.models.base import SIGNALS
from evoquant.models.tasks import TASKS
from evoquant.scoring.statistics import METRICS

Samples = Annotated[int, Field(ge=1, le=10_000_000)]


class MeasuredSource(Closed):
    """What all sources share: a seed, samples a block (measured together), samples a forward pass.

    An example task has sizes of its own, which are taken where the config names none. `rounding` is one's own way from
    weights to codes, see `evoquant.quantization.protocol`. `quantized_cache` is how many bytes of quantized weights a
    worker keeps, such as 256MB; it changes memory and time, never a result, and is no part of the hash.
    """

    seed: Annotated[int, Field(ge=0, le=2**32)] = 0
    block: Samples | None = None
    batch: Samples | None = None
    rounding: Annotated[str, Field(pattern=CODE.pattern)] | None = None
    quantized_cache: str | int | None = None

    @field_validator("quantized_cache")
    @classmethod
    def _a_size(cls, value: str | int | None) -> str | int | None:
        if value is not None and size_in_bytes(value) is None:
            raise ValueError(f"{quoted(value)} is no size; write it as 256MB, 1GiB, or in bytes; 0 keeps nothing")
        return value

    @property
    def quantized_cache_bytes(self) -> int | None:
        """`quantized_cache` in bytes; None where the network's size decides."""
        return None if self.quantized_cache is None else size_in_bytes(self.quantized_cache)


class ExampleTaskConfig(MeasuredSource):
    """An example task, by name."""

    kind: str

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TASKS:
            known = (*TASKS, "torch", "onnx")
            raise ValueError(f"no task is called {quoted(value)}.{suggestion(value, known)}")
        return value


class TorchTaskConfig(MeasuredSource):
    """A PyTorch network of one's own; `factory` is `module:function`, see `evoquant.models.torch_task`."""

    kind: Literal["torch"]
    factory: Annotated[str, Field(pattern=CODE.pattern)]


class OnnxTaskConfig(MeasuredSource):
    """An ONNX file with its data; paths are relative to the config file.

    `metric` is a name (`agreement` with the FP32 outputs needs no targets), or one's own as `module:function`; by
    default the data's targets decide, see `evoquant.models.onnx_task`.
    """

    kind: Literal["onnx"]
    model: str
    data: str
    metric: str | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in METRICS and not CODE.fullmatch(value):
            raise ValueError(
                f"no metric is called {quoted(value)}, nor is it module:function.{suggestion(value, METRICS)}"
            )
        return value


class MemoryTaskConfig(MeasuredSource):
    """A network in the memory of a Python program; `evoquant.optimize` writes it, see `evoquant.campaign.in_memory`.

    `model` and `data` are digests; `samples` says how many each split has, `drawn` which splits were drawn from the
    calibration data. `whole` is the digest of the samples as they were given: `data`, but for what the seed draws.
    `code` is the digest of a metric of one's own, `rounding_code` that of a rounding method.
    """

    kind: Literal["memory"]
    runtime: Literal["torch", "onnx"]
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    data: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    whole: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    metric: Annotated[str, Field(min_length=1, max_length=500)]
    code: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    rounding: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    rounding_code: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    samples: dict[str, Samples] = Field(default={})
    drawn: list[str] = Field(default=[])


def _source(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind in ("torch", "onnx", "memory") else "example"


TaskConfig = Annotated[
    Annotated[ExampleTaskConfig, Tag("example")]
    | Annotated[TorchTaskConfig, Tag("torch")]
    | Annotated[OnnxTaskConfig, Tag("onnx")]
    | Annotated[MemoryTaskConfig, Tag("memory")],
    Discriminator(_source),
]


class _Source(Closed):
    task: TaskConfig


def source_of(
    *,
    task: str | None = None,
    torch: str | None = None,
    onnx: str | None = None,
    data: str | None = None,
    metric: str | None = None,
    rounding: str | None = None,
    seed: int = 0,
) -> ExampleTaskConfig | TorchTaskConfig | OnnxTaskConfig | MemoryTaskConfig:
    """A source from options of the command line.

    Args:
        task: an example task's name, or `module:factory`.
        torch: `module:factory`.
        onnx, data, metric: a model's file, its samples, and what they are scored by.
        rounding: `module:function`, one's own way from weights to codes.
        seed: of the task.

    Raises:
        InputError: none or several are given, or one is wrong.
    """
    if sum(option is not None for option in (task, torch, onnx)) != 1:
        raise InputError("name one network: --task NAME, --torch module:factory, or --onnx MODEL --data FILE.")
    if onnx is not None and data is None:
        raise InputError("an ONNX file needs samples to measure it on: --data FILE.npz.")
    if onnx is None and (data is not None or metric is not None):
        raise InputError("--data, --metric and --agreement belong to --onnx; a factory brings its own.")
    factory = torch if torch is not None else task if task is not None and ":" in task else None
    plain: dict[str, Any] = {"seed": seed, "rounding": rounding}
    if factory is not None:
        plain |= {"kind": "torch", "factory": factory}
    elif onnx is not None:
        plain |= {"kind": "onnx", "model": onnx, "data": data, "metric": metric}
    else:
        plain |= {"kind": task}
    try:
        return _Source.model_validate({"task": plain}).task
    except ValidationError as error:
        raise InputError(describe_validation(error, "the network")) from None


class RacingConfig(Closed):
    """Candidates are measured block by block and stop when they are hopeless, or safe."""

    enabled: bool = True
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.99


def known_signals(names: list[str] | None) -> list[str] | None:
    """Check the names of signals.

    Raises:
        ValueError: unknown; the message says what is near.
    """
    for name in names or ():
        if name not in SIGNALS:
            raise ValueError(f"no signal is called {quoted(name)}.{suggestion(name, SIGNALS)}")
    return names


def task_code(task: TaskConfig | None) -> list[str]:
    """Every `module:attribute` that a task's config names."""
    if task is None or isinstance(task, MemoryTaskConfig):
        return []
    named = [task.rounding]
    if isinstance(task, TorchTaskConfig):
        named.append(task.factory)
    elif isinstance(task, OnnxTaskConfig) and ":" in (task.metric or ""):
        named.append(task.metric)
    return [name for name in named if name is not None]
