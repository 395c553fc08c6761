"""A PyTorch network as consumers run it: in one thread, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evoquant.export.consumers import Feeds
from evoquant.models.torch_data import call_on_tensors

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


def runner(network: torch.nn.Module) -> Callable[[Feeds], list[NDArray[np.generic]]]:
    """Input name → array, to the one output that counts."""
    import torch

    torch.set_num_threads(1)
    network.eval()

    def run(feeds: Feeds) -> list[NDArray[np.generic]]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array.copy()) for name, array in feeds.items()}
            output: Any = call_on_tensors(network, tensors)
            return [output.float().numpy().copy()]

    return run
