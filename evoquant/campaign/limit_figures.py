"""What a champion costs by every table, and how far it is from each of its limits: plain data, for champion.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.scoring.cost_file import no_signal
from evoquant.scoring.limits import WithinLimits
from evoquant.scoring.objective import amounts_of
from evoquant.scoring.quantity import amount_text
from evoquant.scoring.separable import all_cost_sums, table_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.scoring.objective import Amounts, Objective
    from evoquant.scoring.problem import Problem


def model_amounts(allocations: Sequence[NDArray[np.int8]], problems: tuple[Problem, ...]) -> Amounts:
    """Name → `(1, models)` what allocations cost, `(units,)` of each model, by every table; `bits` always."""
    pairs = list(zip(problems, allocations, strict=True))
    found = dict(amounts_of(problems, np.stack([all_cost_sums(problem, row[None]) for problem, row in pairs], axis=1)))
    if "bits" not in found:
        bits = [int(table_sums(problem.bits, row[None])[0]) + problem.bits.constant for problem, row in pairs]
        found["bits"] = np.array([bits], dtype=np.int64)
    return found


def cost_figures(allocations: Sequence[NDArray[np.int8]], problems: tuple[Problem, ...]) -> dict[str, Any]:
    """`costs`: name → `unit`, `most` (of the model that costs most, as its table counts) and `text`."""
    units = {"bits": "bits", "cost": problems[0].cost.name}
    units |= {name: cost.name for name, cost in problems[0].costs.items()}
    found = model_amounts(allocations, problems)
    costs = {
        name: {"unit": unit, "most": int(found[name].max()), "text": amount_text(int(found[name].max()), unit)}
        for name, unit in units.items()
        if name in found
    }
    return {"costs": costs}


def signal_figures(allocations: Sequence[NDArray[np.int8]], problems: tuple[Problem, ...]) -> dict[str, Any]:
    """`signals`: of each cost with a known noise how far allocations are from the widest of all, and `text`.

    Of the model where that is least beside the noise; `present` is whether it is twice the noise or more. Empty where
    no cost was measured.
    """
    first = problems[0]
    names = {name: cost for name, cost in first.costs.items() if cost.noise is not None}
    if not names and first.cost.noise is not None:
        names = {"cost": first.cost}
    rows = []
    for name, cost in names.items():
        found = []
        for problem, taken in zip(problems, allocations, strict=True):
            table = problem.costs.get(name, problem.cost)
            widest = problem.repair(np.full((1, len(problem.units)), len(problem.menu) - 1, dtype=np.int8))
            value, most = (int(table_sums(table, row)[0]) + table.constant for row in (taken[None], widest))
            noise = table.noise or 0
            found.append((abs(most - value) / max(noise, 1), value, most, noise))
        _, value, most, noise = min(found)
        row: dict[str, Any] = {"name": name, "unit": cost.name, "value": value, "widest": most, "noise": noise}
        row["present"] = abs(most - value) >= 2 * noise
        row["text"] = _signal_text(row, first.menu.names[-1])
        rows.append(row)
    return {"signals": rows} if rows else {}


def _signal_text(row: dict[str, Any], widest: str) -> str:
    value, most, noise, apart = (
        amount_text(amount, row["unit"])
        for amount in (row["value"], row["widest"], row["noise"], abs(row["widest"] - row["value"]))
    )
    if row["present"]:
        return f"{value} here, {apart} from the {most} of {widest} throughout; the noise is {noise}"
    return f"{no_signal(row['unit'])}: {value}, and {most} of {widest} throughout, with a noise of {noise}"


def limit_figures(
    objective: Objective,
    allocations: Sequence[NDArray[np.int8]],
    problems: tuple[Problem, ...],
    retention: NDArray[np.float64],
) -> dict[str, Any]:
    """`limits`: of each `name`, `at_least` or `at_most`, `value` of the model that is worst off, `margin` and `text`.

    `margin` is how far within its limit a value is, as a share of the limit; below 0 it is not kept. Empty for an
    objective without limits; `costs`, too, where the campaign names several, and `signals` of what was measured.

    Args:
        objective: the campaign's.
        allocations: `(units,)` of each model.
        problems: the models.
        retention: `(models,)`.
    """
    figures = cost_figures(allocations, problems) if problems[0].costs else {}
    figures |= signal_figures(allocations, problems)
    if not isinstance(objective, WithinLimits):
        return figures
    amounts = model_amounts(allocations, problems)
    worst = float(retention.min())
    rows: list[dict[str, Any]] = [
        {
            "name": "retention",
            "at_least": objective.floor,
            "value": worst,
            "margin": worst / objective.floor - 1.0,
            "text": f"{worst:.2%}, at least {objective.floor:.4g}",
        }
    ]
    for limit in objective.at_most:
        value = amounts[limit.cost].max().item()
        rows.append(
            {
                "name": limit.name,
                "at_most": limit.most / limit.per_unit,
                "value": value / limit.per_unit,
                "unit": limit.unit or "bits per weight",
                "margin": 1.0 - value / limit.most,
                "text": f"{limit.text(value)}, at most {limit.text(limit.most)}",
            }
        )
    return {**figures, "minimise": objective.minimise, "limits": rows}
