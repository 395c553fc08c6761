"""A network's state in torchao's tensors as a safetensors file: written, read into a network, measured.

The parts of a tensor lie in the file as torchao's own support for safetensors names them, and the metadata says which
tensor they make; nothing in it is code. Needs PyTorch and torchao alone.
"""

from __future__ import annotations

import json
import logging
import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evoquant.errors import InputError, MissingExtraError
from evoquant.export.hf import named_tensors
from evoquant.files import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
_CODES = "I8"
_LENGTH_BYTES = 8  # of the number at the start of a safetensors file, and what its header is a multiple of


def require_torchao(what: str) -> None:
    """Check that torchao is installed, and load it without its warnings of CUDA libraries; `what` needs it.

    Raises:
        MissingExtraError: it is not.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import torchao.prototype.safetensors.safetensors_support
    except ImportError:
        raise MissingExtraError(what, "torchao", "torchao") from None
    finally:
        logging.disable(before)
    del torchao


def serialized(state: dict[str, torch.Tensor]) -> bytes:
    """A safetensors file; tensors that no module has a name for stand in it plain, since torchao cannot read such."""
    import safetensors.torch
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    parts, metadata = flatten_tensor_state_dict({name: tensor for name, tensor in state.items() if "." in name})
    plain = {name: tensor for name, tensor in state.items() if "." not in name}
    return _in_order(safetensors.torch.save({**parts, **plain}, metadata))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its header in the order of names: as written, it is another each time."""
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = canonical_json(json.loads(content[_LENGTH_BYTES:start])).encode("utf-8")
    header += b" " * (-len(header) % _LENGTH_BYTES)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + content[start:]


def load_torchao(network: nn.Module, path: Path) -> nn.Module:
    """Put the state of a file into a network, which is changed and returned: in eval mode, without gradients.

    Args:
        network: of the exported one's architecture; weights that were tied there are tied here.
        path: of the .safetensors file.

    Raises:
        InputError: no such file, a damaged one, or one of another network.
        MissingExtraError: torchao is not installed.
    """
    state = _read(path)
    found: dict[str, torch.Tensor] = {}
    for tensor, names in named_tensors(network):
        name = next((name for name in names if name in state), None)
        if name is None:
            raise InputError(f"{path}: holds no {names[0]!r}; make the network as it was exported, tied weights tied.")
        value = state.pop(name)
        if value.shape != tensor.shape:
            raise InputError(
                f"{path}: {name} is {tuple(value.shape)}, the network has {tuple(tensor.shape)}; make the network as "
                f"it was exported."
            )
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=False)
        found.update(dict.fromkeys(names, value))  # one parameter under all its names, so that it stays one
    if state:
        raise InputError(f"{path}: the network has no {min(state)!r}; make the network as it was exported.")
    network.eval().requires_grad_(False)
    network.load_state_dict(found, assign=True)
    return network


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Name → tensor.

    Raises:
        InputError: no such file, or a damaged one.
    """
    require_torchao("a network in torchao's tensors")
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    parts, metadata = {}, {}
    with _opened(path) as file:
        try:
            metadata = dict(file.metadata() or {})
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole, rest = unflatten_tensor_state_dict(parts, metadata)
        except Exception as error:  # whatever the library makes of strange metadata
            raise _unreadable(path, error) from None
    if cut := sorted(name for name in rest if "." in name):
        raise InputError(f"{path}: the tensor that {cut[0]} is a part of is not whole; export it anew.")
    return {**whole, **rest}


def _opened(path: Path) -> Any:
    """A safetensors file.

    Raises:
        InputError: there is none.
    """
    import safetensors

    if not path.is_file():
        raise InputError(f"{path}: does not exist.")
    try:
        return safetensors.safe_open(path, framework="pt")
    except Exception as error:  # the library's own classes
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: no torchao state, or a damaged one ({type(error).__name__}: {error}); export it anew.")


def stored_bytes(path: Path) -> int:
    """Bytes of all floats, codes, scales and zero points in a file; counters and indices are not among them.

    Raises:
        InputError: no such file, or a damaged one.
    """
    total = 0
    with _opened(path) as file:
        try:
            metadata = dict(file.metadata() or {})
            names = json.loads(metadata.get("tensor_names", "[]"))
            quantized = {name: json.loads(metadata[name]).get("_tensor_data_names", ()) for name in names}
            parts = set(chain.from_iterable(_part_names(name, ends) for name, ends in quantized.items()))
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                size = 1 if name in parts and tensor.get_dtype() == _CODES else _BYTES.get(tensor.get_dtype(), 0)
                total += size * math.prod(tensor.get_shape())
        except Exception as error:  # the library's own classes, and strange metadata
            raise _unreadable(path, error) from None
    return total


def _part_names(name: str, ends: list[str]) -> list[str]:
    """How torchao names the parts of a tensor in a file."""
    module, _, parameter = name.rpartition(".")
    return [f"{module}._{parameter}_{end}" for end in ends]
