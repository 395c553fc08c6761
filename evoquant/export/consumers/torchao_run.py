"""PyTorch with torchao's tensors in a fresh process, one thread: the network made anew, the file's state in it."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from evoquant.export.consumers import Loaded, serve
from evoquant.export.consumers.torch_network import runner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def load(path: Path, job: Mapping[str, Any], _: Path) -> Loaded:
    """The network with the file's state; facts are how many parameters are of each of torchao's tensors."""
    from evoquant.export.torchao_file import load_torchao, require_torchao
    from evoquant.models.recreate import recreate

    require_torchao("running a torchao state")
    from torchao.utils import TorchAOBaseTensor

    network = load_torchao(recreate(job["network"]), path)
    kinds = Counter(type(p).__name__ for p in network.parameters() if isinstance(p, TorchAOBaseTensor))
    return Loaded(runner(network), {"tensors": dict(sorted(kinds.items()))})


def main(arguments: Sequence[str]) -> int:
    """Do a job; the exit code."""
    from importlib.metadata import version

    return serve(arguments, version("torchao"), load)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
