"""Figures of the random families: what quantization does to each layer of a model.

Every model draws a style, and every layer varies around it. The ranges are broad; what they rest on:

- Rounding to b bits makes noise of power ∝ 4^−b (Bennett 1948), and the loss is of second order in it (HAWQ-V2, Dong et
  al. 2020), so 2 bits more cost up to 16 times less; at few bits measured losses saturate and the steps are smaller.
  A step of 4 or 8 bits is a larger factor, but what remains at 16 bits is not the weights' rounding alone.
- Networks are more sensitive at their ends, whose first and last layers are customarily left wide (DoReFa-Net, Zhou et
  al. 2016), as are normalisations and embeddings (Q-BERT, Shen et al. 2020, quantizes these apart); depthwise
  convolutions are more sensitive than dense ones (Nagel et al. 2021, a white paper on neural network quantization).
- Larger layers are more redundant, so that each loses less; heavy tails of the weights stretch the step (the same).
- Gradients inform of the loss, but a second-order quantity follows a first-order one only loosely: its weight in the
  loss is drawn from none to proportional.

A layer's loss of retention is s = 1 − exp(−x), so that x adds up over layers. Last, x is scaled for the
whole model: its best allocation at a drawn number of effective bits (4 to 18) loses a drawn 2 to 4%. So the widths
worth choosing between differ from model to model, neither the narrowest nor the widest answers all, and one layer of a
deep model loses less than one of a shallow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.profiles.draw import readable
from evoquant.profiles.model import LayerProfile
from evoquant.quantization.precision import SEED_MENU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.profiles.draw import Draw
    from evoquant.profiles.family_layouts import LayerPlan

LARGEST_LOSS = 0.99
TARGET_BITS = (4.0, 18.0)
TARGET_LOSS = (0.02, 0.04)

# Loss of a type beside others, before anything else.
LEVELS = {
    "LayerNorm": (0.4, 8.0),
    "Embedding": (0.4, 5.0),
    "Classifier": (0.4, 6.0),
    "Attention": (0.4, 2.5),
    "Linear": (0.4, 2.0),
    "Conv": (0.4, 2.0),
}
DEPTHWISE = (1.0, 4.0)
# How many times less a layer loses at the next wider width: INT2 to INT4, to INT8, to FP16.
STEPS = ((2.0, 9.0), (3.0, 25.0), (6.0, 120.0))
STEP_SPREAD = 1.5  # by type, up to this factor either way


@dataclass(frozen=True)
class _Ends:
    """Factor on the layers near one end of the model: stepped, or fading to 1 where the zone ends."""

    factor: float
    zone: float
    fades: bool

    def log(self, distance: float) -> float:
        if distance >= self.zone:
            return 0.0
        return math.log(self.factor) * (1.0 - distance / self.zone if self.fades else 1.0)


@dataclass(frozen=True)
class _Style:
    """What the layers of one model share."""

    level: Mapping[str, float]  # type → logarithm
    steps: Mapping[str, tuple[float, ...]]  # type → logarithms
    depthwise: float
    first: _Ends | None
    last: _Ends | None
    gradient_follows: float  # how much of type and place shows in the gradient
    gradient_noise: float
    gradient_largest: float
    by_gradient: float  # exponents in the loss
    by_size: float
    by_tail: float
    layer_noise: float
    width_noise: float
    floor: float  # share of additive noise; mostly 0


def _ends(draw: Draw) -> _Ends | None:
    if draw.chance(0.3):
        return None
    return _Ends(draw.scale(0.7, 6.0), draw.scale(0.02, 0.4), draw.chance(0.5))


def _style(draw: Draw) -> _Style:
    common = [draw.scale(*step) for step in STEPS]
    return _Style(
        level={kind: math.log(draw.scale(*bounds)) for kind, bounds in LEVELS.items()},
        steps={
            kind: tuple(math.log(max(step * draw.scale(1 / STEP_SPREAD, STEP_SPREAD), 1.2)) for step in common)
            for kind in LEVELS
        },
        depthwise=math.log(draw.scale(*DEPTHWISE)),
        first=_ends(draw),
        last=_ends(draw),
        gradient_follows=draw.uniform(0.1, 1.0),
        gradient_noise=draw.scale(0.05, 0.8),
        gradient_largest=1.0 if draw.chance(0.5) else draw.uniform(0.5, 1.0),
        by_gradient=0.0 if draw.chance(0.2) else draw.uniform(0.0, 1.0),
        by_size=0.0 if draw.chance(0.4) else draw.uniform(-0.15, 0.45),
        by_tail=0.0 if draw.chance(0.4) else draw.uniform(0.0, 1.5),
        layer_noise=draw.scale(0.03, 0.6),
        width_noise=draw.scale(0.03, 0.4),
        floor=draw.scale(0.05, 0.5) if draw.chance(0.1) else 0.0,
    )


def _weights(draw: Draw, plans: Sequence[LayerPlan]) -> list[tuple[float, float, float]]:
    """Mean, std and range of each layer: std ∝ 1/√fan-in as networks are initialised, scales of norms near 1."""
    gain, spread, tail, tails = draw.scale(0.3, 1.6), draw.scale(0.05, 0.4), draw.scale(6, 16), draw.scale(0.03, 0.35)
    norm_mean, norm_std = draw.uniform(0.4, 1.2), draw.scale(0.005, 0.3)
    table = draw.scale(0.01, 1.0)
    result = []
    for plan in plans:
        if plan.type == "LayerNorm":
            mean, std = norm_mean * math.exp(draw.normal(0.1)), norm_std
        else:
            std = table if plan.type == "Embedding" else gain / math.sqrt(math.prod(plan.shape[1:]))
            mean = draw.normal(0.03) * std
        std *= math.exp(draw.normal(spread))
        result.append((mean, std, std * max(tail * math.exp(draw.normal(tails)), 3.5)))  # 2√3 if they were uniform
    return result


def _activations(draw: Draw, plans: Sequence[LayerPlan]) -> list[float]:
    level = {kind: draw.scale(1.0, 30.0) for kind in LEVELS}
    spread = draw.scale(0.05, 0.6)
    return [level[plan.type] * math.exp(draw.normal(spread)) for plan in plans]


def _beside_type(plans: Sequence[LayerPlan], values: Sequence[float]) -> list[float]:
    """Each value less the mean of its type."""
    means = {
        kind: math.fsum(found) / len(found)
        for kind in LEVELS
        if (found := [v for plan, v in zip(plans, values, strict=True) if plan.type == kind])
    }
    return [value - means[plan.type] for plan, value in zip(plans, values, strict=True)]


def _relative_losses(
    draw: Draw, style: _Style, plans: Sequence[LayerPlan], base: Sequence[float]
) -> list[tuple[float, ...]]:
    """x per layer over INT2 … FP32 up to the model's scale, from logarithms at INT2; never grows with the width."""
    typical = math.exp(math.fsum(base) / len(base) - sum(style.steps["Linear"][:2]))  # about what INT8 loses
    rows = []
    for plan, start in zip(plans, base, strict=True):
        logs = [start]
        for step in style.steps[plan.type]:
            logs.append(logs[-1] - step)
        row = [math.exp(value + draw.normal(style.width_noise)) for value in logs]
        row = [x + abs(draw.normal(1.0)) * style.floor * typical for x in row]
        for i in range(len(row) - 2, -1, -1):
            row[i] = max(row[i], row[i + 1])
        rows.append((*row, 0.0))
    return rows


