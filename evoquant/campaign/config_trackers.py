"""The `trackers` part of the campaign's configuration: where else the course of a run is written to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, field_validator

from evoquant.campaign.config_base import Closed, tag
from evoquant.errors import ConfigError, suggestion

TRACKERS = ("tensorboard", "mlflow")


class _LocalTracker(Closed):
    """A tracker that writes to a folder of this machine."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None

    @field_validator("path")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        if value is not None and ("://" in value or "\0" in value):
            raise ValueError("should be a folder of this machine; nothing is sent anywhere")
        return None if value is None else str(Path(value).expanduser().absolute())


class TensorBoardConfig(_LocalTracker):
    """Event files for `tensorboard --logdir`; by default in RUN_DIR/tensorboard."""

    kind: Literal["tensorboard"]


class MlflowConfig(_LocalTracker):
    """A run in a local MLflow store; by default in the folder `mlflow` beside the run directory."""

    kind: Literal["mlflow"]
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$")] = "evoquant"


TrackerConfig = Annotated[
    Annotated[TensorBoardConfig, Tag("tensorboard")] | Annotated[MlflowConfig, Tag("mlflow")],
    tag("", TRACKERS),
]


def _one_of_each(trackers: list[TensorBoardConfig | MlflowConfig]) -> list[TensorBoardConfig | MlflowConfig]:
    kinds = [tracker.kind for tracker in trackers]
    if len(set(kinds)) < len(kinds):
        raise ValueError("name each kind once")
    return trackers


Trackers = Annotated[list[TrackerConfig], AfterValidator(_one_of_each)]


def tracker_named(kind: str) -> TensorBoardConfig | MlflowConfig:
    """The tracker of that name with its defaults.

    Raises:
        ConfigError: there is none.
    """
    if kind == "tensorboard":
        return TensorBoardConfig(kind="tensorboard")
    if kind == "mlflow":
        return MlflowConfig(kind="mlflow")
    raise ConfigError(f"--track {kind}: no tracker is called so.{suggestion(kind, TRACKERS)}")
