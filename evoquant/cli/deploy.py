"""Commands on the way to deployment: export, lint, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoquant.campaign.storage_url import is_run, place_of
from evoquant.cli.networks import (
    AgreementOption,
    CacheOption,
    DataOption,
    JsonOption,
    MetricOption,
    OnnxOption,
    SeedOption,
    network_of,
)
from evoquant.cli.output import draw, emit, emit_json, say, show
from evoquant.errors import InputError

if TYPE_CHECKING:
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.export.lint import Finding

RecipeArgument = Annotated[
    Path, typer.Argument(parser=place_of, metavar="RECIPE", help="A recipe's .json file, or a run directory.")
]
TaskOption = Annotated[str | None, typer.Option("--task", help="For a recipe: an example task, or module:factory.")]
UngatedOption = Annotated[
    bool, typer.Option("--ungated", help="Take a measured run's champion past its gate; the export says so.")
]
BaseOption = Annotated[
    Path | None,
    typer.Option("--base", metavar="GGUF", help="For gguf: the model as llama.cpp converts it, for its vocabulary."),
]
AllowOption = Annotated[
    list[str] | None, typer.Option("--allow-code", help="module:attribute that the run's config may import.")
]


def export(
    source: Annotated[
        Path | None,
        typer.Argument(parser=place_of, metavar="RUN_DIR", help="A run directory, a champion file, or a recipe."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="A target (`--list` shows them), or your own exporter, module:Class.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write to this file or folder; heuristics go to stdout without it."),
    ] = None,
    model: Annotated[str | None, typer.Option("--profile", help="The model, for csv.")] = None,
    base: BaseOption = None,
    listing: Annotated[bool, typer.Option("--list", help="List the targets.")] = False,
    ungated: UngatedOption = False,
    task: TaskOption = None,
    onnx: OnnxOption = None,
    data: DataOption = None,
    metric: MetricOption = None,
    agreement: AgreementOption = False,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    allow_code: AllowOption = None,
) -> None:
    """Export a heuristic as data or as code, or a network's allocation to the stack that it is deployed on."""
    from evoquant.export import TARGETS
    from evoquant.export.writers import SUFFIXES, writer_of

    if listing:
        _list_targets()
        return
    if source is None or to is None:
        raise InputError("export needs RUN_DIR and --to TARGET; `evoquant export --list` shows the targets.")
    network = _optional_network(task, onnx, data, metric, agreement, seed)
    if ":" in to:
        _export_own(source, to, out, model, network, ungated, cache, allow_code or [])
        return
    if to in TARGETS:
        if network is not None or base is not None:
            raise InputError(f"{to} needs no network; leave --task, --onnx and --base out.")
        if is_run(source):
            _require_code(source, allow_code)
        elif allow_code:
            from evoquant.campaign.build import allow_genomes

            allow_genomes(allow_code)
        emit(_rendered(source, to, model, ungated), out)
        return
    from evoquant import api

    writer_of(to, TARGETS)
    if model is not None:
        raise InputError(f"--profile is for csv; {to} is made of the network itself.")
    if out is None:
        kind = "file" if SUFFIXES[to] else "folder"
        raise InputError(f"{to} is written to a {kind}: name it with -o model{SUFFIXES[to]}.")
    files, findings = api.deploy(
        source, to, out, network, ungated=ungated, cache=cache, allow_code=allow_code or (), base=base
    )
    _warn(findings)
    for file in files:
        say(f"wrote {file}")


