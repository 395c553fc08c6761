"""Commands on real networks: profile one, score an allocation of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoquant.cli.goal import (
    AtMostOption,
    BitsOption,
    CostOption,
    FloorOption,
    MinimiseOption,
    ObjectiveOption,
    ThresholdOption,
    costs_of,
    goal_of,
)
from evoquant.cli.output import draw, emit, emit_json, say
from evoquant.errors import InputError

if TYPE_CHECKING:
    from evoquant.campaign.config_measured import TaskConfig

OnnxOption = Annotated[str | None, typer.Option("--onnx", metavar="MODEL", help="An ONNX file; needs --data.")]
DataOption = Annotated[str | None, typer.Option("--data", metavar="FILE", help="Samples for an ONNX file, as .npz.")]
MetricOption = Annotated[
    str | None, typer.Option("--metric", help="For --onnx: accuracy, r2, …, or module:function; default: the targets'.")
]
AgreementOption = Annotated[
    bool, typer.Option("--agreement", help="For --onnx: agreement with the FP32 outputs, which needs no targets.")
]
RoundingOption = Annotated[
    str | None,
    typer.Option("--rounding", metavar="MODULE:FUNCTION", help="Your own way from weights to codes; this runs it."),
]
SeedOption = Annotated[int, typer.Option(help="The task's seed.")]
MenuOption = Annotated[str | None, typer.Option(help="Precisions, comma-separated.")]
CacheOption = Annotated[Path | None, typer.Option(help="Folder for outcomes and trained networks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def profile(
    source: Annotated[str | None, typer.Argument(metavar="[NAME]", help="seed/train, family/cnn/3, …")] = None,
    task: Annotated[str | None, typer.Option("--task", help="An example task: digits, …")] = None,
    torch: Annotated[str | None, typer.Option("--torch", metavar="MODULE:FACTORY", help="A PyTorch network.")] = None,
    onnx: OnnxOption = None,
    data: DataOption = None,
    metric: MetricOption = None,
    agreement: AgreementOption = False,
    rounding: RoundingOption = None,
    seed: SeedOption = 0,
    menu: MenuOption = None,
    signals: Annotated[
        str | None,
        typer.Option(help="Comma-separated: loss, divergence, fisher, hessian, …; default: all but hessian."),
    ] = None,
    additivity: Annotated[
        int, typer.Option(min=0, help="Measure so many allocations to see how well the profile foretells them.")
    ] = 0,
    cache: CacheOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of stdout.")] = None,
) -> None:
    """Profile a real network, write a built-in model's profile, or check a profile file of your own."""
    from evoquant.profiles.builtin import any_profile
    from evoquant.profiles.model import profile_to_json

    if source is not None:
        if any(option is not None for option in (task, torch, onnx)):
            raise InputError(f"{source} and a network are two things to profile; name one.")
        if rounding is not None:
            raise InputError(f"--rounding is for a network; {source} is a profile, which has no weights to round.")
        emit(profile_to_json(any_profile(source)), out)
        return
    from evoquant import api
    from evoquant.report.drawn import draw_messages
    from evoquant.report.signals import additivity_table, signals_table

    network = network_of(task, torch, onnx, data, metric, agreement, seed, rounding)
    found, how_additive = api.profile_network(
        network, menu=_list(menu), signals=_list(signals), additivity=additivity, cache=cache
    )
    tables = [signals_table(found)]
    if how_additive is not None:
        tables.append(additivity_table(how_additive.to_dict()))
    draw_messages(tables)
    emit(profile_to_json(found), out)


def score(
    allocation: Annotated[
        Path,
        typer.Argument(
            metavar="ALLOCATION",
            help="CSV or JSON of layer and width; a champion, a run directory or a recipe; or another tool's recipe: a "
            "compressed-tensors checkpoint or its config.json, ModelOpt's quant_cfg or hf_quant_config.json, "
            "a GGUF file.",
        ),
    ],
    task: Annotated[str | None, typer.Option("--task", help="An example task, or module:factory.")] = None,
    onnx: OnnxOption = None,
    data: DataOption = None,
    metric: MetricOption = None,
    agreement: AgreementOption = False,
    rounding: RoundingOption = None,
    seed: SeedOption = 0,
    menu: MenuOption = None,
    objective: ObjectiveOption = None,
    threshold: ThresholdOption = None,
    floor: FloorOption = None,
    bits: BitsOption = None,
    at_most: AtMostOption = None,
    minimise: MinimiseOption = None,
    cost: CostOption = None,
    cache: CacheOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 unless the allocation itself is recommended.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure an allocation that came from elsewhere, and gate it against uniform widths and the usual rivals."""
    from evoquant import api
    from evoquant.report.limits import limits_table
    from evoquant.report.tables import measured_tables, scores_table

    goal = goal_of(objective, {"threshold": threshold, "floor": floor, "bits": bits}, at_most or (), minimise)
    single, named = costs_of(cost or ())
    network = network_of(task, None, onnx, data, metric, agreement, seed, rounding)
    scored = api.score(allocation, network, goal, menu=_list(menu), cost=single, costs=named, cache=cache)
    if as_json:
        emit_json(scored)
    else:
        limits = limits_table(scored["scores"])
        draw([scores_table(str(allocation), scored["scores"]), *([] if limits is None else [limits])])
        draw(measured_tables(scored["scores"], scored["gate"], scored["warnings"]))
    for text in (*scored["warnings"], *scored["gate"]["warnings"]):
        say(f"warning: {text}")
    if strict and scored["gate"]["recommended"]["name"] != "champion":
        raise typer.Exit(1)


def network_of(
    task: str | None,
    torch: str | None,
    onnx: str | None,
    data: str | None,
    metric: str | None,
    agreement: bool,
    seed: int,
    rounding: str | None = None,
) -> TaskConfig:
    """The network that a command's options name.

    Raises:
        InputError: none or several, or an option that does not go with it.
    """
    from evoquant.campaign.config_measured import source_of

    if agreement and metric is not None:
        raise InputError("--agreement is a metric; leave --metric out.")
    chosen: Any = "agreement" if agreement else metric
    return source_of(task=task, torch=torch, onnx=onnx, data=data, metric=chosen, rounding=rounding, seed=seed)


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
