"""LayerProfile and ModelProfile: what a heuristic may know of a model, and its JSON form.

The JSON form is versioned and writable by hand; unknown keys are refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evoquant.errors import ProfileError, describe_validation
from evoquant.files import canonical_json, pretty_json, read_json

if TYPE_CHECKING:
    from pathlib import Path

    from evoquant.quantization.precision import Precision

SCHEMA = "evoquant.profile"
VERSION = 1

PerPrecision = Mapping[str, float]
PER_WIDTH = ("loss", "divergence", "fisher", "hessian", "weight_error", "expected_loss")
"""The signals of a layer that have a value per precision."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer.

    Attributes:
        name: unique in the model.
        type: Embedding, Conv, Linear, Attention, LayerNorm (any normalisation), Classifier (the last Linear), …
        shape: of the weight that a width applies to; its product is `parameters`.
        channel_axis: axis of the output channels, None where the tensor is one slice.
        position: relative position in the model, 0 (first) to 1 (last).
        weight_mean, weight_std, weight_range: of the weights; a range is max − min.
        activation_range: max − min of the layer's output over the calibration data.
        gradient_sensitivity: Σ|w · ∂L/∂w| per weight, divided by the largest layer's; in [0, 1].
        loss: precision name → loss of retention s when this layer alone is quantized, in [−1, 1].
        divergence: precision name → mean divergence from the FP32 outputs when this layer alone is quantized, in nats.
        fisher: precision name → Fisher cost, in nats: what `divergence` is to second order.
        hessian: precision name → ½ · mean curvature of the loss · squared quantization error, in nats.
        weight_error: precision name → summed squared quantization error of the weights.
        expected_loss: precision name → −ln(retention) to be expected from the Fisher cost and the kind of metric.
        allowed: precision names that the layer may take; None allows all.
        tie_group: layers of equal tie group must share a width.
        fan_in: inputs of one output value; derived from the shape where it is not given.
        groups: convolution groups.
        holders: modules that hold the weight; more than one where embeddings are tied.
        called: whether the module that holds the weight is what computes with it; nn.MultiheadAttention reads its own.
        macs: multiply-accumulates of one sample that read the weight: 0 where it is looked up; None where not known.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    position: float
    channel_axis: int | None = 0
    weight_mean: float = 0.0
    weight_std: float = 0.0
    weight_range: float = 0.0
    activation_range: float = 0.0
    gradient_sensitivity: float = 0.0
    loss: PerPrecision = field(default_factory=dict)
    divergence: PerPrecision = field(default_factory=dict)
    fisher: PerPrecision = field(default_factory=dict)
    hessian: PerPrecision = field(default_factory=dict)
    weight_error: PerPrecision = field(default_factory=dict)
    expected_loss: PerPrecision = field(default_factory=dict)
    allowed: tuple[str, ...] | None = None
    tie_group: str | None = None
    fan_in: int | None = None
    groups: int = 1
    holders: int = 1
    called: bool = True
    macs: int | None = None

    def __post_init__(self) -> None:
        for name in PER_WIDTH:
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def parameters(self) -> int:
        """Weights that a width applies to."""
        return math.prod(self.shape)

    def sqnr_db(self, precision: str) -> float | None:
        """Signal to quantization noise ratio 10 · log10(Σw² / weight error) in dB; None where it is not known.

        Infinite where there is no error.
        """
        power = self.parameters * (self.weight_std**2 + self.weight_mean**2)
        if precision not in self.weight_error or power <= 0:
            return None
        error = self.weight_error[precision]
        return 10 * math.log10(power / error) if error > 0 else math.inf

    def allows(self, precision: Precision) -> bool:
        """Whether the layer may take `precision`: by its list, and by its shape."""
        listed = self.allowed is None or precision.name in self.allowed
        return listed and precision.fits(self.shape, self.channel_axis)


@dataclass(frozen=True)
class ModelProfile:
    """A model: its layers in order of execution.

    Attributes:
        name: what reports call it.
        layers: at least one; names are unique.
        constant_bits: biases and whatever no width applies to, at their stored type.
        passes: signal → full passes over the calibration split that obtaining it took.
        provenance: plain data on where the figures come from.
    """

    name: str
    layers: tuple[LayerProfile, ...]
    constant_bits: int = 0
    passes: PerPrecision = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "passes", MappingProxyType(dict(self.passes)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        if not self.layers:
            raise ProfileError(f"profile {self.name!r}: a model has at least one layer.")
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise ProfileError(f"profile {self.name!r}: two layers are called {layer.name!r}; names are unique.")
            seen.add(layer.name)
        for layer in self.layers:
            if layer.tie_group in seen:
                raise ProfileError(
                    f"profile {self.name!r}: layer {layer.name!r}: the tie group {layer.tie_group!r} has the name of a "
                    f"layer; rename the group."
                )

    def __reduce__(self) -> tuple[Any, ...]:  # read-only mappings do not travel to workers by themselves
        return (_from_dict, (profile_to_dict(self), self.name))

    @property
    def parameters(self) -> int:
        """Weights of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON form without `macs`, so that older profiles, which say none, stay equal."""
        plain = profile_to_dict(self)
        for layer in plain["layers"]:
            layer.pop("macs", None)
        return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def profile_to_dict(profile: ModelProfile) -> dict[str, Any]:
    """The JSON form as plain data; what is not known, and what most layers have, is left out."""
    layers = []
    for layer in profile.layers:
        plain = {key: getattr(layer, key) for key in layer.__dataclass_fields__}
        plain["shape"] = list(layer.shape)
        for key in PER_WIDTH:
            plain[key] = dict(plain[key])
        if layer.allowed is not None:
            plain["allowed"] = list(layer.allowed)
        if layer.holders == 1:
            del plain["holders"]
        if layer.called:
            del plain["called"]
        layers.append({key: value for key, value in plain.items() if value is not None and value != {}})
        if layer.channel_axis is None:
            layers[-1]["channel_axis"] = None
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "name": profile.name,
        "constant_bits": profile.constant_bits,
        "passes": dict(profile.passes),
        "provenance": dict(profile.provenance),
        "layers": layers,
    }


def profile_to_json(profile: ModelProfile) -> str:
    """The JSON form as text."""
    return pretty_json(profile_to_dict(profile))


def load_profile(path: Path) -> ModelProfile:
    """Read a profile's JSON file.

    Raises:
        ProfileError: the file cannot be read, or is no valid profile; the message names file, layer and key.
    """
    return _from_dict(read_json(path, error=ProfileError), str(path))


def _from_dict(data: Any, source: str) -> ModelProfile:
    from pydantic import ValidationError

    from evoquant.profiles.schema import ProfileSchema

    try:
        checked = ProfileSchema.model_validate(data)
    except ValidationError as error:
        keys = {*ProfileSchema.model_fields, *LayerProfile.__dataclass_fields__}
        raise ProfileError(describe_validation(error, source, keys, data)) from None
    layers = tuple(
        LayerProfile(**{key: getattr(layer, key) for key in LayerProfile.__dataclass_fields__})
        for layer in checked.layers
    )
    try:
        return ModelProfile(checked.name, layers, checked.constant_bits, checked.passes, checked.provenance)
    except ProfileError as error:
        raise ProfileError(f"{source}: {error}") from None


def profile_from_dict(data: Any, source: str = "profile") -> ModelProfile:
    """A profile from its JSON form as plain data.

    Raises:
        ProfileError: not a valid profile; the message begins with `source`.
    """
    return _from_dict(data, source)
