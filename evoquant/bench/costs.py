"""Cost tables against the real thing: random networks of 8 layers with matrices 2,048 wide, 30 allocations per target.

Weights are random and nothing is trained: what a file takes and how long a call takes does not depend on them. Of the
MLP, retention is the cosine of its outputs with its own FP32 outputs, so that there are fronts of three objectives.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.export.latency import Recipes, Settings, first_feeds, measure_latency, predicted, time_wholes
from evoquant.export.latency import possible_widths as possible
from evoquant.export.latency_table import latency_data, machine
from evoquant.export.runners import runtime_of
from evoquant.export.timing import timing_of
from evoquant.files import write_atomic
from evoquant.models.deployable import deployable
from evoquant.profiles.model import profile_to_json
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from evoquant.scoring.cost_file import TableCost
from evoquant.scoring.cost_schema import table_from_dict
from evoquant.scoring.hypervolume import hypervolume_share
from evoquant.scoring.packed_bytes import PackedBytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.models.torch_task import TorchTask
    from evoquant.profiles.model import ModelProfile

Row = dict[str, Any]
WIDTH, DEPTH, TOKENS, VOCABULARY, HEADS = 2048, 8, 8, 512, 16
NETWORKS = ("mlp", "llama")
TARGETS = ("openvino", "onnx-matmulnbits")
MENUS = {
    "openvino": ("INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"),
    "onnx-matmulnbits": ("INT2-g64", "INT4-g64", "INT8-g64", "FP16", "FP32"),
}
ALLOCATIONS = 30
ROUNDS = {"mlp": 15, "llama": 7}
CONCENTRATION = 0.5  # of the Dirichlet distribution that an allocation's shares of widths are drawn from
FRONTS = (("retention", "size"), ("retention", "latency"), ("retention", "size", "latency"))
GENERATIONS, POPULATION, FRONT_FLOOR = 150, 100, 0.9
FLOORS = (0.999, 0.99, 0.95, 0.9)


def network_task(name: str) -> TorchTask:
    """The task of a network; weights are normal, of variance 2 / inputs in the MLP and 1 / inputs in the Llama."""
    from evoquant.models.networks import build_network
    from evoquant.models.torch_task import embedding, language_model

    rng = generator_for(0, 0, f"costs {name}")
    if name == "mlp":
        samples = [rng.standard_normal((count, WIDTH)).astype(np.float32) for count in (64, 16, 16)]
        task = {"calibration": samples[0], "selection": samples[1], "test": samples[2]}
        network = _randomized(_mlp(), rng, 2.0)
        return embedding(network, **task, name=name, block=64, batch=64)
    sizes = {"vocabulary": VOCABULARY, "length": 64, "width": WIDTH, "heads": HEADS, "key_value_heads": HEADS}
    sizes |= {"hidden": WIDTH, "depth": DEPTH, "begin": 1, "end": 2}
    network = _randomized(build_network({"kind": "llama", **sizes}), rng, 1.0)
    tokens = rng.integers(3, VOCABULARY, (12, TOKENS))
    return language_model(network, calibration=tokens, selection=tokens, test=tokens, name=name, block=4, batch=4)


def _mlp() -> Any:
    from torch import nn

    parts: list[Any] = []
    for _ in range(DEPTH):
        parts += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


def _randomized(network: Any, rng: np.random.Generator, gain: float) -> Any:
    import torch

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            shape = tuple(parameter.shape)
            vector = len(shape) == 1  # no two alike, or exporters keep but one
            scale, mean = (0.1, float("norm" in name)) if vector else ((gain / shape[-1]) ** 0.5, 0.0)
            draws = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale) + np.float32(mean)
            parameter.copy_(torch.from_numpy(draws))
    return network


def drawn_allocations(profile: ModelProfile, widths: Sequence[Sequence[str]], label: str) -> list[tuple[str, ...]]:
    """Allocations whose shares of widths differ from one to the next, as a search's do."""
    rng = generator_for(0, 0, label)
    names = list(dict.fromkeys(name for own in widths for name in own))
    found = []
    for _ in range(ALLOCATIONS):
        shares = dict(zip(names, rng.dirichlet([CONCENTRATION] * len(names)), strict=True))
        row = []
        for own in widths:
            weights = np.array([shares[name] + 1e-9 for name in own])
            row.append(own[int(rng.choice(len(own), p=weights / weights.sum()))])
        found.append(tuple(row))
    return found


