"""Digests of code: a network or a metric whose file was edited is another one, though name and weights are the same.

What is stored under a digest would else be taken for the outcome of the new code.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_VERSIONED = ("torch", "evoquant")  # what these compute is told by their versions


def code_digest(objects: Iterable[Any]) -> str:
    """sha256 over the names of functions or classes and the files that define them; without a file, by name alone."""
    found = set()
    for one in objects:
        try:
            file = inspect.getsourcefile(one)
            source = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
        except (TypeError, OSError):  # built in, an instance, or typed in
            source = ""
        found.add(f"{getattr(one, '__qualname__', type(one).__qualname__)} {source}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


def structure_of(network: torch.nn.Module) -> str:
    """What PyTorch prints of a network, and `code_digest` of its modules' classes but for PyTorch's and ours."""
    classes = {type(module) for module in network.modules()}
    foreign = [one for one in classes if one.__module__.partition(".")[0] not in _VERSIONED]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(network)) + (code_digest(foreign) if foreign else "")
