"""Options that say what is wanted: an objective, limits, and the costs that these are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from evoquant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.campaign.config_objective import LimitsConfig
    from evoquant.scoring.protocol import Objective

LIMITS = "limits"
ObjectiveOption = Annotated[
    str | None,
    typer.Option(help="cliff (default), feasible_first, budget, or limits (default with --at-most)."),
]
ThresholdOption = Annotated[float | None, typer.Option(help="For cliff: retention; default 0.95.")]
FloorOption = Annotated[float | None, typer.Option(help="For feasible_first and limits: retention; default 0.95.")]
BitsOption = Annotated[float | None, typer.Option(help="For budget: effective bits per weight.")]
AtMostOption = Annotated[
    list[str] | None,
    typer.Option(metavar="[COST=]AMOUNT", help="For limits: 20MB, latency=3ms; may be repeated."),
]
MinimiseOption = Annotated[
    str | None, typer.Option(metavar="COST", help="For limits: what; default: the unnamed --cost, else bits.")
]
CostOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]COST",
        help="What is counted: bits (default), bytes, bit_operations, a table's file, module:Class; repeated "
        "with names for limits.",
    ),
]


def goal_of(
    objective: str | None, given: dict[str, float | None], at_most: Sequence[str], minimise: str | None
) -> Objective | LimitsConfig:
    """The objective that the options describe.

    Args:
        objective: its kind; None for limits where something is limited, else the cliff.
        given: option (`threshold`, `floor`, `bits`) → value, None where it was not given.
        at_most, minimise: of limits.

    Raises:
        InputError: an option is another objective's, or says no amount.
    """
    from evoquant.report.bound import parse_objective

    kind = objective or (LIMITS if at_most or minimise else "cliff")
    if kind == LIMITS:
        return _limits(given, at_most, minimise)
    if at_most or minimise:
        raise InputError(f"--{'at-most' if at_most else 'minimise'} belongs to --objective limits, not to {kind}.")
    return parse_objective(kind, given)


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


def costs_of(given: Sequence[str]) -> tuple[str | None, dict[str, str]]:
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
