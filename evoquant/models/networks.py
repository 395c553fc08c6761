"""Networks described as plain data, so that a worker can rebuild one without loading anybody's code."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, MissingExtraError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from evoquant.models.arrays import Arrays


def require_torch(what: str) -> None:
    """Check that PyTorch is installed; `what` names who needs it.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError(what, "torch", "torch") from None


def build_network(architecture: Mapping[str, Any], weights: Arrays | None = None) -> torch.nn.Module:
    """The network of an architecture, in eval mode; without `weights` its parameters hold no meaningful values.

    Args:
        architecture: `kind` (a key of `NETWORKS`) and that kind's sizes.
        weights: every entry of the network's state, by name; the arrays are copied.

    Raises:
        InputError: no such kind.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("building a network")
    import torch

    kind = architecture["kind"]
    if kind not in NETWORKS:
        raise InputError(f"unknown kind of network {kind!r}.{suggestion(str(kind), NETWORKS)}")
    with torch.device("meta"):  # PyTorch's own initial values would draw from its global generator
        network = NETWORKS[kind](architecture)
    network.to_empty(device="cpu")
    if weights is not None:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return network.eval()


def _small_cnn(architecture: Mapping[str, Any]) -> torch.nn.Module:
    """3×3 convolutions with batch normalisation, pooled by 2 after every second one, then two linear layers.

    Sizes: `inputs` channels of `side` × `side` pixels, `channels` of each convolution, `hidden`, `classes`.
    """
    from torch import nn

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    before, side = architecture["inputs"], architecture["side"]
    for number, channels in enumerate(architecture["channels"], start=1):
        parts[f"conv{number}"] = nn.Conv2d(before, channels, 3, padding=1, bias=False)
        parts[f"norm{number}"] = nn.BatchNorm2d(channels)
        parts[f"relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            parts[f"pool{number}"] = nn.MaxPool2d(2)
            side //= 2
        before = channels
    parts["flatten"] = nn.Flatten()
    parts["hidden"] = nn.Linear(before * side * side, architecture["hidden"])
    parts["relu_hidden"] = nn.ReLU()
    parts["classifier"] = nn.Linear(architecture["hidden"], architecture["classes"])
    return nn.Sequential(parts)


def _other(name: str) -> Callable[[Mapping[str, Any]], torch.nn.Module]:
    def build(architecture: Mapping[str, Any]) -> torch.nn.Module:
        from evoquant.models import architectures

        network: torch.nn.Module = getattr(architectures, name)(architecture)
        return network

    return build


NETWORKS: dict[str, Callable[[Mapping[str, Any]], torch.nn.Module]] = {
    "small_cnn": _small_cnn,
    "cnn": _other("cnn"),
    "vision_transformer": _other("VisionTransformer"),
    "language_model": _other("LanguageModel"),
    "mlp": _other("mlp"),
}
