"""`evoquant submit`: a campaign, or a sweep, as a job on a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoquant.campaign.storage_url import folder_of, lasting_place
from evoquant.errors import InputError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence


def submit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A campaign's or sweep's YAML file, in the folder.")],
    address: Annotated[str, typer.Option("--address", help="The cluster's dashboard, http://HOST:8265.")],
    out: Annotated[
        str,
        typer.Option("--out", help="The run directory: on a volume of the cluster's head, or a URL such as s3://…."),
    ],
    folder: Annotated[
        Path, typer.Option("--folder", help="Sent along, and where the job runs: config, your own code, data.")
    ] = Path(),
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="At most so many.")] = None,
    seed: Annotated[int | None, typer.Option(help="The campaign's seed.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the config.")
    ] = None,
    again: Annotated[bool, typer.Option("--resume", help="Go on with the run directory that is there.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
) -> None:
    """Run a campaign or a sweep as a job on a Ray cluster, on all of its nodes; what it prints is passed on.

    Neither the cluster's head nor its nodes need evoquant: it is sent along. Needs the extra cluster, here and there.
    """
    from evoquant.execution.submitting import Job, python_words

    folder = folder.resolve()
    if not config.resolve().is_relative_to(folder):
        raise InputError(f"{config}: lies outside of {folder}, which is sent along; name one above it by --folder.")
    lasting_place(out)
    if not out.startswith("/") and "://" not in out:
        raise InputError(
            f"--out {out}: the job's own folder is gone when it ends; name an absolute path on a volume that the "
            f"cluster's head keeps, or a URL."
        )
    changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    verb, code = _checked(config, changes, out)
    words = ["--executor", "ray", "--address", "auto", "--progress", "plain"]
    words += [] if workers is None else ["--workers", str(workers)]
    if again:
        allowed = [word for name in code for word in ("--allow-code", name)]
        command = python_words("resume", out, *words, *allowed)
    else:
        place = str(config.resolve().relative_to(folder))
        sets = [word for change in changes for word in ("--set", change)]
        command = python_words(verb, place, "--out", out, *words, *sets)
    job = Job(address, command, folder)
    sys.stderr.write(f"job {job.name} at {address}\n")
    if not detach:
        try:
            job.follow(_pass_on)
        except KeyboardInterrupt:
            raise Interrupted(
                f"the job goes on; see it: ray job logs --address {address} --follow {job.name}; end it: ray job stop "
                f"--address {address} {job.name}"
            ) from None


def _checked(config: Path, changes: Sequence[str], out: str) -> tuple[str, list[str]]:
    """The command that runs it, and what code it names: what is wrong is said here, and not minutes later there."""
    from evoquant.campaign.config import load_config
    from evoquant.campaign.config_sweep import is_sweep_file, load_sweep

    if is_sweep_file(config):
        folder_of(out, "a sweep's directory")
        many = load_sweep(config, changes)
        return "sweep", [*many.code(), *(["runtime_env"] if many.config.executor.runtime_env else [])]
    one, _ = load_config(config, changes)
    return "run", [*one.code(), *(["runtime_env"] if one.executor.runtime_env else [])]


def _pass_on(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
