"""Every figure of speed that `evoquant bench` prints, by topic."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.bench.contest import ROUNDS
from evoquant.campaign.environment import environment_record
from evoquant.errors import InputError, MissingExtraError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evoquant.bench.contest import Measure

TOPICS = ("rules", "trees", "engine", "networks", "cluster", "start")


def measured(
    topics: Sequence[str] = (), rounds: int = ROUNDS, left_out: Callable[[str], None] | None = None
) -> Iterator[tuple[str, list[Measure]]]:
    """Topic after topic with its figures.

    Args:
        topics: by default all.
        rounds: of each contest.
        left_out: is told of a topic that cannot be measured without an extra; by default that is an error.

    Raises:
        InputError: a topic that there is not.
        MissingExtraError: an extra is not installed.
    """
    for topic in topics:
        if topic not in TOPICS:
            raise InputError(f"there is no topic {topic!r} to measure.{suggestion(topic, TOPICS)}")
    for topic in topics or TOPICS:
        try:
            yield topic, _measures()[topic](rounds)
        except MissingExtraError as error:
            if left_out is None:
                raise
            left_out(f"{topic} left out: {error}")


def _measures() -> dict[str, Callable[[int], list[Measure]]]:
    from evoquant.bench import (
        speed_cluster,
        speed_engine,
        speed_networks,
        speed_rules,
        speed_start,
        speed_trees,
    )

    return {
        "rules": speed_rules.measure,
        "trees": speed_trees.measure,
        "engine": speed_engine.measure,
        "networks": speed_networks.measure,
        "cluster": speed_cluster.measure,
        "start": speed_start.measure,
    }


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
