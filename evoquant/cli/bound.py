"""The command `bound`: the certified optimum of a model's separable estimate."""

from __future__ import annotations

import sys
from typing import Annotated

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
from evoquant.cli.output import draw
from evoquant.errors import InputError


def bound(
    model: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's JSON file or built-in name.")],
    menu: Annotated[str | None, typer.Option(help="Precisions, comma-separated; default: the profile's.")] = None,
    objective: ObjectiveOption = None,
    threshold: ThresholdOption = None,
    floor: FloorOption = None,
    bits: BitsOption = None,
    at_most: AtMostOption = None,
    minimise: MinimiseOption = None,
    pin: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=WIDTH", help="Keep a layer at a width; may be repeated.")
    ] = None,
    front: Annotated[bool, typer.Option("--front", help="Show the Pareto front of retention and size too.")] = False,
    at_least: Annotated[float | None, typer.Option(help="With --front: only points of that retention.")] = None,
    cost: CostOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every layer and every point.")] = False,
) -> None:
    """Show the best that any allocation of a model can reach, with proof (separable estimate).

    Under several limits by a mixed-integer programme, with its gap; limits that contradict are named.
    """
    from evoquant.files import pretty_json
    from evoquant.report.allocation import load_any_profile
    from evoquant.report.bound import bound_data, bound_tables, parse_pins

    if at_least is not None and not front:
        raise InputError("--at-least belongs to --front.")
    goal = goal_of(objective, {"threshold": threshold, "floor": floor, "bits": bits}, at_most or (), minimise)
    single, named = costs_of(cost or ())
    data = bound_data(
        load_any_profile(model),
        goal,
        menu=menu.split(",") if menu else None,
        pins=parse_pins(pin or ()),
        front=front,
        at_least=at_least,
        cost=single,
        costs=named,
    )
    if as_json:
        sys.stdout.write(pretty_json(data))
    else:
        draw(bound_tables(data))
