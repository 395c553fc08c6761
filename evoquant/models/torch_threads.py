"""How PyTorch has to run so that the same numbers come out, to the last bit."""

from __future__ import annotations

import contextlib
import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.models.networks import require_torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One PyTorch thread, deterministic algorithms and no fused attention within; the caller's settings after.

    The order of float sums, and so the last bit of a result, depends on the number of threads; fused encoder layers
    call none of their modules, so that hooks would change the result.
    """
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fused = torch.backends.mha.get_fastpath_enabled()
    memory: Any = torch.utils.deterministic  # of a class that type checkers do not see
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.backends.mha.set_fastpath_enabled(False)
    memory.fill_uninitialized_memory = False  # a tenth of the time, and nothing reads what it fills
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.mha.set_fastpath_enabled(fused)
        memory.fill_uninitialized_memory = filled


def numeric_environment(batch: int) -> str:
    """What may change the last bit of a forward pass in batches of `batch`: versions, CPU features, threads.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("measuring a network")
    import torch

    return (
        f"torch {torch.__version__}; {torch.backends.cpu.get_cpu_capability()}; {platform.machine()}; threads 1; "
        f"batch {batch}; numpy {np.__version__}"
    )


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()
