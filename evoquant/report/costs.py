"""What `evoquant cost` shows: what each layer costs at each width, and how latency was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.table import Table
from evoquant.scoring.cost_file import CostTable, Signal, TableCost, check_model, signal_of
from evoquant.scoring.cost_schema import table_from_dict
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.quantity import amount_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.protocol import CostMaker

_MOST_ROWS = 200


def cost_data(profile: ModelProfile, menu: Menu, maker: CostMaker) -> dict[str, Any]:
    """Plain data: `model`, `cost`, `menu`, `units` with `values` in its order, `constant`, `reference`, `uniform`.

    `uniform` is the cost of the model with each width throughout, `next wider` where a unit may not have it. Of a
    table from a file there is `signal` too: whether allocations differ by more than its noise.

    Raises:
        InputError: the cost cannot be counted for this model or menu.
    """
    signal = None
    if isinstance(maker, TableCost):
        check_model(maker.table, profile)
        members = [(i,) for i in range(len(profile.layers))]
        signal = signal_of(maker.table, profile, menu, members)
        maker = TableCost(maker.table, refuse=False)
    problem = compile_problem(profile, menu, maker)
    cost = problem.cost
    choices = problem.repair(np.repeat(np.arange(len(menu), dtype=np.int8)[:, None], len(problem.units), axis=1))
    totals = [int(cost.table[np.arange(len(row)), row].sum()) + cost.constant for row in choices]
    data: dict[str, Any] = {
        "model": profile.name,
        "cost": cost.name,
        "menu": list(menu.names),
        "constant": cost.constant,
        "reference": cost.reference,
        "uniform": dict(zip(menu.names, totals, strict=True)),
        "units": [
            {"unit": name, "values": row, "allowed": allowed}
            for name, row, allowed in zip(problem.units, cost.table.tolist(), problem.allowed.tolist(), strict=True)
        ],
    }
    if signal is not None:
        data["signal"] = {
            "present": signal.present,
            "cheapest": signal.cheapest,
            "dearest": signal.dearest,
            "noise": signal.noise,
            "span": signal.span,
            "text": signal.text,
        }
    return data


def cost_table(data: Mapping[str, Any]) -> Table:
    """The data of `cost_data` as a table; a width that a unit may not have is a dash."""
    unit = data["cost"]
    rows = [
        (
            row["unit"],
            *(amount_text(v, unit) if ok else "-" for v, ok in zip(row["values"], row["allowed"], strict=True)),
        )
        for row in data["units"][:_MOST_ROWS]
    ]
    rows.append(("what no width applies to", *[amount_text(data["constant"], unit)] * len(data["menu"])))
    rows.append(("the model", *(amount_text(data["uniform"][name], unit) for name in data["menu"])))
    notes = [f"all in FP32: {amount_text(data['reference'], unit)}"]
    if len(data["units"]) > _MOST_ROWS:
        notes.append(f"the first {_MOST_ROWS} of {len(data['units'])} units; --json has all")
    if "signal" in data:
        notes.append(data["signal"]["text"])
    columns = ("Unit", *data["menu"])
    return Table(f"{data['model']}: {unit}", columns, rows, tuple(notes), frozenset(range(1, len(columns))))


def latency_tables(data: Mapping[str, Any]) -> list[Table]:
    """A table that `evoquant cost --latency` measured: its cells, and whole networks beside the sums of their parts."""
    table = table_from_dict(dict(data), str(data.get("model") or "latency"))
    widths = list(dict.fromkeys(width for layer in data["layers"] for width in layer["values"]))
    rows = [(layer["name"], *(_cell(layer, width) for width in widths)) for layer in data["layers"][:_MOST_ROWS]]
    about = data["measured"]
    notes = [
        f"{about['runtime']} on {about['machine']['processor']}, {_plural(about['threads'], 'thread')}, "
        f"{_plural(about['batch'], 'sample')} a call; {_statistic(about)} of {about['rounds']} rounds ± interquartile "
        f"range, by the {'processor time of the process' if about['clock'] == 'cpu' else 'wall clock'}",
        f"{about['cells']} cells are distinct and were measured; a call that does nothing takes "
        f"{amount_text(about['overhead'], table.unit)}, which is taken off",
        f"what no width applies to: {amount_text(table.constant, table.unit)}",
    ]
    if about["overlap"]:
        notes.append(
            f"measured by themselves, layers have {amount_text(about['overlap'], table.unit)} in common, taken off them"
        )
    cells = Table(
        f"{data['model']} on {data['target']}: latency by layer and width",
        ("Layer", *widths),
        rows,
        tuple(notes),
        frozenset(range(1, len(widths) + 1)),
    )
    return [cells, _whole_table(data, table)]


def _cell(layer: Mapping[str, Any], width: str) -> str:
    if width not in layer["values"]:
        return "-"
    value = amount_text(layer["values"][width], "nanoseconds")
    spread = layer.get("spread", {}).get(width)
    return value if spread is None else f"{value} ± {amount_text(spread, 'nanoseconds')}"


def _whole_table(data: Mapping[str, Any], table: CostTable) -> Table:
    wholes = data["measured"]["whole"]
    rows = [
        (
            _widths_text(one["widths"]),
            amount_text(one["predicted"], table.unit),
            f"{amount_text(one['measured'], table.unit)} ± {amount_text(one['spread'], table.unit)}",
            f"{one['measured'] / one['predicted'] - 1:+.1%}" if one["predicted"] else "-",
        )
        for one in wholes
    ]
    errors = [abs(one["measured"] / one["predicted"] - 1) for one in wholes if one["predicted"]]
    notes = [whole_signal(table).text]
    if errors:
        notes.insert(0, f"not additive by {float(np.median(errors)):.1%} (median), {max(errors):.1%} (most)")
    columns = ("Widths", "Sum of the parts", "Measured", "Difference")
    return Table(
        f"{data['model']} on {data['target']}: whole networks", columns, rows, tuple(notes), frozenset({1, 2, 3})
    )


def whole_signal(table: CostTable) -> Signal:
    """Whether any two allocations of all widths that a table has differ by more than its noise."""
    rows = table.values.values()
    cheapest, dearest = (table.constant + sum(pick(row.values()) for row in rows) for pick in (min, max))
    return Signal(table.unit, cheapest, dearest, table.noise, table.span)


def _widths_text(widths: Sequence[str]) -> str:
    counts = {width: list(widths).count(width) for width in dict.fromkeys(widths)}
    if len(counts) == 1:
        return f"all {widths[0]}"
    return ", ".join(f"{count} {width}" for width, count in sorted(counts.items()))


def _statistic(about: Mapping[str, Any]) -> str:
    quantile = about["quantile"]
    return "median" if math.isclose(quantile, 0.5) else f"quantile {quantile:g}"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
