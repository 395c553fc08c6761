"""What somebody who watches a campaign is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.campaign.build import Campaign
    from evoquant.search.base import CandidateBatch, EvaluationBatch


@dataclass(frozen=True)
class Progress:
    """What an observer hears after each generation.

    Attributes:
        generation: from 0; of `generations` at most.
        record: the journal line.
        replayed: whether it was journalled already.
        seconds: that it took.
        asked, distinct, passes, store_hits: totals up to and with this generation.
        since_improvement: generations without a better champion.
        campaign: as it stands, to be read only.
        batch, evaluations: this generation's; large ones are to be let go again.
    """

    generation: int
    generations: int
    record: Mapping[str, Any]
    replayed: bool
    seconds: float
    asked: int
    distinct: int
    passes: float
    store_hits: int
    since_improvement: int
    campaign: Campaign
    batch: CandidateBatch
    evaluations: EvaluationBatch


class Observer(Protocol):
    """Anyone who wants to hear how a campaign goes."""

    def generation(self, progress: Progress) -> None:
        """After each generation."""
        ...

    def message(self, text: str) -> None:
        """Something worth knowing: which executor was picked, where a resume goes on."""
        ...
