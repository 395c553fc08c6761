"""Named figures of the studies on the seed suite and on families: each a text, computed from rows alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = dict[str, Any]
    Rows = Callable[[str], Sequence[Row]]

CLIFF = 0.1  # fitness that no allocation below the threshold reaches


def suite(rows: Rows) -> dict[str, str]:
    """The seed suite's strategies, the journey's variants, and certified optima."""
    shares = _by_model(rows)
    strategies = {(row["strategy"], row["split"]): row["fitness"] for row in rows("baselines") if row["data"] == "seed"}
    last = rows("journey")[-1]["population"]
    variants = dict(zip(last["labels"], last["fitness"], strict=True))
    return {
        "published_champion": f"{strategies['wider_fp16_zone', 'test']:.4f}",
        "uniform_fp16": f"{strategies['all_fp16', 'test']:.4f}",
        "champion_without_edges": f"{variants['wider_fp16_zone, edges 0.0']:.4f}",
        "champion_fp16_edges": f"{variants['wider_fp16_zone, edge_width FP16']:.4f}",
        "optimum_train": f"{shares['seed/train']['optimum']:.4f}",
        "optimum_test": f"{shares['seed/test']['optimum']:.4f}",
    }


def free_evolution(rows: Rows) -> dict[str, str]:
    """Free evolution, rediscovery and random search; and what ties at the train optimum is worth on test."""
    mine = rows("free_evolution")
    budgets = [row["evaluations"] for row in mine]
    tied = [
        float(row[table["columns"].index("TEST")])
        for table in rows("rediscovery")
        if "TEST" in table["columns"]
        for row in table["rows"]
        if row[table["columns"].index("Fitness")] == f"{_by_model(rows)['seed/train']['optimum']:.4f}"
    ]
    found = {
        "seeds": str(len({row["seed"] for row in mine})),
        "budget_low": f"{min(budgets):,}",
        "budget_high": f"{max(budgets):,}",
        "tied_low": f"{min(tied):.2f}",
        "tied_high": f"{max(tied):.2f}",
    }
    for name in ("evolve", "rediscover", "random"):
        found |= {f"{name}.{key}": text for key, text in _campaign(mine, name).items()}
    return found


def searches(rows: Rows) -> dict[str, str]:
    """Every search at one budget: `NAME.reached`, `.needed_q1`, `.needed_median`, `.needed_q3`, `.test_median`."""
    mine = rows("searches")
    found = {"seeds": str(len({row["seed"] for row in mine}))}
    for name in dict.fromkeys(row["campaign"] for row in mine):
        found |= {f"{name}.{key}": text for key, text in _campaign(mine, name).items()}
    return found


def _campaign(rows: Sequence[Row], name: str) -> dict[str, str]:
    mine = [row for row in rows if row["campaign"] == name]
    needed = [math.inf if row["reached_after"] is None else row["reached_after"] for row in mine]
    quartiles = np.quantile(needed, [0.25, 0.5, 0.75], method="higher").tolist()
    reached = sum(map(math.isfinite, needed))
    found = {"reached": f"{reached} of {len(mine)}"}
    for key, value in zip(("q1", "median", "q3"), quartiles, strict=True):
        found[f"needed_{key}"] = f"{value:.0f}" if math.isfinite(value) else "not reached"
    test = [row["fitness"]["test"] for row in mine if "test" in row["fitness"]]
    for key, of in (("min", np.min), ("median", np.median), ("max", np.max)) if test else ():
        found[f"test_{key}"] = f"{of(test):.4f}"
    return found


def hypervolume(rows: Rows) -> dict[str, str]:
    """NSGA-II's share of the exact front's hypervolume."""
    mine = rows("hypervolume")
    return {
        "least_share": f"{math.floor(min(row['share'] for row in mine) * 1e4) / 1e2:.2f}%",
        "evaluations": f"{mine[0]['evaluations']:,}",
    }


def transfer(rows: Rows) -> dict[str, str]:
    """Heuristics that carry over: `tree`, `rule`, `greedy`, `published`, `uniform_fp16` on test and unseen models."""
    test, unseen = _by_model(rows)["seed/test"], rows("unseen")
    labels = {
        "tree": [f"transfer_tree {row['seed']}" for row in rows("transfer") if row["campaign"] == "transfer_tree"],
        "rule": [f"transfer_rule {row['seed']}" for row in rows("transfer") if row["campaign"] == "transfer_rule"],
        "greedy": ["greedy, loss per bit"],
        "published": ["published champion"],
        "uniform_fp16": ["uniform FP16"],
    }
    on_test = {"published champion": "wider_fp16_zone", "uniform FP16": "all_fp16"}  # as the suite's rows call them
    found = {"seeds": str(len(labels["tree"])), "unseen_models": str(len(unseen))}
    for name, mine in labels.items():
        shares = np.array([test["fitness"][on_test.get(label, label)] / test["optimum"] for label in mine])
        values = np.array([row["fitness"][label] / row["optimum"] for row in unseen for label in mine])
        below = np.mean([row["fitness"][label] < CLIFF for row in unseen for label in mine])
        found |= {
            f"{name}.test_worst": f"{shares.min():.2%}",
            f"{name}.test_median": f"{np.median(shares):.2%}",
            f"{name}.test_close": f"{int((shares >= 0.99).sum())} of {len(shares)}",
            f"{name}.unseen_median": f"{np.median(values):.2%}",
            f"{name}.unseen_low": f"{np.quantile(values, 0.05):.2%}",
            f"{name}.below": f"{below:.1%}".replace(".0%", "%"),
        }
    alone = [value for label, value in test["fitness"].items() if label.startswith("tree ")]
    return found | {"trained_alone": f"{np.median(alone):.4f}", "trained_alone_seeds": str(len(alone))}


def _by_model(rows: Rows) -> dict[str, Row]:
    return {row["model"]: row for row in rows("gap") if "optimum" in row}


def free_evolution_table(rows: Rows) -> list[tuple[str, ...]]:
    """What free evolution, rediscovery and random search need; the header first."""
    figures = free_evolution(rows)
    names = {
        "evolve": "free evolution",
        "rediscover": "rediscovery from the published Gen 1",
        "random": "random search",
    }
    optimum = suite(rows)["optimum_train"]
    header = ("", f"reaches the train optimum {optimum}", "candidates needed: quartiles", "test: min, median, max")
    return [
        header,
        *(
            (
                text,
                figures[f"{name}.reached"],
                f"{figures[f'{name}.needed_q1']}, **{figures[f'{name}.needed_median']}**, "
                f"{figures[f'{name}.needed_q3']}",
                ", ".join(figures[f"{name}.test_{key}"] for key in ("min", "median", "max")),
            )
            for name, text in names.items()
        ),
    ]


def transfer_table(rows: Rows) -> list[tuple[str, ...]]:
    """Heuristics that carry over, on test and on the unseen models; the header first."""
    figures = transfer(rows)

    def line(name: str, text: str, *, one: bool, bold: bool = False) -> tuple[str, ...]:
        mark = "**" if bold else ""
        worst, median = figures[f"{name}.test_worst"], f"{mark}{figures[f'{name}.test_median']}{mark}"
        unseen = f"{mark}{figures[f'{name}.unseen_median']}{mark}, {figures[f'{name}.unseen_low']}"
        close = "" if one else figures[f"{name}.test_close"]
        return text, worst if one else f"{worst}, {median}", close, unseen, figures[f"{name}.below"]

    unseen = f"{figures['unseen_models']} unseen models: median, 5th percentile"
    return [
        ("", "test: worst, median", "at least 99%", unseen, "below the cliff"),
        line("tree", "evolved trees", one=False, bold=True),
        line("rule", "evolved rules", one=False, bold=True),
        line("greedy", "greedy, loss per bit (solves every model anew)", one=True),
        line("published", "the published champion", one=True),
        line("uniform_fp16", "uniform FP16", one=True),
    ]
