"""The command `cost`: tables of costs, and latency measured for a deployment target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoquant.cli.networks import CacheOption, DataOption, JsonOption, MenuOption, SeedOption
from evoquant.cli.output import draw, emit_json, say
from evoquant.errors import InputError

if TYPE_CHECKING:
    from evoquant.campaign.config_measured import TaskConfig


def cost(
    model: Annotated[
        str | None, typer.Argument(metavar="[PROFILE]", help="A profile's JSON file or built-in name.")
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="COST", help="bits, bytes, bit_operations, a table's file, or module:Class.")
    ] = "bytes",
    latency: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Measure: an example task, module:factory, or an .onnx file with --data."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TARGET", help="Whose latency (openvino, onnx, onnx-matmulnbits), or whose bytes."
        ),
    ] = None,
    menu: MenuOption = None,
    repetitions: Annotated[int, typer.Option(min=3, max=10_000, help="Rounds in which each model has its turn.")] = 15,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="That compute.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=1_000_000, help="Samples of a call.")] = 1,
    quantile: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the rounds, that counts; 0.5 is the median.")
    ] = 0.5,
    clock: Annotated[
        str | None,
        typer.Option(help="wall, or cpu: the process's own processor time; default: cpu for one thread, else wall."),
    ] = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table to this JSON file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each layer costs at each width, or measure its latency on a deployment target.

    A table that --latency writes goes into a campaign as `cost: {kind: table, file: TABLE.json}`.
    """
    if latency is not None:
        if model is not None:
            raise InputError(f"{model} and --latency {latency} are two models; name one.")
        _measure(latency, to, menu, data, seed, cache, out, as_json, (repetitions, threads, batch, quantile, clock))
        return
    if model is None:
        raise InputError(
            "name a profile (`evoquant cost PROFILE`), or a network to measure: --latency MODEL --to TARGET."
        )
    if out is not None:
        raise InputError("-o is for --latency; print this table with --json.")
    from evoquant.campaign.apply import load_any_profile, profile_menu
    from evoquant.campaign.build_scoring import named_cost
    from evoquant.quantization.precision import Menu
    from evoquant.report.costs import cost_data, cost_table
    from evoquant.scoring.packed_bytes import PackedBytes

    if to is not None and kind != "bytes":
        raise InputError(f"--to says whose bytes are counted; {kind} are the same for all targets. Leave it out.")
    profile = load_any_profile(model)
    precisions = Menu.parse(menu.split(",")) if menu else profile_menu(profile)
    found = cost_data(profile, precisions, PackedBytes(to) if kind == "bytes" else named_cost(kind))
    if as_json:
        emit_json(found)
    else:
        draw([cost_table(found)])


def _measure(
    model: str,
    to: str | None,
    menu: str | None,
    data: str | None,
    seed: int,
    cache: Path | None,
    out: Path | None,
    as_json: bool,
    how: tuple[int, int, int, float, str | None],
) -> None:
    from evoquant.export.latency import Settings
    from evoquant.export.latency_table import network_latency
    from evoquant.export.runners import RUNNERS
    from evoquant.export.timing import CLOCKS
    from evoquant.files import pretty_json, write_atomic
    from evoquant.report.costs import latency_tables

    rounds, threads, batch, quantile, clock = how
    if to is None:
        raise InputError(f"--latency needs --to TARGET: {', '.join(RUNNERS)}.")
    if clock is not None and clock not in CLOCKS:
        raise InputError(f"--clock {clock}: there are {' and '.join(CLOCKS)}.")
    settings = Settings(to, threads, batch, rounds, quantile, seed=seed, clock=clock)
    widths = None if menu is None else [part.strip() for part in menu.split(",")]
    found = network_latency(_network(model, data, seed), settings, widths, cache)
    if out is not None:
        write_atomic(out, pretty_json(found))
    if as_json:
        emit_json(found)
    else:
        draw(latency_tables(found))
    if out is not None:
        say(f"wrote {out}; in a campaign: cost: {{kind: table, file: {out}}}")


def _network(model: str, data: str | None, seed: int) -> TaskConfig:
    from evoquant.campaign.config_measured import source_of

    named: dict[str, Any] = {"onnx": model} if model.endswith(".onnx") else {"task": model}
    return source_of(**named, data=data, seed=seed)
