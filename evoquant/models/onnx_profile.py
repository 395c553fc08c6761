"""Profile an ONNX network, which has no gradient: divergence at one width per unit stands in for the Fisher cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import CampaignError
from evoquant.models.base import DIVERGENCE, REFERENCE, SCORE, Failed, Request
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.error import squared_error
from evoquant.quantization.numerics import fake_quantize, representable
from evoquant.scoring.statistics import paired_retention, require_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evoquant.models.base import Measure, Outcome
    from evoquant.models.onnx_layers import OnnxLayer
    from evoquant.models.onnx_task import OnnxTask
    from evoquant.quantization.precision import Menu, Precision
    from evoquant.quantization.rounding import Rounder

REPRESENTATIVE_BITS = 4
CHEAP_SAMPLES, CHEAP_SHARE = 256, 8  # so many, or one in so many: what PyTorch's Fisher costs take
NOT_AVAILABLE = ("hessian", "gradient_sensitivity")
"""Signals that need gradients. Asked for, they are left out of the profile, which says so in its provenance."""

Widths = tuple[str, ...]
Table = list[dict[str, float | None]]
"""Layer → precision → value, None where it could not be had."""


def profile_onnx(task: OnnxTask, menu: Menu, measure: Measure, signals: Sequence[str]) -> ModelProfile:
    """The profile of an ONNX network for `menu`.

    `loss` is measured one layer and width at a time on the whole calibration split, and gives `divergence` at no cost.
    Without it, `divergence` is that of each unit at one representative width on the first blocks, about
    `CHEAP_SAMPLES` samples or, of a split with few (of sequences, say), an eighth of it, shared out over its members
    and extrapolated to other widths in proportion to the squared error of the weights. `fisher`, asked for beside
    `loss`, is this extrapolated table; otherwise it is the same table as `divergence`, so that searches that start
    from Fisher costs can. A width that a layer cannot be held at, or whose measurement failed, is not in its
    `allowed`.

    Raises:
        CampaignError: the FP32 network could not be measured.
        PrecisionError: the menu holds a nominal precision.
        ProfileError: the FP32 network's metric has no retention.
    """
    from evoquant.models.onnx_macs import layer_macs

    weights = [np.asarray(task.opened.weights[layer.name], dtype=np.float32) for layer in task.table]
    holds = [{p.name: _holds(task, layer, w, p) for p in menu} for layer, w in zip(task.table, weights, strict=True)]
    rounder = None if task.rounder is None else task.rounder.checking()  # every tensor at every width comes by
    errors: list[dict[str, float]] = [
        {p.name: _error(w, p, layer, rounder) if hold[p.name] else squared_error(w, np.zeros_like(w)) for p in menu}
        for layer, w, hold in zip(task.table, weights, holds, strict=True)
    ]
    passes: dict[str, float] = {}
    provenance: dict[str, Any] = task.provenance()
    losses: Table | None = None
    divergences: Table | None = None
    fishers: Table | None = None
    if "loss" in signals:
        losses, divergences, count = _one_at_a_time(task, menu, measure, holds)
        passes |= {"loss": float(count), "divergence": 0.0}
        fishers = divergences
    if "fisher" in signals or ("divergence" in signals and losses is None):
        fishers, cost, provenance["fisher"] = _extrapolated(task, menu, measure, holds, errors)
        if divergences is None:
            divergences, provenance["divergence"] = fishers, provenance["fisher"]
        signal = "fisher" if "fisher" in signals else "divergence"
        passes |= {"fisher": 0.0, "divergence": 0.0, signal: cost}
    ranges = [0.0] * len(weights)
    if "activation_range" in signals:
        ranges, passes["activation_range"] = task.activation_ranges(), 1.0
    left_out = [signal for signal in signals if signal in NOT_AVAILABLE]
    if left_out:
        provenance["not_available"] = left_out
    macs = layer_macs(task)
    layers = []
    for i, layer in enumerate(task.table):
        failed = {p for p, value in losses[i].items() if value is None} if losses is not None else set()
        allowed = tuple(p.name for p in menu if holds[i][p.name] and p.name not in failed)
        layers.append(
            LayerProfile(
                name=layer.name,
                type=layer.type,
                shape=layer.shape,
                position=i / max(len(weights) - 1, 1),
                channel_axis=layer.channel_axis,
                weight_mean=float(weights[i].mean(dtype=np.float64)),
                weight_std=float(weights[i].std(dtype=np.float64)),
                weight_range=float(weights[i].max()) - float(weights[i].min()),
                activation_range=ranges[i],
                loss=_full(losses, i, 1.0),
                divergence=_full(divergences, i),
                fisher=_full(fishers, i),
                weight_error=errors[i],
                allowed=None if len(allowed) == len(menu) else allowed,
                tie_group=layer.tie_group,
                fan_in=layer.fan_in,
                groups=layer.groups,
                macs=macs[i],
            )
        )
    return ModelProfile(task.name, tuple(layers), task.opened.constant_bits, passes, provenance)


def _full(table: Table | None, layer: int, worst: float | None = None) -> dict[str, float]:
    """A layer's row; a width that is not allowed is as bad as the worst of any layer."""
    if table is None:
        return {}
    if worst is None:
        worst = max((value for row in table for value in row.values() if value is not None), default=0.0)
    return {name: worst if value is None else value for name, value in table[layer].items()}


