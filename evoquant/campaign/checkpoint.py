"""The checkpoint: an atomic snapshot that only speeds up resume; the journal is the truth."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.campaign.storage import CHECKPOINT
from evoquant.errors import InputError
from evoquant.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evoquant.campaign.storage import RunDir

VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """State after a whole number of generations, tied to the journal's first lines by a digest."""

    generations: int
    search: dict[str, Any]
    estimator: dict[str, Any]
    hall: list[dict[str, Any]]
    since_improvement: int


class JournalDigest:
    """sha256 over the journal's lines so far, grown a line at a time."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, line: str) -> None:
        """One more line."""
        self._hash.update(line.encode() + b"\n")

    def value(self) -> str:
        """Hex digest up to here."""
        return self._hash.copy().hexdigest()


def save_checkpoint(run: RunDir, config_hash: str, journal_digest: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically."""
    run.put(
        CHECKPOINT,
        canonical_json(
            {
                "version": VERSION,
                "config_hash": config_hash,
                "journal_digest": journal_digest,
                "generations": checkpoint.generations,
                "search": checkpoint.search,
                "estimator": checkpoint.estimator,
                "hall": checkpoint.hall,
                "since_improvement": checkpoint.since_improvement,
            }
        ),
    )


def load_checkpoint(run: RunDir, config_hash: str, lines: Sequence[str]) -> Checkpoint | None:
    """The checkpoint, or None where there is none, or it is damaged, or does not belong to this journal."""
    if not run.has(CHECKPOINT):
        return None
    try:
        data = run.read(CHECKPOINT)
        if data["version"] != VERSION or data["config_hash"] != config_hash:
            return None
        generations = data["generations"]
        if not isinstance(generations, int) or not 0 < generations <= len(lines):
            return None
        digest = JournalDigest()
        for line in lines[:generations]:
            digest.add(line)
        if digest.value() != data["journal_digest"]:
            return None
        return Checkpoint(generations, data["search"], data["estimator"], data["hall"], int(data["since_improvement"]))
    except (InputError, KeyError, TypeError, ValueError):
        return None
