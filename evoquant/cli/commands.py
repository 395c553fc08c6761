"""The commands, for typer: each imports what it needs when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from evoquant.campaign.storage_url import lasting_place
from evoquant.cli import COMMANDS, PURPOSE
from evoquant.cli.bench import bench
from evoquant.cli.bound import bound
from evoquant.cli.cluster import submit
from evoquant.cli.compare import ablate, compare
from evoquant.cli.costs import cost
from evoquant.cli.deploy import AllowOption, export, lint, verify
from evoquant.cli.networks import profile, score
from evoquant.cli.output import draw, emit, say, show
from evoquant.cli.reports import RunDirArgument, report
from evoquant.cli.start import init, schema
from evoquant.cli.sweep import resume_sweep, sweep
from evoquant.errors import InputError

app = typer.Typer(
    name="evoquant",
    help=PURPOSE,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ExecutorOption = Annotated[
    str | None, typer.Option("--executor", help="local, ray, auto, or your own as module:Class.")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="How many workers (Ray).")]
ProgressOption = Annotated[str | None, typer.Option("--progress", help="live, bar, plain, json or none, on stderr.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]
TrackOption = Annotated[
    list[str] | None, typer.Option("--track", metavar="TRACKER", help="tensorboard or mlflow, too; may be repeated.")
]
AddressOption = Annotated[str | None, typer.Option("--address", help="An existing Ray cluster; else RAY_ADDRESS.")]


app.command(short_help=COMMANDS["init"])(init)


@app.command(short_help=COMMANDS["run"])
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A campaign's YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option(parser=lasting_place, metavar="DIR|URL", help="The run directory; default runs/<name>-<seed>."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The campaign's seed.")] = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the config.")
    ] = None,
    track: TrackOption = None,
    progress: ProgressOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a campaign."""
    from evoquant import api
    from evoquant.campaign.config_executor import instead

    given = {"seed": seed, "executor.workers": workers, "executor.address": address}
    changes = [*(overrides or ()), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    changes += [] if executor is None else instead(executor)
    if out is None:
        _require_lasting(config, changes)
    with _observer(progress, quiet) as observer:
        outcome = api.run(config, out=out, overrides=changes, track=track or (), observer=observer)
    _finish(outcome, observer)


@app.command(short_help=COMMANDS["resume"])
def resume(
    run_dir: RunDirArgument,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    allow_code: AllowOption = None,
    track: TrackOption = None,
    progress: ProgressOption = None,
    quiet: QuietOption = False,
) -> None:
    """Go on with an interrupted campaign, or sweep; the journal ends as if it had never stopped."""
    from evoquant import api
    from evoquant.api.sweeps import is_sweep

    if is_sweep(run_dir):
        if track:
            raise InputError(f"{run_dir}: a sweep; name trackers in its base, not with --track.")
        resume_sweep(
            run_dir,
            executor=executor,
            workers=workers,
            address=address,
            allow_code=allow_code or (),
            progress=progress,
            quiet=quiet,
        )
        return
    with _observer(progress, quiet) as observer:
        outcome = api.resume(
            run_dir,
            executor=executor,
            workers=workers,
            address=address,
            allow_code=allow_code or (),
            track=track or (),
            observer=observer,
        )
    if not outcome.fresh:
        observer.message(f"{run_dir} is finished already; nothing to resume.")
    _finish(outcome, observer)


app.command(short_help=COMMANDS["sweep"])(sweep)
app.command(short_help=COMMANDS["submit"])(submit)
app.command(short_help=COMMANDS["report"])(report)
app.command(short_help=COMMANDS["profile"])(profile)
app.command(short_help=COMMANDS["score"])(score)
app.add_typer(bench, name="bench", short_help=COMMANDS["bench"])
app.command(short_help=COMMANDS["compare"])(compare)
app.command(short_help=COMMANDS["ablate"])(ablate)
app.command(short_help=COMMANDS["export"])(export)
app.command(short_help=COMMANDS["lint"])(lint)
app.command(short_help=COMMANDS["verify"])(verify)
app.command(short_help=COMMANDS["cost"])(cost)


@app.command(short_help=COMMANDS["apply"])
def apply(
    heuristic: Annotated[str, typer.Argument(metavar="CHAMPION|BASELINE", help="A champion file, or a strategy.")],
    model: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's JSON file or built-in name.")],
    menu: Annotated[str | None, typer.Option(help="Precisions, comma-separated; default: the profile's.")] = None,
    allow_code: AllowOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which width a heuristic gives to each layer of a model."""
    from evoquant.files import pretty_json
    from evoquant.report.allocation import allocate, allocation_table, load_any_profile, load_genome

    if allow_code:
        from evoquant.campaign.build import allow_genomes

        allow_genomes(allow_code)
    genome, found = load_genome(heuristic), load_any_profile(model)
    allocation = allocate(genome, found, menu.split(",") if menu else None)
    if as_json:
        sys.stdout.write(pretty_json(allocation))
    else:
        draw([allocation_table(allocation)])


app.command(short_help=COMMANDS["bound"])(bound)


@app.command(short_help=COMMANDS["pick"])
def pick(
    run_dir: RunDirArgument,
    parts: Annotated[int | None, typer.Option(min=0, help="At most so many parts: how simple it has to be.")] = None,
    bits: Annotated[float | None, typer.Option(min=0.0, help="At most so many effective bits per weight.")] = None,
    retention: Annotated[float | None, typer.Option(min=0.0, help="At least this retention, such as 0.97.")] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option(metavar="[COST=]AMOUNT", help="At most 20MB, or latency=3ms; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a champion file instead of stdout.")] = None,
) -> None:
    """Choose from the archive of a map_elites or nsga2 run, without searching again: the best within limits.

    The fittest; with --at-most the one that keeps most, with --at-most and --retention the one of least cost.

    The champion file that this writes goes into apply and export like a run directory.
    """
    from evoquant import api
    from evoquant.report.tables import scores_table

    champion = api.pick(run_dir, parts=parts, bits=bits, retention=retention, at_most=at_most or ())
    if out is not None:
        draw([scores_table(champion.genome.text, champion.scores)])
    for warning in champion.provenance.get("warnings", ()):
        say(warning)
    emit(champion.to_json(), out)


app.command(short_help=COMMANDS["schema"])(schema)


@app.command(short_help=COMMANDS["version"])
def version() -> None:
    """Print the version."""
    import importlib.metadata

    show(importlib.metadata.version("evoquant"))


def _require_lasting(config: Path, overrides: list[str]) -> None:
    """Refuse a config whose `out` would be gone with this command, as --out is."""
    from evoquant.campaign.config import load_config

    checked, _ = load_config(config, overrides)
    if checked.out is not None:
        try:
            lasting_place(checked.out)
        except InputError as error:
            raise InputError(f"{config}: out: {error}") from None


def _observer(mode: str | None, quiet: bool) -> Any:
    from evoquant.report.progress import observer

    if quiet and mode not in (None, "none"):
        raise InputError(f"--quiet tells nothing, and --progress {mode} does; give one of them.")
    return observer("none" if quiet else mode)


def _finish(outcome: Any, observer: Any) -> None:
    """The verdict, and where everything is."""
    from evoquant.campaign.config_own import OWN
    from evoquant.report.data import load_run
    from evoquant.report.tables import run_tables

    if outcome.champion is None:
        observer.message(f"not finished; continue with: evoquant resume {outcome.path}")
        return
    data = load_run(outcome.path)
    draw(run_tables(data))
    target = "python"
    if data.config.task is not None and data.config.genome.kind == "direct":
        from evoquant.export.writers import SUFFIXES

        deployed = next(iter(data.config.deploy_to or ()), "onnx")
        target = f"{deployed} -o model{SUFFIXES[deployed]}"
    named = "".join(f" --allow-code {name}" for name in data.config.code())
    show(f"results: {outcome.path}    report: evoquant report {outcome.path}{named}")
    if isinstance(data.config.genome, OWN):
        target = "json"
    if getattr(data.config.task, "kind", None) != "memory":  # whose network only a Python program holds
        show(f"export:  evoquant export {outcome.path} --to {target}{named}")
