"""The same network in another process: from plain data, never from somebody's code that the user has not named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError
from evoquant.models.hf import require_transformers
from evoquant.models.networks import build_network
from evoquant.models.torch_factory import load_factory

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from evoquant.models.torch_task import TorchTask


def recreation(task: TorchTask) -> dict[str, Any]:
    """Plain data from which `recreate` makes a network of the task's architecture.

    Raises:
        InputError: there is none: a live network of somebody's own without a factory.
    """
    if task.architecture is not None:
        return {"architecture": task.architecture}
    if task.factory is not None:
        return {"factory": task.factory, "seed": task.seed}
    config: Any = getattr(task.network, "config", None)
    if hasattr(config, "to_dict") and type(task.network).__module__.startswith("transformers."):
        return {"transformers": type(task.network).__name__, "config": config.to_dict()}
    raise InputError(
        f"{task.name}: the network lives in this process alone; give it a factory `module:function`, so that a fresh "
        f"one can make it, too."
    )


def recreate(data: Mapping[str, Any]) -> torch.nn.Module:
    """The network of `recreation`, in eval mode; its weights mean nothing until a state is loaded over them.

    A network of somebody's own is made by its factory, which the user has named.

    Raises:
        InputError: it cannot be made.
        MissingExtraError: a package that it needs is not installed.
    """
    if "architecture" in data:
        return build_network(data["architecture"])
    if "factory" in data:
        return load_factory(data["factory"], data["seed"]).network
    require_transformers("the network")
    import transformers

    kind = getattr(transformers, data["transformers"])
    network: torch.nn.Module = kind(kind.config_class.from_dict(dict(data["config"])))
    return network.eval().requires_grad_(False)