def _holds(task: OnnxTask, layer: OnnxLayer, weight: Any, precision: Precision) -> bool:
    switched = precision.activation_bits is None or task.switchable(layer)
    return switched and representable(weight, precision, layer.channel_axis)


def _error(weight: Any, precision: Precision, layer: OnnxLayer, rounder: Rounder | None) -> float:
    return squared_error(weight, fake_quantize(weight, precision, layer.channel_axis, rounder))


def _alone(count: int, members: Iterable[int], width: str) -> Widths:
    """`width` for these layers, FP32 for the others."""
    quantized = set(members)
    return tuple(width if i in quantized else REFERENCE for i in range(count))


def _measured(measure: Measure, allocations: Sequence[Widths], blocks: Sequence[int]) -> dict[Widths, Outcome | Failed]:
    """Outcomes of each allocation on these blocks of the calibration split.

    Raises:
        CampaignError: the first allocation, which is the reference, failed.
    """
    distinct = list(dict.fromkeys(allocations))
    answers = measure([Request(widths, "calibration", block) for widths in distinct for block in blocks])
    found: dict[Widths, Outcome | Failed] = {}
    for index, widths in enumerate(distinct):
        parts = answers[index * len(blocks) : (index + 1) * len(blocks)]
        failed = next((part for part in parts if isinstance(part, Failed)), None)
        if failed is not None and index == 0:
            raise CampaignError(f"the FP32 network could not be measured: {failed.reason}: {failed.message}")
        found[widths] = failed or np.concatenate([part for part in parts if not isinstance(part, Failed)])
    return found


def _one_at_a_time(
    task: OnnxTask, menu: Menu, measure: Measure, holds: Sequence[dict[str, bool]]
) -> tuple[Table, Table, int]:
    """Losses in [−1, 1] and divergences in nats of each layer alone, and the number of allocations measured."""
    count = len(holds)
    reference = (REFERENCE,) * count
    wanted = [(i, p.name) for i in range(count) for p in menu if holds[i][p.name] and p.name != REFERENCE]
    blocks = [block.index for block in task.blocks("calibration")]
    found = _measured(measure, [reference, *(_alone(count, [i], name) for i, name in wanted)], blocks)
    base = found[reference]
    assert not isinstance(base, Failed)
    require_reference(task.metric, float(base[:, SCORE].mean(dtype=np.float64)))
    losses: Table = [{p.name: 0.0 if p.name == REFERENCE else None for p in menu} for _ in range(count)]
    divergences: Table = [dict(row) for row in losses]
    for i, name in wanted:
        outcome = found[_alone(count, [i], name)]
        if isinstance(outcome, Failed):
            continue
        retention = paired_retention(outcome[:, SCORE], base[:, SCORE], task.metric).value
        losses[i][name] = 1.0 if math.isnan(retention) else min(1.0, max(-1.0, 1.0 - retention))
        divergences[i][name] = _mean_divergence(outcome)
    return losses, divergences, 1 + len(wanted)