def lint(
    recipe: RecipeArgument,
    target: Annotated[
        str, typer.Option("--for", metavar="TARGET", help="onnx, openvino, … (`evoquant export --list`).")
    ],
    ungated: UngatedOption = False,
    allow_code: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a target can take a recipe as it was measured, and if not, what it could take. Exit 1 if not."""
    import dataclasses

    from evoquant.export.deploy import lint_file
    from evoquant.report.lint import lint_table

    findings = lint_file(recipe, target, ungated=ungated, allow_code=allow_code or ())
    rows = [dataclasses.asdict(finding) for finding in findings]
    if as_json:
        emit_json({"recipe": str(recipe), "target": target, "findings": rows})
    elif rows:
        draw([lint_table(rows, target)])
    else:
        show(f"{recipe}: {target} takes it as it is.")
    if any(row["severity"] == "error" for row in rows):
        raise typer.Exit(1)


def verify(
    recipe: RecipeArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET", help="onnx, openvino, gguf, … (`evoquant export --list`).")
    ],
    base: BaseOption = None,
    ungated: UngatedOption = False,
    task: TaskOption = None,
    onnx: OnnxOption = None,
    data: DataOption = None,
    metric: MetricOption = None,
    agreement: AgreementOption = False,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    allow_code: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deploy a recipe, run it in a fresh process, and compare size, outputs and retention with the promise.

    Exits with 1 where a difference is beyond tolerance; of outputs it says which layer it comes from.
    """
    from evoquant import api
    from evoquant.report.verify import verification_table

    network = _optional_network(task, onnx, data, metric, agreement, seed)
    found = api.verify(recipe, to, network, ungated=ungated, cache=cache, allow_code=allow_code or (), base=base)
    if as_json:
        emit_json(found)
    else:
        draw([verification_table(found)])
    for fault in found["faults"]:
        say(f"fault: {fault}")
    if found["faults"]:
        raise typer.Exit(1)


def _export_own(
    source: Path,
    to: str,
    out: Path | None,
    model: str | None,
    network: TaskConfig | None,
    ungated: bool,
    cache: Path | None,
    allow_code: list[str],
) -> None:
    """By an exporter that the user has named here, which is what lets it run."""
    from evoquant.campaign.build import allow_genomes
    from evoquant.export.own_exporter import content_of, write_content
    from evoquant.report.allocation import load_any_profile

    if not is_run(source) and network is None and allow_code:
        allow_genomes(allow_code)
    profile = load_any_profile(model) if model else None
    content, findings = content_of(
        source, to, network, profile=profile, ungated=ungated, cache=cache, allow_code=allow_code
    )
    _warn(findings)
    if out is None:
        if not isinstance(content, str):
            raise InputError(
                f"{to} makes {'bytes' if isinstance(content, bytes) else 'files'}: name where with -o OUT."
            )
        emit(content, None)
        return
    for file in write_content(content, to, out):
        say(f"wrote {file}")


def _warn(findings: list[Finding]) -> None:
    for finding in findings:
        say(f"warning: {finding.message if finding.layer is None else f'{finding.layer}: {finding.message}'}")


def _list_targets() -> None:
    from evoquant.export import TARGETS
    from evoquant.export.writers import SUFFIXES
    from evoquant.report.lint import targets_table

    show("Heuristics, and tables of one model:")
    for name, target in TARGETS.items():
        show(f"{name:8} {target.description}")
    show("A real network's recipe:")
    show("recipe   codes, scales and promises in no consumer's own form (.json, .safetensors)")
    draw([targets_table(SUFFIXES)])
    show("Your own exporter: module:Class, as evoquant.export.protocol says")


def _require_code(run_dir: Path, allow_code: list[str] | None) -> None:
    """Refuse code that the run's config names and that nobody allowed, and runs that are not finished."""
    from evoquant.campaign.build import require_allowed
    from evoquant.report.data import load_run

    data = load_run(run_dir)
    require_allowed(data.config, allow_code or (), run_dir)
    if data.champion is None:
        raise InputError(f"{run_dir}: the run is not finished; continue with: evoquant resume {run_dir}")


def _optional_network(
    task: str | None, onnx: str | None, data: str | None, metric: str | None, agreement: bool, seed: int
) -> TaskConfig | None:
    if task is None and onnx is None:
        if data is not None or metric is not None or agreement:
            raise InputError("--data, --metric and --agreement belong to --onnx MODEL.")
        return None
    return network_of(task, None, onnx, data, metric, agreement, seed)


def _rendered(source: Path, to: str, model: str | None, ungated: bool) -> str:
    """The exported text; one model's allocation of a measured run is what its gate recommends."""
    from evoquant import api
    from evoquant.campaign.apply import load_any_champion
    from evoquant.export import TARGETS, render
    from evoquant.report.allocation import load_any_profile

    profile = load_any_profile(model) if model else None
    if TARGETS[to].one_model and is_run(source):
        found = api.gated(source, ungated=ungated)
        if found is not None and (profile is None or profile.digest == found[1].digest):
            return render(to, *found)
    return render(to, load_any_champion(source), profile)
