"""Named figures of the frozen tables and of speed: each a text, computed from rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = dict[str, Any]
    Rows = Callable[[str], Sequence[Row]]

POINTS = ("20", "50", "100", "200")
SEARCHES = {
    "surrogate": "surrogate",
    "level_switch": "level_switch (plain evolution)",
    "genetic": "genetic",
    "tpe": "TPE (Optuna)",
    "nsga2": "NSGA-II",
    "flips": "greedy flips (AMP)",
}


def tabular(rows: Rows) -> dict[str, str]:
    """Searches on the frozen tables: `TABLE.SEARCH.POINT` mean share of the true optimum."""
    shares: dict[tuple[str, str, str], list[float]] = {}
    for row in rows("tabular"):
        for point, share in row["share"].items():
            shares.setdefault((row["table"], row["search"], point), []).append(share)
    found = {".".join(key): f"{np.mean(values):.1%}" for key, values in shares.items()}
    return found | {"seeds": str(max(map(len, shares.values())))}


def tabular_table(rows: Rows) -> list[tuple[str, ...]]:
    """Mean share of the true optimum after so many evaluations, the two tables side by side; the header first."""
    figures = tabular(rows)
    tables = tuple(dict.fromkeys(row["table"] for row in rows("tabular")))
    lines: list[tuple[str, ...]] = [("", *POINTS)]
    for search, text in SEARCHES.items():
        mark = "**" if search == "surrogate" else ""
        cells = (", ".join(f"{mark}{figures[f'{t}.{search}.{point}']}{mark}" for t in tables) for point in POINTS)
        lines.append((text, *cells))
    return lines


def performance(rows: Rows) -> dict[str, str]:
    """Speed: medians of rounds, found by what was measured."""
    of = {part: [row["row"] for row in rows("performance") if row["part"] == part] for part in PARTS}
    rules, trees, engine, networks = (of[part] for part in PARTS[:4])
    plain = _medians(rules, "131 layers", "against plain Python")
    loops = _medians(rules, "131 layers", "against compiled scalar loop")
    speed = max(row["rates"]["compiled pass"] for row in rules if "compiled pass" in row["rates"])
    large = _row(engine, "population 100,000")["values"]
    everything = _medians(networks, "rules: all candidates")
    distinct = _medians(networks, "rules: distinct allocations only")
    return {
        "rules_rate": f"{speed / 1e6:.1f}M",
        "rules_plain": _span(plain, ".0f"),
        "rules_loops": _span(loops, ".1f"),
        "trees_random": f"{_row(trees, 'random trees', 'DEAP')['median']:.0f}",
        "trees_evolved": f"{_row(trees, 'evolved trees', 'DEAP')['median']:.0f}",
        "campaign_deap": f"{_row(engine, 'generations', 'a campaign', SLOW_DEAP)['median']:.0f}",
        "campaign_pymoo": f"{_row(engine, 'generations', 'a campaign', 'pymoo')['median']:.0f}",
        "search_deap": f"{_row(engine, 'generations', 'the search alone', SLOW_DEAP)['median']:.0f}",
        "search_pymoo": f"{_row(engine, 'generations', 'the search alone', 'pymoo')['median']:.0f}",
        "large_low": f"{min(large) / 1e6:.1f}M",
        "large_high": f"{max(large) / 1e6:.1f}M",
        "networks_all": _span(everything, ".1f"),
        "networks_distinct": _span(distinct, ".1f"),
        "ray_over_ideal": f"{_row(of['cluster'], '2 workers')['median']:.1f}%",
        **_starts(of["start"]),
        **_simulated(of["scaling"]),
    }


PARTS = ("rules", "trees", "engine", "networks", "cluster", "start", "scaling")
SLOW_DEAP = "against DEAP's eaSimple"


def _row(rows: Sequence[Row], *words: str) -> Row:
    """The one row whose `what` holds all these words; the shortest of several, which has no further condition."""
    return min((row for row in rows if all(word in row["what"] for word in words)), key=lambda row: len(row["what"]))


def _medians(rows: Sequence[Row], *words: str) -> list[float]:
    return [row["median"] for row in rows if all(word in row["what"] for word in words)]


def _span(values: Sequence[float], form: str) -> str:
    return f"{format(min(values), form)} to {format(max(values), form)}"


def _starts(rows: Sequence[Row]) -> dict[str, str]:
    names = {"import": "import evoquant", "help": "evoquant --help", "journey": "evoquant run"}
    found = {f"start_{key}": f"{_row(rows, what, 'as installed')['median']:.2f}" for key, what in names.items()}
    return found | {f"cold_{key}": f"{_row(rows, what, 'all cold')['median']:.2g}" for key, what in names.items()}


def _simulated(rows: Sequence[Row]) -> dict[str, str]:
    """How busy 64 workers are with 100 items of 10 s a generation."""
    mine = [row for row in rows if row["part"] == "simulation" and (row["workers"], row["item_s"]) == (64, 10.0)]
    return {f"busy_{row['mode']}": f"{row['efficiency']:.0%}" for row in mine if row["population"] == 100}
