"""MLflow: a run in a store of files, with mlflow-skinny alone; it opens no connection and reports no usage."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

from evoquant.campaign.storage import CHAMPION, REPORT
from evoquant.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AT_ONCE = 100  # parameters; MLflow takes no more in a call
# Read when MLflow is imported. Its store of files is no longer developed, which it wants to be told is known; the other
# local one needs SQLAlchemy and Alembic, and takes seconds to set up.
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}


class Mlflow:
    """One run of an experiment."""

    def __init__(
        self, folder: Path, experiment: str, name: str, params: Mapping[str, str], run_dir: Path, known: str | None
    ) -> None:
        """Begin a run, or go on with the run `known`.

        Raises:
            MissingExtraError: mlflow-skinny is not installed.
        """
        client, entities = _imported()
        self._metric: Any = entities.Metric
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._client: Any = client(tracking_uri=folder.as_uri(), registry_uri=folder.as_uri())
        self._waiting: list[Any] = []
        self._known: dict[str, set[int]] = {}
        if known is not None and self._resumed(known):
            self._run = known
            return
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        tags = {"evoquant.run_dir": str(run_dir.absolute()), "evoquant.config_hash": params["config_hash"]}
        self._run = self._client.create_run(number, run_name=name, tags=tags).info.run_id
        pairs = [entities.Param(key, value) for key, value in params.items()]
        for first in range(0, len(pairs), AT_ONCE):
            self._client.log_batch(self._run, params=pairs[first : first + AT_ONCE])

    def _resumed(self, known: str) -> bool:
        """Whether the run is there; then it goes on."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(known)
        except MlflowException:
            return False
        for key in run.data.metrics:
            self._known[key] = {metric.step for metric in self._client.get_metric_history(known, key)}
        self._client.update_run(known, status="RUNNING")
        return True

    def logged(self) -> Mapping[str, set[int]]:
        """Metric → steps."""
        return self._known

    def log(self, step: int, figures: Mapping[str, float], when_s: float) -> None:
        """Kept until the next flush."""
        self._waiting += [self._metric(key, value, int(when_s * 1000), step) for key, value in figures.items()]

    def flush(self) -> None:
        """In one call for each hundred generations or so."""
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), 1000):
            self._client.log_batch(self._run, metrics=waiting[first : first + 1000])

    def finish(self, run: Path) -> None:
        """Champion and report as artifacts."""
        for name in (CHAMPION, REPORT):
            if (run / name).is_file():
                self._client.log_text(self._run, (run / name).read_text(encoding="utf-8"), name)

    def close(self, *, finished: bool) -> None:
        """The run's status."""
        self.flush()
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")

    def state(self) -> dict[str, str]:
        """The store, and the run in it."""
        return {"path": str(self._folder), "run": self._run}


def _imported() -> tuple[Any, Any]:
    os.environ.update(ENVIRONMENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that MLflow uses
            from mlflow import entities
            from mlflow.tracking import MlflowClient
    except ImportError:
        raise MissingExtraError("the tracker mlflow", "mlflow-skinny", "mlflow") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient, entities