def _scale(rows: Sequence[tuple[float, ...]], parameters: Sequence[int], bits: float, loss: float) -> float:
    """The factor at which the cheapest allocation of at most `bits` effective bits has `loss` together.

    Cheapest by the Lagrangian sum of loss and λ · bits, the largest such allocation found by bisection over log λ.
    """
    losses = np.array(rows)
    whole = math.fsum(parameters)
    cost = np.array([[p / whole * width.code_bits for width in SEED_MENU] for p in parameters])
    low, high = -60.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        chosen = np.argmin(losses + math.exp(middle) * cost, axis=1)
        fits = math.fsum(cost[np.arange(len(chosen)), chosen].tolist()) <= bits
        low, high = (low, middle) if fits else (middle, high)
    chosen = np.argmin(losses + math.exp(high) * cost, axis=1)
    return loss / math.fsum(losses[np.arange(len(chosen)), chosen].tolist())


def draw_layers(draw: Draw, plans: Sequence[LayerPlan]) -> tuple[LayerProfile, ...]:
    """The layers of a planned model with all their figures, each rounded to six significant digits."""
    style = _style(draw)
    weights, activations = _weights(draw, plans), _activations(draw, plans)
    last = max(len(plans) - 1, 1)
    positions = [i / last for i in range(len(plans))]
    parameters = [math.prod(plan.shape) for plan in plans]

    common = []
    for plan, position in zip(plans, positions, strict=True):
        value = style.level[plan.type] + (style.depthwise if plan.type == "Conv" and plan.groups > 1 else 0.0)
        value += style.first.log(position) if style.first else 0.0
        value += style.last.log(1.0 - position) if style.last else 0.0
        common.append(value)
    gradient = [style.gradient_follows * value + draw.normal(style.gradient_noise) for value in common]
    typical = math.fsum(gradient) / len(gradient)
    size = _beside_type(plans, [math.log(p) for p in parameters])
    tail = _beside_type(plans, [math.log(span / std) for _, std, span in weights])
    base = [
        common[i]
        + style.by_gradient * (gradient[i] - typical)
        - style.by_size * size[i]
        + style.by_tail * tail[i]
        + draw.normal(style.layer_noise)
        for i in range(len(plans))
    ]
    rows = _relative_losses(draw, style, plans, base)
    scale = _scale(rows, parameters, draw.scale(*TARGET_BITS), draw.uniform(*TARGET_LOSS))
    largest = max(gradient)
    return tuple(
        LayerProfile(
            name=plan.name,
            type=plan.type,
            shape=plan.shape,
            channel_axis=None if plan.type == "LayerNorm" else 0,
            position=positions[i],
            weight_mean=readable(weights[i][0]),
            weight_std=readable(weights[i][1]),
            weight_range=readable(weights[i][2]),
            activation_range=readable(activations[i]),
            gradient_sensitivity=readable(style.gradient_largest * math.exp(gradient[i] - largest)),
            loss={
                width: readable(min(-math.expm1(-scale * x), LARGEST_LOSS))
                for width, x in zip(SEED_MENU.names, rows[i], strict=True)
            },
            tie_group=plan.tie,
            groups=plan.groups,
        )
        for i, plan in enumerate(plans)
    )
