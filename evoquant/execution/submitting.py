"""A command as a job on a Ray cluster that this machine need not belong to: evoquant and a folder travel along."""

from __future__ import annotations

import importlib.util
import logging
import shlex
import time
from typing import TYPE_CHECKING, Any

from evoquant.errors import CampaignError, InputError, MissingExtraError
from evoquant.execution.cluster import first_line, imported
from evoquant.execution.luggage import code_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Never of use to a job, and often large. Ray leaves out .git, .venv and what .gitignore names by itself.
LEFT_OUT = ["runs/", "__pycache__/", "*.pyc"]
NEEDED = ("aiohttp", "smart_open")  # of Ray's own extra, beside what it always brings
TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
TOLD_S = 1.0
TRIES = 5


def require_submission() -> None:
    """Check that what submits jobs is installed.

    Raises:
        MissingExtraError: it is not.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("submitting a campaign to a cluster", "ray[default]", "cluster")


class Job:
    """A submitted job.

    Args:
        address: of the cluster's dashboard, `http://host:8265`.
        words: the command and its arguments.
        folder: that the job runs in, with what is below it.

    Raises:
        InputError: the cluster does not answer, or does not take the job.
        MissingExtraError: Ray's part for it is not installed.
    """

    def __init__(self, address: str, words: Sequence[str], folder: Path) -> None:
        require_submission()
        imported()
        from ray.job_submission import JobSubmissionClient

        if not address.startswith(("http://", "https://")):
            raise InputError(
                f"--address {address}: a job is submitted to the cluster's dashboard; write it as http://HOST:8265."
            )
        runtime_env = {"working_dir": str(folder), "py_modules": code_paths(), "excludes": LEFT_OUT}
        self.address = address
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            self._client: Any = JobSubmissionClient(address)
            self.name: str = self._client.submit_job(entrypoint=shlex.join(words), runtime_env=runtime_env)
        except Exception as error:  # of Ray, of the connection, of the packages that travel
            raise InputError(
                f"--address {address}: the cluster takes no job: {first_line(error).rstrip('.')}. Is this its "
                f"dashboard, and is ray[default] installed on its head?"
            ) from None

    def follow(self, say: Callable[[str], None]) -> None:
        """Pass on what the job prints, until it has ended.

        Raises:
            CampaignError: it failed, or was stopped; or the cluster does not answer any more.
        """
        said = 0
        while True:
            state = self._asked(self._client.get_job_status)
            text = self._asked(self._client.get_job_logs)
            say(text[said:])
            said = len(text)
            if state.is_terminal():
                break
            time.sleep(TOLD_S)
        if state != "SUCCEEDED":
            why = (self._asked(self._client.get_job_info).message or "").partition(", last available logs")[0]
            raise CampaignError(f"job {self.name} {str(state).lower()}: {' '.join(why.split())[:500]}")

    def _asked(self, question: Callable[[str], Any]) -> Any:
        """The answer to a question about the job; a dashboard that is busy is asked again."""
        tries = 0
        while True:
            try:
                return question(self.name)
            except Exception as error:  # of Ray, of the connection
                tries += 1
                if tries == TRIES:
                    raise CampaignError(
                        f"job {self.name}: the cluster at {self.address} does not answer: {first_line(error)}. "
                        f"Where the job was lost with it, the same command with --resume goes on."
                    ) from None
            time.sleep(TOLD_S)


def python_words(*words: str) -> list[str]:
    """The command that runs evoquant's command line on the cluster, wherever it lies there."""
    return ["python", "-m", "evoquant.cli", *words]
