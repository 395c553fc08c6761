"""Replay: a fixed list of candidates, generation by generation, through the same loop as any search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.search.base import NO_PARENT, CandidateBatch, EvaluationBatch, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.genomes.base import Genome


@dataclass(frozen=True)
class ReplayEntry:
    """One candidate: its label, its genome, and the index of the model it is judged on."""

    label: str
    genome: Genome
    model: int


class Replay:
    """Asks for the given generations in turn, then is done."""

    def __init__(self, generations: Sequence[Sequence[ReplayEntry]]) -> None:
        self._generations = tuple(tuple(entries) for entries in generations)
        self._generation = 0
        self._turn = Turn()

    def ask(self) -> CandidateBatch:
        """The next generation's candidates."""
        entries = self._generations[self._generation]
        self._turn.asked(len(entries))
        first = sum(len(earlier) for earlier in self._generations[: self._generation])
        return CandidateBatch(
            first,
            np.full((len(entries), 2), NO_PARENT, dtype=np.int64),
            ("replay",) * len(entries),
            genomes=tuple(entry.genome for entry in entries),
            labels=tuple(entry.label for entry in entries),
            on=np.array([entry.model for entry in entries], dtype=np.intp),
        )

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Go on to the next generation."""
        self._turn.told(len(evaluations))
        self._generation += 1

    def done(self) -> bool:
        """Whether the list is at its end."""
        return self._generation == len(self._generations)

    def state(self) -> dict[str, Any]:
        """The generation."""
        self._turn.settled()
        return {"generation": self._generation}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._generation = int(state["generation"])
