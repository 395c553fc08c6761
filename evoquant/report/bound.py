"""What `evoquant bound` shows: the certified optimum of the separable problem, and its Pareto front."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from evoquant.bounds.front import pareto_front
from evoquant.bounds.optimum import certify
from evoquant.campaign.apply import profile_menu
from evoquant.campaign.limit_figures import limit_figures
from evoquant.errors import InputError, describe_validation, suggestion
from evoquant.quantization.precision import Menu
from evoquant.report.limits import limit_words
from evoquant.report.table import Table
from evoquant.scoring.limits import WithinLimits
from evoquant.scoring.objective import OBJECTIVES, Objective
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evoquant.bounds.front import Front
    from evoquant.bounds.optimum import Bound
    from evoquant.campaign.config_objective import LimitsConfig
    from evoquant.profiles.model import ModelProfile
    from evoquant.scoring.problem import Problem
    from evoquant.scoring.protocol import CostMaker

SHOWN = 24  # points of a front that a table shows

# objective → (its option on the command line, its keyword, default, limits)
OPTIONS: dict[str, tuple[str, str, float | None, tuple[float, float]]] = {
    "cliff": ("threshold", "threshold", 0.95, (0.0, 1.0)),
    "feasible_first": ("floor", "floor", 0.95, (0.0, 1.0)),
    "budget": ("bits", "effective_bits", None, (0.0, 65.0)),
}


def parse_objective(kind: str, given: Mapping[str, float | None]) -> Objective:
    """The objective that the command line's options describe.

    Args:
        kind: `cliff`, `feasible_first` or `budget`.
        given: option (`threshold`, `floor`, `bits`) → value, None where it was not given.

    Raises:
        InputError: unknown kind, an option that is not this kind's, is missing or out of its limits.
    """
    if kind not in OPTIONS:
        raise InputError(f"--objective {kind}: unknown.{suggestion(kind, [*OPTIONS, 'limits'])}")
    option, keyword, default, (low, high) = OPTIONS[kind]
    for other, value in given.items():
        if other != option and value is not None:
            owner = next(name for name, row in OPTIONS.items() if row[0] == other)
            raise InputError(f"--{other} belongs to --objective {owner}; {kind} takes --{option}.")
    value = given.get(option)
    value = default if value is None else value
    if value is None:
        raise InputError(f"--objective {kind} needs --{option}.")
    if not low < value < high:
        raise InputError(f"--{option} {value:g}: must lie above {low:g} and below {high:g}.")
    return OBJECTIVES[kind](**{keyword: value})


def limits_of(floor: float | None, at_most: Mapping[str, str | float], minimise: str | None = None) -> LimitsConfig:
    """Limits as a config has them.

    Args:
        floor: the least retention; 0.95 by default.
        at_most: name of a cost → the most of it.
        minimise: name of a cost.

    Raises:
        InputError: an amount is none, or the floor is no retention.
    """
    from evoquant.campaign.config_objective import LimitsConfig

    given: dict[str, Any] = {"kind": "limits", "at_most": dict(at_most), "minimise": minimise}
    if floor is not None:
        given["retention"] = floor
    try:
        return LimitsConfig.model_validate(given)
    except ValidationError as error:
        raise InputError(describe_validation(error, "limits")) from None


def parse_pins(pins: Iterable[str]) -> dict[str, str]:
    """Layer → width of `LAYER=WIDTH` texts.

    Raises:
        InputError: a text is not of that form, or a layer stands twice.
    """
    found: dict[str, str] = {}
    for pin in pins:
        layer, equals, width = pin.rpartition("=")
        if not (layer and equals and width):
            raise InputError(f"--pin {pin}: write LAYER=WIDTH, such as --pin classifier=FP16.")
        if layer in found:
            raise InputError(f"--pin {pin}: {layer!r} is pinned twice; keep one of the two.")
        found[layer] = width
    return found


def bound_data(
    profile: ModelProfile,
    objective: Objective | LimitsConfig,
    *,
    menu: Iterable[str] | None = None,
    pins: Mapping[str, str] | None = None,
    front: bool = False,
    at_least: float | None = None,
    cost: CostMaker | str | None = None,
    costs: Mapping[str, CostMaker | str] | None = None,
) -> dict[str, Any]:
    """Plain data: `model`, `menu`, `objective`, `pins`, `optimum` and, where asked for, `front`.

    Under limits the optimum has `limits`, how far it is from each, as a champion does.

    Args:
        profile: the model, with losses.
        objective: what the optimum is of.
        menu: names of precisions; by default those that the profile knows.
        pins: layer or unit name → precision name.
        front: whether to add the Pareto front, all points of it.
        at_least: only points of the front with at least this retention.
        cost: what is counted, or its name as `--cost` has it; bits by default. Under another cost compression is of
            that, and effective bits are 32 times the share of the FP32 cost.
        costs: further ones by name, for limits.

    Raises:
        InputError: the profile lacks losses, a pin cannot be kept, limits contradict, or nothing has that retention.
    """
    precisions = profile_menu(profile) if menu is None else Menu.parse(name.strip() for name in menu)
    if cost is None and not costs and isinstance(objective, Objective):
        problem = compile_problem(profile, precisions)
    else:
        from evoquant.campaign.build_scoring import counting  # reads configs

        compiling, goal = counting(precisions, objective, cost, costs or {})
        problem = compiling(profile)
        objective = goal(problem)
    data: dict[str, Any] = {
        "model": profile.name,
        "menu": list(precisions.names),
        "objective": _objective_data(objective),
        "pins": dict(pins or {}),
        **({"cost": problem.cost.name} if problem.own_cost else {}),
        "optimum": _optimum_data(problem, objective, certify(problem, objective, pins=pins)),
    }
    if front:
        data["front"] = _front_data(pareto_front(problem, at_least=at_least, pins=pins))
    return data


def _objective_data(objective: Objective) -> dict[str, Any]:
    kind = next((name for name, made in OBJECTIVES.items() if type(objective) is made), type(objective).__name__)
    if isinstance(objective, WithinLimits):
        at_most = {limit.name: limit.most / limit.per_unit for limit in objective.at_most}
        return {"kind": "limits", "retention": objective.floor, "minimise": objective.minimise, "at_most": at_most}
    return {"kind": kind, **(asdict(objective) if kind in OPTIONS else {})}  # type: ignore[call-overload]


def _optimum_data(problem: Problem, objective: Objective, bound: Bound) -> dict[str, Any]:
    names = problem.menu.names
    weights = problem.scalars["parameters"]
    taken = [bound.allocation == width for width in range(len(names))]
    return {
        "fitness": bound.fitness,
        "upper_bound": bound.upper_bound,
        "gap": bound.gap,
        "exact": bound.exact,
        "method": bound.method,
        "retention": bound.retention,
        "compression": bound.compression,
        "effective_bits": bound.effective_bits,
        "ties": bound.ties,
        "ties_complete": bound.ties_complete,
        "widths": {
            name: {"units": int(mask.sum()), "weights": int(weights[mask].sum())}
            for name, mask in zip(names, taken, strict=True)
        },
        "allocation": dict(zip(problem.layers, problem.unfold(bound.allocation), strict=True)),
        **limit_figures(objective, [bound.allocation], (problem,), np.array([bound.retention])),
    }


def _front_data(front: Front) -> dict[str, Any]:
    columns = (front.cost, front.retention, front.compression, front.effective_bits)
    return {
        "exact": front.exact,
        "epsilon": front.epsilon,
        "method": front.method,
        "points": [
            {"cost": cost, "retention": retention, "compression": compression, "effective_bits": bits}
            for cost, retention, compression, bits in zip(*(column.tolist() for column in columns), strict=True)
        ],
    }


def bound_tables(data: Mapping[str, Any]) -> list[Table]:
    """The data of `bound_data` as tables: the optimum, its widths, and the front thinned out to what fits a screen."""
    tables = [_optimum_table(data), _widths_table(data["optimum"])]
    if "front" in data:
        tables.append(_front_table(data["front"], data))
    return tables


def _optimum_table(data: Mapping[str, Any]) -> Table:
    best = data["optimum"]
    rows = [
        ("Best fitness", f"{best['fitness']:.6f}"),
        ("Upper bound", f"{best['upper_bound']:.6f}"),
        ("Gap", "none, proven optimal" if best["exact"] else f"at most {best['gap']:.2g} of the bound"),
        ("Retention", f"{best['retention']:.4%}"),
        ("Compression", f"{best['compression']:.4f}x"),
        (_size_column(data), _size(data, best["effective_bits"])),
        ("Method", best["method"]),
    ]
    rows += [(f"Limit: {row['name']}", limit_words(row)) for row in best.get("limits", ())]
    notes = ["The optimum of the separable estimate, not of measured accuracy."]
    if "cost" in data:
        notes.append(f"Compression is of {data['cost']}, FP32 / this.")
    if best["ties"] > 1:
        more = "" if best["ties_complete"] else " or more"
        notes.append(f"{best['ties']}{more} allocations are equally good and equally large.")
    given = data["objective"].items()
    options = "".join(f", {name} {value:g}" for name, value in given if isinstance(value, (int, float)))
    if "minimise" in data["objective"]:
        options += f", least {data['objective']['minimise']}"
    pinned = "".join(f"; {layer} {width}" for layer, width in data["pins"].items())
    title = f"{data['model']}: certified optimum ({data['objective']['kind']}{options}{pinned})"
    return Table(title, ("Figure", "Value"), rows, tuple(notes))


def _size_column(data: Mapping[str, Any]) -> str:
    return "Share of FP32's" if "cost" in data else "Effective bits"


def _size(data: Mapping[str, Any], bits: float) -> str:
    return f"{bits / 32.0:.4%}" if "cost" in data else f"{bits:.4f}"


def _widths_table(best: Mapping[str, Any]) -> Table:
    total = sum(taken["weights"] for taken in best["widths"].values())
    rows = [(name, f"{taken['units']:,}", f"{taken['weights'] / total:.2%}") for name, taken in best["widths"].items()]
    return Table("Widths that it gives", ("Precision", "Units", "Share of weights"), rows, numeric=frozenset({1, 2}))


def _front_table(front: Mapping[str, Any], data: Mapping[str, Any]) -> Table:
    points = front["points"]
    bits = np.array([point["effective_bits"] for point in points])
    wanted = np.linspace(bits[0], bits[-1], SHOWN)
    shown = np.unique(np.append(np.searchsorted(bits, wanted[:-1], side="right") - 1, len(points) - 1))
    rows = [
        (
            _size(data, points[i]["effective_bits"]),
            f"{points[i]['compression']:.4f}x",
            f"{points[i]['retention']:.4%}",
        )
        for i in shown.tolist()
    ]
    notes = []
    if len(shown) < len(points):
        notes.append(f"{len(shown)} of {len(points):,} points; --json prints all.")
    if not front["exact"]:
        notes.append(
            f"Not the whole front ({front['method']}): at equal bits up to {front['epsilon']:.2g} more may exist."
        )
    columns = (_size_column(data), "Compression", "Retention")
    return Table("Pareto front: the most retention for its size", columns, rows, tuple(notes), frozenset({0, 1, 2}))
