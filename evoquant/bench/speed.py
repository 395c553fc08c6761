"""Every figure of speed that `evoquant bench` prints: a literal table from topic to what measures it."""

from __future__ import annotations

import importlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.bench.contest import ROUNDS
from evoquant.campaign.environment import environment_record
from evoquant.errors import InputError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evoquant.bench.contest import Measure

# topic → the module whose `measure(rounds)` gives its figures; imported when it is its turn
TOPICS = {
    "rules": "speed_rules",
    "trees": "speed_trees",
    "engine": "speed_engine",
    "networks": "speed_networks",
    "cluster": "speed_cluster",
    "start": "speed_start",
}


def measured(topics: Sequence[str] = (), rounds: int = ROUNDS) -> Iterator[tuple[str, list[Measure]]]:
    """Topic after topic with its figures.

    Raises:
        InputError: a topic that there is not.
    """
    for topic in topics:
        if topic not in TOPICS:
            raise InputError(f"there is no topic {topic!r} to measure.{suggestion(topic, TOPICS)}")
    for topic in topics or TOPICS:
        measure: Callable[[int], list[Measure]] = importlib.import_module(f"evoquant.bench.{TOPICS[topic]}").measure
        yield topic, measure(rounds)


def machine() -> dict[str, Any]:
    """The machine and the versions, as plain data."""
    return environment_record(cpu=_cpu_name())


def _cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
