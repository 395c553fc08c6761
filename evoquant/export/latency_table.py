"""A network's latency as a table that campaigns read: measured here, written as JSON."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.build_measured import bare_profile, make_task
from evoquant.errors import InputError
from evoquant.export.latency import measure_latency
from evoquant.export.runners import require_runner, runtime_of
from evoquant.models.deployable import deployable
from evoquant.profiles.targets import target_named
from evoquant.quantization.precision import Menu
from evoquant.scoring.cost_file import SCHEMA, VERSION, WIDEST
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.export.latency import Latency, Settings

_BY_CHANNEL = ("INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32")
MENUS = {"onnx-matmulnbits": ("INT2-g32", "INT4-g32", "INT8-g32", "FP16", "FP32")}
"""Widths that are measured where none are named; of other targets those by channel."""


def network_latency(
    source: TaskConfig, settings: Settings, menu: Sequence[str] | None = None, cache: str | Path | None = None
) -> dict[str, Any]:
    """The table of a network, as plain data.

    Args:
        source: the network.
        settings: how it is measured.
        menu: names of precisions; `MENUS` by default.
        cache: folder for trained networks.

    Raises:
        InputError: the target's latency is not measured here, or the network cannot be measured.
        MissingExtraError: packages are missing.
    """
    target_named(settings.target)
    require_runner(settings.target)
    widths = Menu.parse(MENUS.get(settings.target, _BY_CHANNEL) if menu is None else menu)
    nominal = [p.name for p in widths if p.granularity == "nominal"]
    if nominal:
        raise InputError(f"menu: {nominal[0]} is nominal, which nothing can deploy; name {nominal[0]}-channel.")
    task = make_task(source, cache_folder(None if cache is None else str(cache), Path()))
    measured = measure_latency(deployable(task), bare_profile(task, widths), widths, task.model_digest, settings)
    return latency_data(measured)


def latency_data(latency: Latency) -> dict[str, Any]:
    """The table as plain data: what `evoquant.scoring.cost_schema` reads."""
    layers = []
    for layer in latency.profile.layers:
        row = latency.cells.get(layer.name)
        made: dict[str, Any] = {"name": layer.name, "shape": list(layer.shape)}
        if row is None:  # read by nothing, so that it takes no time
            layers.append({**made, "values": {WIDEST: 0}})
            continue
        made["values"] = {width: round(latency.value(layer.name, width)) for width in row}
        made["spread"] = {width: round(cell.timing.spread) for width, cell in row.items()}
        made["kernels"] = {width: cell.kernels for width, cell in row.items()}
        layers.append(made)
    settings = latency.settings
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "unit": "ns",
        "model": latency.profile.name,
        "target": settings.target,
        "constant": round(latency.constant),
        "noise": round(latency.noise),
        "span": round(latency.span),
        "layers": layers,
        "measured": {
            "runtime": runtime_of(settings.target),
            "machine": machine(),
            "threads": settings.threads,
            "batch": settings.batch,
            "rounds": settings.rounds,
            "quantile": settings.quantile,
            "clock": settings.timed_by,
            "cells": latency.distinct,
            "overhead": round(latency.overhead),
            "overlap": round(latency.overlap),
            "whole": [
                {
                    "widths": list(whole.widths),
                    "predicted": round(whole.predicted),
                    "measured": round(whole.timing.value),
                    "spread": round(whole.timing.spread),
                }
                for whole in latency.wholes
            ],
        },
    }


def machine() -> dict[str, Any]:
    """What a time depends on, as far as Python can tell."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
    }


def _processor() -> str:
    """The processor's name, where the system says it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(named, platform.processor())[:100]
    except OSError:
        return platform.processor()
