"""Named figures of the studies on real networks: each a text, computed from rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.report.measured import EVOLVED
from evoquant.report.own_models import FLOOR, OURS, PLAIN, best_way, falls, share_of_best

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Row = dict[str, Any]
    Rows = Callable[[str], Sequence[Row]]

TASKS = ("fashion_cnn", "fashion_vit", "char_lm", "tabular")
PER_RETENTION = 0.05  # above the cliff fitness doubles within so much retention


def digits(rows: Rows) -> dict[str, str]:
    """Rules on a real network, medians over seeds: `WAY.compression`, `.retention`, `.fitness`, `.passes`."""
    mine = rows("digits")
    found = {"seeds": str(len({row["seed"] for row in mine}))}
    for name in dict.fromkeys(row["name"] for row in mine):
        found |= {f"{name.replace(' ', '_')}.{key}": text for key, text in _measured(mine, name).items()}
    champion, int4 = (_test(mine, name, "fitness") for name in (EVOLVED, "uniform_int4"))
    samples = {row["scores"]["test"]["samples"] for row in mine}
    compression = float(np.median(_test(mine, EVOLVED, "compression")))
    behind = [b - a for a, b in zip(champion, int4, strict=True) if b > a]
    return found | {
        "samples_low": str(min(samples)),
        "one_error": f"{compression / max(samples) / PER_RETENTION:.2f}",
        "ahead_of_int4": f"{sum(a > b for a, b in zip(champion, int4, strict=True))} of {len(champion)}",
        "behind_int4_at_most": f"{max(behind, default=0):.2f}",
    }


def _measured(rows: Sequence[Row], name: str) -> dict[str, str]:
    mine = [row for row in rows if row["name"] == name]
    fitness = _test(rows, name, "fitness")
    low, high = (float(np.median([row["scores"]["test"]["interval"][i] for row in mine])) for i in (0, 1))
    spent = [sum(row["budget"].values()) if "budget" in row else 0 for row in mine]
    return {
        "compression": f"{np.median(_test(rows, name, 'compression')):.3f}x",
        "retention": f"{np.median(_test(rows, name, 'retention')):.2%}, {low:.2%} to {high:.2%}",
        "fitness": f"{np.median(fitness):.3f} ({min(fitness):.3f} to {max(fitness):.3f})",
        "passes": f"{np.median(spent):.0f}",
    }


def _test(rows: Sequence[Row], name: str, key: str) -> list[float]:
    """By seed, on test data."""
    mine = sorted((row for row in rows if row["name"] == name), key=lambda row: int(row["seed"]))
    return [float(row["scores"]["test"][key]) for row in mine]


def digits_table(rows: Rows) -> list[tuple[str, ...]]:
    """Rules beside baselines on `digits`; the header first."""
    figures = digits(rows)
    names = {
        "uniform_int8": "uniform INT8",
        "uniform_int4": "uniform INT4",
        "all_fp16": "uniform FP16",
        "wider_fp16_zone": "the published champion's rule",
        "evolved_champion": "the evolved champion",
    }
    keys = ("compression", "retention", "fitness", "passes")
    header = ("", "compression", "test retention, 95% interval", "test fitness (over seeds)", "passes")
    return [header, *((text, *(figures[f"{name}.{key}"] for key in keys)) for name, text in names.items())]


def own_models(rows: Rows) -> dict[str, str]:
    """evoquant beside today's ways: `TASK.WAY` median test fitness, `of_best.WAY` least and most share over tasks."""
    mine = rows("own_models")
    tasks = {task: [row for row in mine if row["task"] == task] for task in TASKS}
    found = {"seeds": str(len({row["seed"] for row in mine}))}
    for name in dict.fromkeys(row["name"] for row in mine):
        key = name.replace(", best on calibration", " on calibration").replace(",", "").replace(" ", "_")
        passes = [float(np.median([row["passes"] for row in some if row["name"] == name])) for some in tasks.values()]
        found[f"{key}.passes"] = _range(passes, ".0f")
        for task, some in tasks.items():
            found[f"{key}.{task}"] = f"{np.median(_test(some, name, 'fitness')):.2f}"
        shares = [share_of_best(some, name, best_way(some)) for some in tasks.values()]
        found[f"{key}.of_best"] = f"{100 * min(shares):.1f} to {max(shares):.1%}"
        for task, share in zip(tasks, shares, strict=True):
            found[f"{key}.of_best.{task}"] = f"{share:.1%}"
    ours = [row for row in mine if row["name"].startswith(OURS)]
    below = sum(row["scores"]["test"]["retention"] < FLOOR for row in ours)
    return found | {
        "below_the_floor": f"{below} of {len(ours)}",
        "plain_falls": _falls(tasks.values(), [PLAIN]),
        "own_falls": _falls(tasks.values(), list(dict.fromkeys(row["name"] for row in ours))),
    }


