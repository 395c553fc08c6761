"""One allocation in a race: the outcomes that it has so far, what they say, and what came of it in the end."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.models.base import DIVERGENCE
from evoquant.scoring.statistics import UNKNOWN, Retention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.campaign.evaluate import KnownFailure
    from evoquant.campaign.measurer import Widths
    from evoquant.campaign.racing import Size
    from evoquant.models.base import Outcome


@dataclass(frozen=True)
class Result:
    """What came of a race.

    Attributes:
        status, reason: as of the runner.
        blocks: how many were asked for.
        retention, standard_error, divergence: from the outcomes; NaN where it failed.
        record: plain data, for the journal.
    """

    status: str
    reason: str | None
    blocks: int
    retention: Retention
    standard_error: float
    divergence: float
    record: Mapping[str, Any]


@dataclass
class Runner:
    """One allocation in a race.

    Attributes:
        digest, widths, size: of the allocation.
        known: as a journal has it, where it is known to fail.
        outcomes: of the blocks that it was measured on.
        blocks: how many blocks were asked for.
        retention, estimate: retention and fitness from these.
        status: `ok`, `failed` or `censored`; None while it runs.
        reason: why it is not ok.
    """

    digest: str
    widths: Widths
    size: Size
    known: KnownFailure | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    blocks: int = 0
    retention: Retention = UNKNOWN
    estimate: float = -math.inf
    status: str | None = None
    reason: str | None = None

    def stop(self, status: str, reason: str | None = None) -> None:
        """End the race."""
        self.status, self.reason = status, reason

    @property
    def samples(self) -> Outcome:
        """`(samples, 2)` of all blocks so far."""
        return np.concatenate(self.outcomes) if self.outcomes else np.empty((0, 2), dtype=np.float32)

    @property
    def divergence(self) -> float:
        """Mean from the FP32 outputs, in nats; NaN without outcomes."""
        return float(self.samples[:, DIVERGENCE].mean(dtype=np.float64)) if self.outcomes else math.nan

    def result(self, standard_error: float) -> Result:
        """What came of it, with the standard error of its retention."""
        record: dict[str, Any] = {"status": self.status, "blocks": list(range(self.blocks))}
        if self.reason is not None:
            record["reason"] = self.reason
        if self.outcomes:
            record |= {
                "retention": _plain(self.retention.value),
                "standard_error": _plain(self.retention.standard_error),
                "divergence": _plain(self.divergence),
                "samples": self.retention.samples,
                "outcomes": hashlib.sha256(self.samples.tobytes()).hexdigest()[:32],
            }
        return Result(
            str(self.status), self.reason, self.blocks, self.retention, standard_error, self.divergence, record
        )


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