def prediction_rows(name: str, target: str) -> tuple[list[Row], dict[str, Any]]:
    """A row for the table, one for each allocation; and the table itself, as plain data."""
    from evoquant.campaign.build_measured import bare_profile

    task = network_task(name)
    menu = Menu.parse(MENUS[target])
    profile, ready = bare_profile(task, menu), deployable(task)
    settings = Settings(target, rounds=ROUNDS[name], wholes=0)
    latency = measure_latency(ready, profile, menu, task.model_digest, settings)
    recipes = Recipes(profile, ready, task.model_digest)
    widths = [possible(layer, menu.names, recipes, target) for layer in profile.layers]
    allocations = drawn_allocations(profile, widths, f"allocations {name} {target}")
    times, stored = time_wholes(recipes, allocations, first_feeds(ready, settings.batch), settings)
    members = [(i,) for i in range(len(profile.layers))]
    size = PackedBytes(target)(profile, menu, members)
    data = latency_data(latency)
    head = {"network": name, "target": target}
    rows: list[Row] = [
        {
            **head,
            "part": "table",
            "runtime": runtime_of(target),
            "machine": machine(),
            "layers": len(profile.layers),
            "parameters": profile.parameters,
            "cells": data["measured"]["cells"],
            "noise_ns": data["noise"],
            "span_ns": data["span"],
            "constant_ns": data["constant"],
            "overhead_ns": data["measured"]["overhead"],
            "uniform": [
                {key: one[key] for key in ("predicted", "measured", "spread")} | {"width": width}
                for width, one in zip(_uniform_names(data), data["measured"]["whole"], strict=True)
            ],
        }
    ]
    for index, (allocation, row, real) in enumerate(zip(allocations, times, stored, strict=True)):
        timing = timing_of(row)
        counted = sum(int(size.table[i, menu.names.index(width)]) for i, width in enumerate(allocation))
        rows.append(
            {
                **head,
                "part": "allocation",
                "index": index,
                "widths": {width: allocation.count(width) for width in menu.names if width in allocation},
                "predicted_ns": round(predicted(latency, allocation)),
                "measured_ns": round(timing.value),
                "spread_ns": round(timing.spread),
                "predicted_bytes": counted + size.constant,
                "stored_bytes": real,
            }
        )
    return rows, data


def _uniform_names(data: dict[str, Any]) -> list[str]:
    return [max(set(one["widths"]), key=one["widths"].count) for one in data["measured"]["whole"]]


def front_rows(target: str, table: dict[str, Any], work: Path) -> list[Row]:
    """Fronts of the MLP: retention against size, against latency, against both; and what each knows of the others.

    `least` is, for each floor of retention, the fewest bytes and the least latency of a front's points at or above it;
    `share` the share of the box of all three objectives that its points dominate.
    """
    from evoquant import api
    from evoquant.campaign.build import make_executor
    from evoquant.campaign.measurer import Measurer
    from evoquant.store import Store

    task = network_task("mlp")
    work.mkdir(parents=True, exist_ok=True)
    executor = make_executor("local", None, None)
    store = Store.open(work)
    try:
        measurer = Measurer(task, store)
        measurer.use(executor, None)
        profile = task.profile(Menu.parse(MENUS[target]), measurer.outcomes, ("loss",))
    finally:
        store.close()
        executor.close()
    write_atomic(work / "mlp.json", profile_to_json(profile))
    write_atomic(work / "latency.json", json.dumps(table, allow_nan=False))
    menu, members = Menu.parse(MENUS[target]), [(i,) for i in range(len(profile.layers))]
    makers = (PackedBytes(target), TableCost(table_from_dict(table, "latency.json")))
    reference = np.array([maker(profile, menu, members).reference for maker in makers], dtype=np.float64)
    rows = []
    for objectives in FRONTS:
        name = "-".join(objectives)
        write_atomic(work / f"{name}.yaml", json.dumps(_campaign(name, target, objectives)))
        run = api.run(work / f"{name}.yaml", out=work / name)
        archive = json.loads((run.path / "archive.json").read_text(encoding="utf-8"))
        rows.append({"network": "mlp", "target": target, "part": "front", **_front(objectives, archive, reference)})
    return rows


def _campaign(name: str, target: str, objectives: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "models": {"train": ["mlp.json"], "valid": [], "test": []},
        "menu": list(MENUS[target]),
        "costs": {"size": {"kind": "bytes", "target": target}, "latency": {"kind": "table", "file": "latency.json"}},
        "objective": {"kind": "feasible_first", "floor": FRONT_FLOOR},
        "genome": {"kind": "direct"},
        "search": {"kind": "nsga2", "population": POPULATION, "floor": FRONT_FLOOR, "objectives": list(objectives)},
        "stop": {"generations": GENERATIONS},
        "executor": {"kind": "local"},
    }


def _front(objectives: Sequence[str], archive: dict[str, Any], reference: NDArray[np.float64]) -> Row:
    points = [entry["scores"]["train"] for entry in archive["entries"]]
    retention = np.array([point["retention"] for point in points])
    costs = np.array([[point["costs"][name]["most"] for name in ("size", "latency")] for point in points])
    return {
        "objectives": list(objectives),
        "points": len(points),
        "least": [
            {
                "floor": floor,
                "points": int((kept := retention >= floor).sum()),
                "bytes": int(costs[kept, 0].min()) if kept.any() else None,
                "latency_ns": int(costs[kept, 1].min()) if kept.any() else None,
            }
            for floor in FLOORS
        ],
        "share": hypervolume_share(costs / reference, retention, floor=FRONT_FLOOR),
    }
