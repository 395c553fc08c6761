"""What exports of transformers' networks share: a layer's module, the network's state, folders that appear whole.

Imports PyTorch; itself it is imported where a network is exported.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from evoquant.errors import InputError
from evoquant.files import sync_folder, umask
from evoquant.models.hf import require_transformers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedModel

    from evoquant.models.deployable import Deployable

Holder: TypeAlias = nn.Linear | nn.Embedding | nn.Conv2d
_HOLDERS = (nn.Linear, nn.Embedding, nn.Conv2d)


def pretrained(ready: Deployable, target: str) -> PreTrainedModel:
    """The network that is exported, one of transformers.

    Raises:
        InputError: it is another.
        MissingExtraError: transformers is not installed.
    """
    require_transformers(f"an export to {target}")
    network: Any = ready.network(target)
    if not is_pretrained(network):
        raise InputError(
            f"{target} takes networks of transformers, and this is a {type(network).__name__}; choose onnx, openvino "
            f"or torchao."
        )
    found: PreTrainedModel = network
    return found


def is_pretrained(network: nn.Module) -> bool:
    """Whether a network is one of transformers, which has been loaded then."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(network, transformers.PreTrainedModel)


def linear(network: nn.Module, layer: str, target: str) -> Holder:
    """The module whose `weight` is a layer: a Linear, an Embedding or a Conv2d, called for what it computes.

    Args:
        network: all of it.
        layer: its name.
        target: for the message.

    Raises:
        InputError: it is none of these, or another module reads its weight past it.
    """
    module = _submodule(network, layer)
    parent = _submodule(network, layer.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        raise InputError(
            f"layer {layer!r}: nn.MultiheadAttention reads its weights past the module, so {target} cannot hold them; "
            f"choose FP32, or write the attention with nn.Linear."
        )
    if not isinstance(module, _HOLDERS):
        kind = "no module" if module is None else f"a {type(module).__name__}"
        raise InputError(f"layer {layer!r} is {kind}; {target} holds nn.Linear and nn.Embedding; choose FP32.")
    return module


def _submodule(network: nn.Module, name: str) -> nn.Module | None:
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None


def named_tensors(network: nn.Module) -> list[tuple[torch.Tensor, list[str]]]:
    """Each tensor of a network's state with all its names, in order."""
    found: dict[int, tuple[torch.Tensor, list[str]]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (tensor, []))[1].append(name)
    return list(found.values())


def network_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Name → tensor of the network's state, contiguous and without gradients; a shared one once, by its first name.

    What only shares memory with another, as a view of a buffer does, is copied: files hold no views.
    """
    storages: set[int] = set()
    found = {}
    for tensor, names in named_tensors(network):
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in storages and storage.nbytes() == tensor.nbytes
        storages.add(storage.data_ptr())
        found[names[0]] = tensor.detach().contiguous() if alone else tensor.detach().clone().contiguous()
    return found


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end; where anything goes wrong, nothing is left.

    Raises:
        InputError: `path` is there and is no empty folder, or it cannot be written.
    """
    made: Path | None = None
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path}: is there already; name a new folder, or remove it first.")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        made.chmod(0o777 & ~umask())
        yield made
        for file in made.rglob("*"):  # libraries write some for their owner alone
            file.chmod((0o777 if file.is_dir() else 0o666) & ~umask())
        os.replace(made, path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from None
    finally:
        if made is not None and made.exists():
            shutil.rmtree(made, ignore_errors=True)
