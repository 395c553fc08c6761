"""What one worker takes of its node, and how many of such a cluster's nodes can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDING = 1e-9
SHOWN_NODES = 8


@dataclass(frozen=True)
class Need:
    """Resources of one worker, in the sense of Ray: no more workers on a node than fit, and no limit on what they take.

    A worker computes in one thread whatever its CPUs: what more threads would sum in another order is another result.

    Attributes:
        cpus: or a part of one.
        gpus: or a part of one, which others share.
        memory_bytes: 0 for whatever there is.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """For `ray.remote`."""
        whole = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory_bytes}
        return {key: value for key, value in whole.items() if value or key == "num_cpus"}

    def copies(self, resources: Mapping[str, float]) -> int:
        """How many of such workers fit into these resources of one node, by Ray's names: CPU, GPU, memory."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes)}
        fit = [int(resources.get(name, 0.0) / want + ROUNDING) for name, want in wanted.items() if want]
        return min(fit, default=0)

    def __str__(self) -> str:
        """Such as `2 CPUs, 0.5 GPUs and 4 GB of memory`."""
        parts = [_counted(self.cpus, "CPU")]
        parts += [_counted(self.gpus, "GPU")] if self.gpus else []
        parts += [f"{_size(self.memory_bytes)} of memory"] if self.memory_bytes else []
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def told(nodes: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """What nodes have in all, for a message: `a: 2 CPUs, 0 GPUs, 3.1 GB`."""
    shown = [
        f"{name}: {_counted(has.get('CPU', 0.0), 'CPU')}, {_counted(has.get('GPU', 0.0), 'GPU')}, "
        f"{_size(has.get('memory', 0.0))}"
        for name, has in nodes[:SHOWN_NODES]
    ]
    more = len(nodes) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _counted(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def _size(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