def _extrapolated(
    task: OnnxTask,
    menu: Menu,
    measure: Measure,
    holds: Sequence[dict[str, bool]],
    errors: Sequence[dict[str, float]],
) -> tuple[Table, float, str]:
    """Each unit's divergence at one width, in proportion to squared error for the others; passes; how it was got.

    Where the menu has widths that quantize activations, too, one of them is measured as well, and what it adds to the
    divergence of its weights alone is added at each of them. One that fails counts as the worst that was measured.
    """
    count = len(holds)
    units: dict[str, list[int]] = {}
    for i, layer in enumerate(task.table):
        units.setdefault(layer.tie_group or layer.name, []).append(i)
    blocks = _some_blocks(task)
    chosen = {
        (unit, activations): _representative(menu, [holds[i] for i in members], activations)
        for unit, members in units.items()
        for activations in (False, True)
    }
    asked = [_alone(count, units[unit], width) for (unit, _), width in chosen.items() if width is not None]
    found = _measured(measure, [(REFERENCE,) * count, *asked], blocks)

    worst = max(_mean_divergence(outcome) for outcome in found.values() if not isinstance(outcome, Failed))

    def divergence(members: Sequence[int], width: str | None) -> float:
        if width is None:
            return 0.0
        outcome = found[_alone(count, members, width)]
        return worst if isinstance(outcome, Failed) else _mean_divergence(outcome)

    rows: dict[int, dict[str, float | None]] = {}
    for unit, members in units.items():
        plain, dynamic = chosen[unit, False], chosen[unit, True]
        total = {p: sum(errors[i][p] for i in members) for p in menu.names}
        per_error = divergence(members, plain) / total[plain] if plain is not None and total[plain] > 0 else 0.0
        added = 0.0 if dynamic is None else max(0.0, divergence(members, dynamic) - per_error * total[dynamic])
        for i in members:
            extra = {p.name: added / len(members) if p.activation_bits is not None else 0.0 for p in menu}
            rows[i] = {p: per_error * errors[i][p] + extra[p] for p in menu.names}
    table: Table = [rows[i] for i in range(count)]
    sizes = [block.samples for block in task.blocks("calibration")]
    share = sum(sizes[index] for index in blocks) / sum(sizes)
    widths = ", ".join(sorted({width for width in chosen.values() if width is not None}))
    how = f"divergence measured at {widths or 'no width'}, in proportion to weight error for other widths"
    return table, len(found) * share, how


def _representative(menu: Menu, holds: Sequence[dict[str, bool]], activations: bool) -> str | None:
    """The width nearest 4 bits that all members can be held at, with or without quantized activations."""
    candidates = [
        p
        for p in menu
        if p.name != REFERENCE
        and (p.activation_bits is not None) == activations
        and all(hold[p.name] for hold in holds)
    ]
    nearest = min(candidates, key=lambda p: (abs(p.code_bits - REPRESENTATIVE_BITS), p.name), default=None)
    return None if nearest is None else nearest.name


def _some_blocks(task: OnnxTask) -> list[int]:
    """The first blocks of the calibration split that together have enough samples."""
    chosen: list[int] = []
    samples = 0
    blocks = task.blocks("calibration")
    enough = min(CHEAP_SAMPLES, sum(block.samples for block in blocks) // CHEAP_SHARE)
    for block in blocks:
        if chosen and samples >= enough:
            break
        chosen.append(block.index)
        samples += block.samples
    return chosen


def _mean_divergence(outcome: Outcome) -> float:
    return float(outcome[:, DIVERGENCE].mean(dtype=np.float64))
