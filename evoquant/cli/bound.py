"""The command `bound`: the certified optimum of a model's separable estimate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from evoquant.cli.output import draw
from evoquant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.campaign.config_objective import LimitsConfig

LIMITS = "limits"


def bound(
    model: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's JSON file or built-in name.")],
    menu: Annotated[str | None, typer.Option(help="Precisions, comma-separated; default: the profile's.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="cliff (default), feasible_first, budget, or limits (default with --at-most)."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="For cliff: retention; default 0.95.")] = None,
    floor: Annotated[float | None, typer.Option(help="For feasible_first and limits: retention; default 0.95.")] = None,
    bits: Annotated[float | None, typer.Option(help="For budget: effective bits per weight.")] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option(metavar="[COST=]AMOUNT", help="For limits: 20MB, latency=3ms; may be repeated."),
    ] = None,
    minimise: Annotated[
        str | None, typer.Option(metavar="COST", help="For limits: what; default: the unnamed --cost, else bits.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=WIDTH", help="Keep a layer at a width; may be repeated.")
    ] = None,
    front: Annotated[bool, typer.Option("--front", help="Show the Pareto front of retention and size too.")] = False,
    at_least: Annotated[float | None, typer.Option(help="With --front: only points of that retention.")] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]COST",
            help="What is counted: bits (default), bytes, bit_operations, a table's file, module:Class; repeated "
            "with names for limits.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every layer and every point.")] = False,
) -> None:
    """Show the best that any allocation of a model can reach, with proof (separable estimate).

    Under several limits by a mixed-integer programme, with its gap; limits that contradict are named.
    """
    from evoquant.files import pretty_json
    from evoquant.report.allocation import load_any_profile
    from evoquant.report.bound import bound_data, bound_tables, parse_objective, parse_pins

    if at_least is not None and not front:
        raise InputError("--at-least belongs to --front.")
    kind = objective or (LIMITS if at_most or minimise else "cliff")
    given = {"threshold": threshold, "floor": floor, "bits": bits}
    if kind != LIMITS and (at_most or minimise):
        raise InputError(f"--{'at-most' if at_most else 'minimise'} belongs to --objective limits, not to {kind}.")
    goal = _limits(given, at_most or (), minimise) if kind == LIMITS else parse_objective(kind, given)
    single, named = _costs(cost or ())
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


def _limits(given: dict[str, float | None], at_most: Sequence[str], minimise: str | None) -> LimitsConfig:
    """The limits that the options describe.

    Raises:
        InputError: an option is another objective's, or says no amount.
    """
    from evoquant.campaign.pick import asked_amounts
    from evoquant.report.bound import limits_of

    for other, owner in (("threshold", "cliff"), ("bits", "budget")):
        if given[other] is not None:
            raise InputError(f"--{other} belongs to --objective {owner}; limits takes --floor and --at-most.")
    amounts = {name: amount.text for name, amount in asked_amounts(at_most).items()}
    return limits_of(given["floor"], amounts, minimise)


def _costs(given: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The cost without a name, and those with one.

    Raises:
        InputError: two have none, or the same.
    """
    single, named = None, {}
    for text in given:
        name, equals, what = text.partition("=")
        if not equals:
            if single is not None:
                raise InputError(f"--cost {text}: {single} has no name either; name them, such as latency={text}.")
            single = text
        elif name in named:
            raise InputError(f"--cost {text}: {name!r} stands twice; keep one of the two.")
        else:
            named[name] = what
    return single, named
