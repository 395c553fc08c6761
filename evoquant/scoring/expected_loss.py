"""What a nat of divergence costs in retention, by the kind of metric: Fisher costs made comparable between tasks.

A Fisher cost says how far the outputs move, in nats; a rule that compares it with bits has to know what that does to
the metric. Nothing here needs a pass of a quantized network.

- perplexity: −ln(retention) is the rise of the negative log likelihood, which for a network that has learnt its data
  is the divergence itself.
- r2: the divergence is half the squared change of the outputs over the variance of the targets, which adds twice that
  to the unexplained share where the change has nothing to do with the residual; then −ln(retention) ≈ 2 · D / R².
- accuracy: for a calibrated classifier whose logits get equal Gaussian noise, an answer flips near margin 0, where it
  is worth p₁ − p₂. Loss and divergence both grow as the noise's variance, so that their ratio stays: 0.42 to 0.46 for
  divergences of 0.0002 to 0.025 with the outputs of two FP32 networks on Fashion-MNIST. It falls with accuracy (0.59
  at 66%, 0.50 at 89% for made-up Gaussian logits), so this is a rough figure.
- cosine: the divergence is 1 − cosine.

Agreement with the FP32 outputs is not here: its loss grows as the root of the divergence.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING

from evoquant.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.profiles.model import ModelProfile

LOSS_PER_NAT: Mapping[str, float] = MappingProxyType({"perplexity": 1.0, "r2": 2.0, "accuracy": 0.45, "cosine": 1.0})
"""Metric name → −ln(retention) for each nat; R² is taken as 1."""


def with_expected_loss(profile: ModelProfile, metric: str) -> ModelProfile:
    """The profile with `expected_loss` on every layer: the Fisher cost times what a nat costs in this metric.

    Raises:
        ProfileError: nothing is known of the metric, or a layer has no Fisher costs.
    """
    if metric not in LOSS_PER_NAT:
        raise ProfileError(f"expected_loss: nothing is known of {metric!r}; it is for {', '.join(LOSS_PER_NAT)}.")
    layers = []
    for layer in profile.layers:
        if not layer.fisher:
            raise ProfileError(
                f"profile {profile.name!r}: layer {layer.name!r} has no Fisher costs, which expected_loss is made of; "
                f"profile the network with the signal fisher."
            )
        losses = {name: LOSS_PER_NAT[metric] * cost for name, cost in layer.fisher.items()}
        layers.append(dataclasses.replace(layer, expected_loss=losses))
    return dataclasses.replace(profile, layers=tuple(layers))
