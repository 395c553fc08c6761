"""Where candidates are evaluated: this process, Ray's workers here or on a cluster, an executor of one's own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from evoquant.campaign.config_base import Closed, size_in_bytes
from evoquant.campaign.config_own import EXECUTORS, known_executor
from evoquant.errors import quoted, suggestion
from evoquant.execution.need import Need

LEAST_MEMORY = 2**20
# Of Ray's runtime environment: what cannot be mistaken, and does not take the place of what evoquant itself does.
RUNTIME_ENV = ("env_vars", "pip", "py_modules", "working_dir", "excludes", "config")
OF_RAY = ("resources", "runtime_env")  # keys for Ray's workers alone


class ResourcesConfig(Closed):
    """What one evaluator has for itself on its node; Ray places no more of them than fit."""

    cpus: Annotated[float, Field(gt=0, le=4096)] = 1
    gpus: Annotated[float, Field(ge=0, le=64)] = 0
    memory: str | int | None = None

    @field_validator("memory")
    @classmethod
    def _a_size(cls, value: str | int | None) -> str | int | None:
        if value is not None and (size_in_bytes(value) or 0) < LEAST_MEMORY:
            raise ValueError(f"{quoted(value)} is no memory of a worker; write it as 4GB, 512MiB, or in bytes")
        return value

    @field_validator("cpus", "gpus")
    @classmethod
    def _parts(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"{value:g} is more than 1 and no whole number, which Ray does not take")
        return value

    @property
    def need(self) -> Need:
        """The same for the executor."""
        return Need(self.cpus, self.gpus, (size_in_bytes(self.memory) or 0) if self.memory is not None else 0)


class ExecutorConfig(Closed):
    """Where candidates are evaluated; cannot change a result."""

    kind: str = "auto"
    options: dict[str, JsonValue] = Field(default={})
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    address: str | None = None
    resources: ResourcesConfig | None = None
    runtime_env: dict[str, JsonValue] | None = None
    batch: Annotated[int, Field(ge=1, le=10_000_000)] = 256
    limit_s: Annotated[float, Field(gt=0)] | None = None

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_executor(value)

    @field_validator("runtime_env")
    @classmethod
    def _known_keys(cls, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        for key in value or ():
            if key not in RUNTIME_ENV:
                close = suggestion(key, RUNTIME_ENV)
                raise ValueError(f"no key is called {quoted(key)}; there are {', '.join(RUNTIME_ENV)}.{close}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ExecutorConfig:
        if self.options and self.own is None:
            raise ValueError(f"options are for an executor of your own, module:Class; {self.kind} takes none")
        for key in OF_RAY:
            if getattr(self, key) is not None and self.kind not in ("ray", "auto"):
                raise ValueError(f"{key} is for Ray's workers; set kind: ray, or leave {key} out")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what configs of before did not know, where it has its default."""
        plain: dict[str, Any] = made(self)
        for key in OF_RAY:
            if plain.get(key, "") is None:
                del plain[key]
        return plain

    @property
    def own(self) -> str | None:
        """`module:Class` of one's own, else None."""
        return None if self.kind in EXECUTORS else self.kind

    @property
    def need(self) -> Need:
        """What one evaluator takes."""
        return (self.resources or ResourcesConfig()).need


def instead(kind: str) -> list[str]:
    """Changes to a file's config where the user names the executor: what that one does not take is left out."""
    changes = [f"executor.kind={kind}"]
    if kind in EXECUTORS:
        changes.append("executor.options={}")
    if kind not in ("ray", "auto"):
        changes += [f"executor.{key}=null" for key in OF_RAY]
    return changes
