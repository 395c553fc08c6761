"""Profile a PyTorch network: statistics of its weights, and the signals that were asked for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import CampaignError, InputError, ProfileError, suggestion
from evoquant.models.base import DIVERGENCE, REFERENCE, SCORE, SIGNALS, Failed, Request
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.numerics import representable
from evoquant.scoring.expected_loss import LOSS_PER_NAT, with_expected_loss
from evoquant.scoring.statistics import require_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from evoquant.models.base import Measure, Outcome
    from evoquant.models.torch_layers import Layer
    from evoquant.models.torch_task import TorchTask
    from evoquant.quantization.precision import Menu
    from evoquant.scoring.statistics import Metric

FISHER_SAMPLES = 256
Column = dict[str, float]


@dataclass(frozen=True)
class Alone:
    """What measuring one layer at one width at a time gave.

    Attributes:
        losses, divergences: `(layers, P)`; where a width is not to be had, 1 and the largest divergence of all.
        possible: `(layers, P)` widths that can be held and whose measurement did not fail.
        passes: distinct allocations that were measured.
    """

    losses: NDArray[np.float64]
    divergences: NDArray[np.float64]
    possible: NDArray[np.bool_]
    passes: int


_FACTS = ("name", "type", "shape", "channel_axis", "tie_group", "fan_in", "groups", "holders", "called")
"""What a profile says of a layer as it was found."""


def _facts(layer: Layer, tables: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    return {**{fact: getattr(layer, fact) for fact in _FACTS}, **tables}


def profile_task(
    task: TorchTask, menu: Menu, measure: Measure, signals: Sequence[str], fisher_samples: int | None
) -> ModelProfile:
    """The profile of a task's network for `menu`; see `TorchTask.profile`.

    loss: 1 − retention of the network with this layer alone quantized, on the calibration split, clipped to [−1, 1];
    divergence: the mean divergence of the same measurements, in nats. Both cost the passes of one, so `passes` books
    them under the first that was asked for and 0 under the other. fisher: `fisher_costs`, and with it
    `expected_loss` where the kind of metric is known; hessian: `hessian_costs`;
    gradient_sensitivity: 3 passes; activation_range: free where gradients or Fisher costs are made (then over their
    samples), else 1 pass. A width that a layer cannot be held at, or whose measurement failed, is not in the layer's
    `allowed`; tables stay full: its error is that of losing every weight.
    """
    from evoquant.models.torch_direct import Subject
    from evoquant.models.torch_fisher import fisher_costs
    from evoquant.models.torch_kinds import Judge
    from evoquant.models.torch_macs import layer_macs
    from evoquant.models.torch_signals import Ranges, gradient_sensitivities, hessian_costs, run_forward, weight_figures

    for name in signals:
        if name not in SIGNALS:
            raise InputError(f"unknown signal {name!r}.{suggestion(name, SIGNALS)}")
    for precision in menu:
        representable(np.ones(1, np.float32), precision, None)  # a nominal precision is refused before anything runs
    layers, precisions, judge = task.found, tuple(menu), Judge(task.kind, task.variance, task.own)
    subject = Subject(task.network, layers, task.data["calibration"], judge, task.batch, task.seed, task.rounder)
    figures = weight_figures(subject, precisions)
    possible = np.stack([figure.possible for figure in figures])
    errors = np.stack([figure.errors for figure in figures])
    passes: Column = {}
    tables: dict[str, NDArray[np.float64]] = {"weight_error": errors}
    measured = [name for name in ("loss", "divergence") if name in signals]
    if measured:
        alone = _measure_alone(
            possible, menu, len(task.blocks("calibration")), measure, task.metric, retained="loss" in signals
        )
        possible = alone.possible
        tables.update({name: alone.losses if name == "loss" else alone.divergences for name in measured})
        passes.update(dict.fromkeys(measured, 0.0))
        passes[measured[0]] = float(alone.passes)
    sensitivities = [0.0] * len(layers)
    ranges = Ranges(subject)
    if "gradient_sensitivity" in signals:
        with _gradients_for("gradient_sensitivity"), ranges:
            sensitivities, passes["gradient_sensitivity"] = gradient_sensitivities(subject), 3.0
    if "fisher" in signals:
        samples = FISHER_SAMPLES if fisher_samples is None else fisher_samples
        with _gradients_for("fisher"):
            tables["fisher"], passes["fisher"] = fisher_costs(subject, precisions, possible, samples, ranges)
    if "activation_range" in signals:
        passes["activation_range"] = 0.0 if ranges.complete else 1.0
        if not ranges.complete:
            with ranges:
                run_forward(subject)
    if "hessian" in signals:
        with _gradients_for("hessian"):
            tables["hessian"], passes["hessian"] = hessian_costs(subject, errors)
    macs = layer_macs(task.network, layers, task.data["calibration"])
    profiles = tuple(
        LayerProfile(
            **_facts(
                layer, {name: dict(zip(menu.names, table[i].tolist(), strict=True)) for name, table in tables.items()}
            ),
            position=i / max(len(layers) - 1, 1),
            weight_mean=figures[i].mean,
            weight_std=figures[i].std,
            weight_range=figures[i].range,
            activation_range=ranges.range_of(i) if "activation_range" in signals else 0.0,
            gradient_sensitivity=sensitivities[i],
            allowed=_allowed(menu, possible[i]),
            macs=macs[i],
        )
        for i, layer in enumerate(layers)
    )
    found = ModelProfile(task.name, profiles, _constant_bits(task.network, layers), passes, task.provenance)
    known = "fisher" in signals and task.metric.name in LOSS_PER_NAT
    return with_expected_loss(found, task.metric.name) if known else found


@contextlib.contextmanager
def _gradients_for(signal: str) -> Iterator[None]:
    """PyTorch's complaint about a gradient, as an error that names the signal.

    Raises:
        ProfileError: the network has no such gradient.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        message = str(error).partition("\n")[0]
        raise ProfileError(
            f"signal {signal!r} needs gradients, and the network has none: {message} Leave it out."
        ) from error


