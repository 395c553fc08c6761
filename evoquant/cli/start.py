"""The commands to begin with: `init` writes a campaign's file, `schema` describes it to editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evoquant.cli.output import emit, say
from evoquant.errors import InputError

SCHEMA_FILE = "evoquant.schema.json"


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The file to write.")] = Path("evoquant.yaml"),
    models: Annotated[bool, typer.Option("--models", help="Rules for profiles of models (the default).")] = False,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="An example network: digits, tabular, …")] = None,
    mine: Annotated[str | None, typer.Option(metavar="MODULE:FACTORY", help="A PyTorch network of your own.")] = None,
    onnx: Annotated[Path | None, typer.Option(metavar="MODEL", help="An ONNX file, with --data.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Samples for the ONNX file.")] = None,
) -> None:
    """Write a commented campaign file that runs as it is."""
    from evoquant.campaign.config_measured import source_of
    from evoquant.campaign.schema import EDITOR_LINE
    from evoquant.campaign.starter import starter
    from evoquant.files import is_file, shown, write_atomic

    if file.exists() or file.is_symlink():
        raise InputError(f"{shown(file)}: is there already; name another file, or remove it.")
    source = None
    if models and (task or mine or onnx):
        raise InputError("--models is for profiles; leave it out for a network.")
    if not models and (task or mine or onnx or data):
        for path in (onnx, data):
            if path is not None and not is_file(path):
                raise InputError(f"{shown(path)}: does not exist.")
        source = source_of(
            task=task, torch=mine, onnx=None if onnx is None else str(onnx), data=None if data is None else str(data)
        )
    write_atomic(file, starter(file, source))
    say(f"wrote {file}")
    say(f"next:      evoquant run {file}")
    say(f"in an editor that checks and completes it: evoquant schema -o {SCHEMA_FILE}, and as the file's first line")
    say(f"           {EDITOR_LINE.format(SCHEMA_FILE)}")


def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a file instead of stdout.")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Of a sweep's file instead.")] = False,
) -> None:
    """Print the JSON Schema of a campaign's YAML file, for editors."""
    from evoquant.campaign.schema import config_schema, sweep_schema
    from evoquant.files import pretty_json

    emit(pretty_json(sweep_schema() if sweep else config_schema()), out)
