"""Racing: a candidate is measured block by block, and stops when more samples would hardly change what becomes of it.

After each stage one-sided confidence limits of its retention, paired with the FP32 network on the same samples, are
compared with the objective's floor and with the best candidate so far (Maron & Moore, Hoeffding races, NIPS 1993). A
candidate is looked at several times, so each look takes its share of the error (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evoquant.scoring.objective import FeasibleFirst, WithinLimits, fitness_of, retention_floor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.scoring.chance import Limits
    from evoquant.scoring.objective import Objective

FEWEST = 64  # samples before the first look

BELOW_FLOOR, BEHIND, OUT_OF_PASSES = "below_floor", "behind", "out_of_passes"
"""Reasons of censored candidates."""

SAFE = "safe"
"""Verdict on a candidate whose fitness is as good as known, because its retention is above the floor."""


@dataclass(frozen=True)
class Racing:
    """Settings.

    Attributes:
        confidence: that a stopped candidate is one to stop, all looks at it together.
        behind: whether to stop what cannot become the best; not for searches that collect a front.
    """

    confidence: float = 0.99
    behind: bool = True


@dataclass(frozen=True)
class Size:
    """What one candidate costs.

    Attributes:
        compression, bits: all-FP32 cost / cost, and effective bits per weight.
        costs: name → amount, where the objective sees several; see `evoquant.scoring.objective.amounts_of`.
    """

    compression: float
    bits: float
    costs: Mapping[str, float] = field(default_factory=dict)


def stages(blocks: Sequence[int], *, racing: bool = True) -> tuple[int, ...]:
    """How many blocks have been measured after each stage: 1, 2, 4, … and all; `blocks` holds their samples.

    The first look waits for `FEWEST` samples; without `racing` there is one stage.
    """
    found: list[int] = []
    count = 1
    while racing and 2 * count < len(blocks):
        if sum(blocks[:count]) >= FEWEST:
            found.append(count)
        count *= 2
    return (*found, len(blocks))


def verdict(racing: Racing, objective: Objective, limits: Limits, size: Size, best: float) -> str | None:
    """What becomes of a candidate after a look: a reason to stop, `SAFE`, or None to go on.

    Assumes, as bounds do, that an objective never prefers less retention at equal size.

    Args:
        racing: the settings.
        objective: the campaign's.
        limits: of the candidate's retention.
        size: of the candidate.
        best: a lower limit of the fitness of the best candidate measured in full, −∞ while there is none.
    """
    floor = retention_floor(objective)
    if np.isnan(limits.high):
        return None
    if floor is not None and limits.high < floor:
        return BELOW_FLOOR
    if racing.behind and fitness_at(objective, limits.high, size) < best:
        return BEHIND
    if floor is not None and isinstance(objective, (FeasibleFirst, WithinLimits)) and limits.low >= floor:
        return SAFE
    return None


def fitness_at(objective: Objective, retention: float, size: Size) -> float:
    """The fitness of one candidate at a retention."""
    kept, compression, bits = (
        np.array([value]) for value in (min(max(retention, 0.0), 1.0), size.compression, size.bits)
    )
    costs = {name: np.array([cost]) for name, cost in size.costs.items()}
    return float(fitness_of(objective, kept, compression, bits, costs)[0])