def _measure_alone(
    possible: NDArray[np.bool_], menu: Menu, blocks: int, measure: Measure, metric: Metric, *, retained: bool
) -> Alone:
    """Losses and divergences of one layer at one width at a time; each distinct allocation is measured once.

    Raises:
        CampaignError: the FP32 network could not be measured.
        ProfileError: losses are wanted (`retained`) and the FP32 network has no retention.
    """
    layers, widths = possible.shape
    reference = (REFERENCE,) * layers
    cells = [(i, j) for i in range(layers) for j in range(widths) if possible[i, j] and menu.names[j] != REFERENCE]
    allocations = [reference, *((*reference[:i], menu.names[j], *reference[i + 1 :]) for i, j in cells)]
    answers = measure([Request(row, "calibration", block) for row in allocations for block in range(blocks)])
    means = [_means(answers[i * blocks : (i + 1) * blocks]) for i in range(len(allocations))]
    base = means[0]
    if isinstance(base, Failed):
        raise CampaignError(f"the FP32 network could not be measured: {base.reason}: {base.message}")
    if retained:
        require_reference(metric, base[SCORE])
    losses, divergences, held = np.zeros(possible.shape), np.zeros(possible.shape), possible.copy()
    for (i, j), mean in zip(cells, means[1:], strict=True):
        if isinstance(mean, Failed):
            held[i, j] = False
            continue
        retention = metric.retention(mean[SCORE], base[SCORE])
        losses[i, j] = 1.0 if np.isnan(retention) else min(max(1.0 - retention, -1.0), 1.0)
        divergences[i, j] = mean[DIVERGENCE]
    losses[~held] = 1.0
    divergences[~held] = divergences.max()
    return Alone(losses, divergences, held, len(allocations))


def _means(outcomes: Sequence[Outcome | Failed]) -> tuple[float, float] | Failed:
    """Mean score and divergence over all blocks, or the first failure."""
    parts = []
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            return outcome
        parts.append(outcome)
    score, divergence = np.concatenate(parts).mean(axis=0, dtype=np.float64).tolist()
    return score, divergence


def _allowed(menu: Menu, possible: NDArray[np.bool_]) -> tuple[str, ...] | None:
    names = tuple(name for name, able in zip(menu.names, possible.tolist(), strict=True) if able)
    return None if len(names) == len(menu) else names


def _constant_bits(network: torch.nn.Module, layers: Sequence[Layer]) -> int:
    """32 bits for every parameter and float buffer that no width applies to.

    Counters of batches do not count, nor do buffers that are made anew with the network, as rotary embeddings' are.
    """
    sized = {layer.parameter for layer in layers}
    shared = {id(p) for name, p in network.named_parameters(remove_duplicate=False) if name in sized}
    rest = [p for p in network.parameters() if id(p) not in shared]
    kept = network.state_dict(keep_vars=True)
    buffers = [buffer for name, buffer in network.named_buffers() if name in kept]
    return 32 * sum(t.numel() for t in [*rest, *buffers] if t.is_floating_point())
