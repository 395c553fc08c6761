"""What a report reads of a run's files, checked before it is read: a file that was changed ends in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evoquant.errors import RunDirError, describe_validation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]
Id = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
ABSENT: Any = None  # a key may be left out; where it is there, it is no null
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]


class _Open(BaseModel):
    """There may be more than what is read."""

    model_config = ConfigDict(defer_build=True)


class _Candidate(_Open):
    id: Id
    genome: dict[str, Any]
    fitness: Number
    retention: Annotated[list[Number], Field(min_length=1)]
    compression: Annotated[list[Number], Field(min_length=1)]
    operator: str
    parents: list[Id]
    on: Count = 0

    @model_validator(mode="after")
    def _there(self) -> _Candidate:
        if self.on >= min(len(self.retention), len(self.compression)):
            raise ValueError(f"`on` is {self.on}, and there are figures of {len(self.retention)} models")
        return self


class _Population(_Open):
    first_id: Id
    size: Annotated[int, Field(strict=True, ge=0, lt=2**62)]
    genes: list[list[Number]] | None = None
    fitness: list[Number | None] | None = None
    retention: list[Number | None] | None = None
    compression: list[Number | None] | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Population:
        for name in ("genes", "fitness", "retention", "compression"):
            listed = getattr(self, name)
            if listed is not None and len(listed) != self.size:
                raise ValueError(f"`{name}` lists {len(listed)} candidates of {self.size}")
        return self


class _Asked(_Open):
    asked: Count
    distinct: Count


class _Line(_Open):
    generation: Count
    evaluations: _Asked
    best: _Candidate | None
    champion: _Candidate | None
    failures: dict[str, str]
    population: _Population
    passes: Number = 0.0


class _Slice(_Open):
    name: str
    retention: Number
    interval: Pair
    samples: Count
    probability: Number = 0.0


class _Slices(_Open):
    worst: list[_Slice]
    count: Count


class _PerModel(_Open):
    retention: Annotated[list[Number], Field(min_length=1)]


class _Metric(_Open):
    name: str
    quantized: Number
    fp32: Number


class _Cost(_Open):
    name: str
    value: Count
    reference: Count
    noise: Count = ABSENT


class _NamedCost(_Open):
    unit: str
    most: Count
    text: str


class _Limit(_Open):
    name: str
    margin: Number
    text: str


class _Signal(_Open):
    name: str
    text: str


class _Figures(_Open):
    fitness: Number
    retention: Number
    compression: Number
    effective_bits: Number
    interval: Pair | None = None
    probability: Number = 0.0
    share_of_optimum: Number = 0.0
    floor: Number = 0.0
    slices: _Slices = ABSENT
    per_model: _PerModel = ABSENT
    metric: _Metric = ABSENT
    samples: Count = ABSENT
    cost: _Cost = ABSENT
    costs: dict[str, _NamedCost] = {}
    limits: list[_Limit] = []
    signals: list[_Signal] = []
    minimise: str = ""


class _Budget(_Open):
    search_passes: Number
    signal_passes: Number


class _Additivity(_Open):
    table: str
    allocations: Count
    misordered: Number
    passes: Number
    clear_misordered: Number | None = None
    clear_pairs: Count = 0
    r2: Number = 0.0


class _Provenance(_Open):
    warnings: list[str] = []
    budget: _Budget = ABSENT
    finalist_passes: dict[str, Number] = {}
    additivity: _Additivity = ABSENT


class _Finished(_Open):
    scores: dict[str, _Figures]
    provenance: _Provenance


class _Contender(_Open):
    name: str
    kind: str
    fitness: Number
    retention: Number
    compression: Number
    effective_bits: Number
    difference: Number = 0.0
    interval: Pair = Field(default=[0.0, 0.0])
    verdict: str = ""

    @model_validator(mode="after")
    def _compared(self) -> _Contender:
        if "interval" in self.model_fields_set and "difference" not in self.model_fields_set:
            raise ValueError("has an interval and no difference")
        return self


class _Recommended(_Open):
    name: str
    kind: str


class _Gate(_Open):
    champion: _Contender
    rivals: list[_Contender]
    recommended: _Recommended
    warnings: list[str]
    left_out: dict[str, str]
    samples: Count
    passes: Number


def check_line(data: Any, place: str) -> dict[str, Any]:
    """A journal's line that has what reports read.

    Raises:
        RunDirError: it has not; the message begins with `place`.
    """
    return _checked(_Line, data, place, "restore the journal, or start a new run")


def check_champion(scores: Mapping[str, Any], provenance: Mapping[str, Any], path: Path) -> None:
    """Whether a finished run's champion has the figures that reports show.

    Raises:
        RunDirError: it has not.
    """
    _checked(_Finished, {"scores": scores, "provenance": provenance}, str(path), RESUME)


def check_gate(gate: Any, path: Path) -> None:
    """Whether gate.json has what reports show.

    Raises:
        RunDirError: it has not.
    """
    _checked(_Gate, gate, str(path), RESUME)


RESUME = "delete the file and resume: it is written again"


def _checked(schema: type[BaseModel], data: Any, source: str, remedy: str) -> dict[str, Any]:
    try:
        schema.model_validate(data)
    except ValidationError as error:
        raise RunDirError(f"{describe_validation(error, source)}\n{source}: was changed; {remedy}.") from None
    checked: dict[str, Any] = data
    return checked