def _falls(tasks: Iterable[Sequence[Row]], names: Sequence[str]) -> str:
    """Least and largest median fall of fitness from calibration to test data, over tasks and ways."""
    lost = [float(np.median(falls(rows, name))) for rows in tasks for name in names]
    return f"{100 * min(lost):.0f} to {max(lost):.0%}".replace("-", "−")


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def own_models_table(rows: Rows) -> list[tuple[str, ...]]:
    """evoquant beside today's ways, median test fitness; the header first."""
    figures = own_models(rows)
    names = {
        "uniform_INT8-channel": "uniform INT8",
        "uniform_INT4-channel": "uniform INT4",
        "gradient_scores_exact_solver": "gradient scores, exact solver",
        "one_at_a_time_optimum": "one at a time, exact solver",
        "greedy_flips": "greedy flips (AMP)",
        "random_search": "random search",
        "plain_evolution": "plain evolution",
        "evoquant_direct_15_passes": "**evoquant**, one width per layer",
        "evoquant_direct_25_passes": "",
        "evoquant_direct_80_passes": "",
        "evoquant_tree_15_passes": "**evoquant**, trees",
    }
    lines: list[tuple[str, ...]] = [("", "passes", *TASKS)]
    for name, text in names.items():
        given = name.rpartition("_passes")[0].rpartition("_")[2]
        passes = f"**{given}**" if given else figures[f"{name}.passes"]
        lines.append((text, passes, *(figures[f"{name}.{task}"] for task in TASKS)))
    return lines


def leave_one_out(rows: Rows) -> dict[str, str]:
    """Heuristics on the task left out: shares of the test fitness of a search there with 80 passes."""
    mine = rows("leave_one_out")
    reference = {
        (row["task"], row["seed"]): row["scores"]["test"]["fitness"]
        for row in mine
        if row["name"] == "evoquant direct, 80 passes"
    }
    found = {"seeds": str(len({row["seed"] for row in mine}))}
    ways = {
        "tree": "tree from the other tasks",
        "rule": "rule from the other tasks",
        "exact": "expected loss, exact solver",
    }
    for key, name in ways.items():
        medians, worst = [], []
        for task in TASKS:
            shares = [
                row["scores"]["test"]["fitness"] / reference[task, row["seed"]]
                for row in mine
                if (row["task"], row["name"]) == (task, name)
            ]
            medians.append(float(np.median(shares)))
            worst.append(min(shares))
            found[f"{key}.{task}"] = f"{medians[-1]:.1%}"
        found |= {
            f"{key}.range": f"{100 * min(medians):.1f} to {max(medians):.1%}",
            f"{key}.worst": f"{min(worst):.1%}",
        }
    return found


def onnx(rows: Rows) -> dict[str, str]:
    """The same network in two runtimes: `TASK` the ONNX champion's share of PyTorch's, `apart` of equal allocations."""
    by = {(row["task"], row["runtime"]): row for row in rows("onnx")}
    apart = [np.abs(np.subtract(by[task, "torch"]["drawn"], by[task, "onnx"]["drawn"])).max() for task in TASKS]
    found = {"apart": f"{max(apart):.1e}".replace("e-0", "e-")}
    for task in TASKS:
        row = by[task, "onnx"]
        found[task] = f"{row['fitness']['test'] / row['of_torch']:.0%}"
    return found


EXAMPLES = ("digits", "tabular", "char_lm", "fashion_cnn", "fashion_vit")
ROUNDS = ("gguf",)  # rounds activations: its outputs and retention are apart from the others'


def export(rows: Rows) -> dict[str, str]:
    """Deployed models: largest differences from what was promised, sizes, times against FP32."""
    verified = [row for row in rows("export") if "written" not in row]
    examples = [row for row in verified if row["task"] in EXAMPLES]
    llama = {row["target"]: row for row in verified if row["task"] == "llama"}

    def times(target: str, task: str | None = None) -> list[float]:
        found = [row for row in examples if row["target"] == target and task in (None, row["task"])]
        return [row["latency"]["ratio"][1] for row in found]

    exact = [row for target, row in llama.items() if target not in ROUNDS]
    plain = [row for target, row in llama.items() if target not in ("torchao", "modelopt")]
    kept = llama["gguf"]["retention"]
    own = llama["modelopt"]["bytes"]
    return {
        "difference": _power(max(row["outputs"]["difference"] for row in examples)),
        "onnx_time": _range(times("onnx"), ".1f"),
        "openvino_time": _range(times("openvino"), ".1f"),
        "tabular_onnx_time": f"{times('onnx', 'tabular')[0]:.2f}",
        "tabular_matmulnbits_time": f"{times('onnx-matmulnbits', 'tabular')[0]:.2f}",
        "llama_targets": str(len(llama)),
        "llama_loaded": f"{sum(row['loaded'] for row in llama.values())} of {len(llama)}",
        "llama_tokens": str(min(row["tokens"]["alike"] for row in llama.values() if row["tokens"])),
        "llama_bytes_apart": f"{max(abs(row['bytes']['stored'] / row['bytes']['promised'] - 1) for row in plain):.1%}",
        "torchao_bits": f"{llama['torchao']['actual_bits']:.1f}",
        "torchao_promised_bits": f"{llama['torchao']['promised_bits']:.2f}",
        "modelopt_bytes_more": f"{own['stored'] / own['promised'] - 1:.0%}",
        "llama_difference": _power(max(row["outputs"]["difference"] for row in exact)),
        "gguf_difference": f"{llama['gguf']['outputs']['difference']:.0%}",
        "gguf_retention_apart": f"{100 * abs(kept['actual'] - kept['simulated']):.2f}",
    }


def _power(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-")
