"""What searches share: batches and protocol under one name, digests that are remembered, ask and tell in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import SearchError
from evoquant.genomes.base import digest_of
from evoquant.search.batch import (
    CENSORED,
    EQUALS,
    FAILED,
    FEW,
    LARGE,
    NO_PARENT,
    OK,
    STATUS,
    CandidateBatch,
    EvaluationBatch,
    OperatorColumn,
    best_first,
)
from evoquant.search.protocol import Archiving, Search, Snapshotting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Space

__all__ = [
    "CENSORED",
    "EQUALS",
    "FAILED",
    "FEW",
    "LARGE",
    "NO_PARENT",
    "OK",
    "REMEMBERED",
    "STATUS",
    "Archiving",
    "CandidateBatch",
    "DigestMemo",
    "EvaluationBatch",
    "OperatorColumn",
    "Search",
    "Snapshotting",
    "Turn",
    "best_first",
]

REMEMBERED = 50_000  # digests kept by a `DigestMemo`


class DigestMemo:
    """Digests of the genomes of rows, of which equal ones come again and again."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._known: dict[bytes, str] = {}

    def __call__(self, row: NDArray[np.float64]) -> str:
        """The digest of the genome of one `(genes,)` row."""
        key = row.tobytes()
        digest = self._known.get(key)
        if digest is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            digest = self._known[key] = digest_of(self._space.decode(row))
        return digest


class Turn:
    """Keeps ask and tell in order; searches own one."""

    def __init__(self) -> None:
        self._asked: int | None = None

    def ready(self) -> None:
        """Check that the next may be asked for, before anything is drawn for them.

        Raises:
            SearchError: the last ones have not been told.
        """
        if self._asked is not None:
            raise SearchError(f"ask() was called twice: tell the {self._asked} evaluations of the last batch first.")

    def asked(self, count: int) -> None:
        """Note that `count` candidates were asked for.

        Raises:
            SearchError: the last ones have not been told.
        """
        self.ready()
        self._asked = count

    def told(self, count: int) -> None:
        """Note that `count` evaluations came back.

        Raises:
            SearchError: nothing was asked, or the number differs.
        """
        if self._asked is None:
            raise SearchError("tell() was called before ask(): there is no batch to tell about.")
        if count != self._asked:
            raise SearchError(f"tell() takes {self._asked} evaluations, one for each candidate asked; got {count}.")
        self._asked = None

    def settled(self) -> None:
        """Check that no batch is open.

        Raises:
            SearchError: one is.
        """
        if self._asked is not None:
            raise SearchError(f"a batch of {self._asked} is open: tell its evaluations before saving the state.")
