"""What searches that go generation by generation share: turns, ids that count on, and the counters of their state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.search.base import CandidateBatch, EvaluationBatch, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space


class Generational:
    """A search is its `_propose` and its `_learn`; this keeps the order of the two, and counts."""

    def __init__(self, space: Space, seed: int, start: Sequence[Genome]) -> None:
        self.space = space
        self._seed = seed
        self._start = tuple(start)
        self._generation = 0
        self._next_id = 0
        self._turn = Turn()
        self._open: CandidateBatch | None = None

    def ask(self) -> CandidateBatch:
        """The next generation's candidates.

        Raises:
            SearchError: the last ones have not been told yet.
        """
        batch = self._propose()
        self._turn.asked(len(batch))
        self._open = batch
        return batch

    def tell(self, evaluations: EvaluationBatch) -> None:
        """The evaluations of the candidates asked for, row for row.

        Raises:
            SearchError: nothing was asked, or the number differs.
        """
        self._turn.told(len(evaluations))
        batch = self._open
        assert batch is not None and batch.genes is not None
        self._learn(batch.first_id, batch.genes, evaluations)
        self._next_id = batch.first_id + len(batch)
        self._generation += 1
        self._open = None

    def done(self) -> bool:
        """Never: the campaign decides."""
        return False

    def _propose(self) -> CandidateBatch:
        """The candidates, with ids from `_next_id`."""
        raise TypeError(f"{type(self).__name__} has to say what it proposes")

    def _learn(self, first_id: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """Take in the `(n, genes)` candidates, the first of which has `first_id`, with their evaluations."""
        raise TypeError(f"{type(self).__name__} has to say what it learns")

    def _beginning(self) -> tuple[Genome, ...]:
        """The start genomes, in the first generation; after one that failed whole only random ones follow."""
        return self._start if self._generation == 0 else ()

    def _counters(self) -> dict[str, Any]:
        """The part of the state that every search has.

        Raises:
            SearchError: a batch is open.
        """
        self._turn.settled()
        return {"generation": self._generation, "next_id": self._next_id}

    def _restore_counters(self, state: Mapping[str, Any]) -> None:
        self._generation = int(state["generation"])
        self._next_id = int(state["next_id"])

    def _rows(self, saved: Any) -> NDArray[np.float64]:
        """`(n, genes)` rows of a saved state."""
        return np.array(saved, dtype=np.float64).reshape(-1, len(self.space.genes))
