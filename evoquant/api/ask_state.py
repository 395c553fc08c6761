"""The state of a search in somebody's own loop as plain data: what it holds, and how it is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, other_version
from evoquant.files import canonical_json

if TYPE_CHECKING:
    from evoquant.genomes.base import Genome
    from evoquant.search.base import CandidateBatch

VERSION = 1


@dataclass(frozen=True, eq=False)
class Found:
    """A candidate that was told.

    Attributes:
        id: counted over the whole search.
        genome: the candidate.
        fitness: as told, or as the objective makes it.
        told: what was told of it.
        parts, cost, digest: by which the better of equals is known.
        row: of the space, where the genome has one.
    """

    id: int
    genome: Genome
    fitness: float
    told: dict[str, Any]
    parts: int
    cost: int
    digest: str
    row: tuple[float, ...] | None = field(default=None, repr=False)

    @property
    def order(self) -> tuple[float, int, int, str]:
        """Best first."""
        return (-self.fitness, self.parts, self.cost, self.digest)


def best_data(best: Found) -> dict[str, Any]:
    """The best as plain data."""
    data = {name: getattr(best, name) for name in ("id", "fitness", "told", "parts", "cost", "digest", "row")}
    return {**plain(data), "genome": best.genome.to_dict()}


def checked(state: Any, made_of: str, source: str) -> Mapping[str, Any]:
    """What a state holds.

    Raises:
        InputError: it is none, damaged, or of a search that was made otherwise.
    """
    keys = {"version", "made_of", "evaluations", "search", "open", "best", "sha256"}
    if not isinstance(state, Mapping) or "version" not in state:
        raise InputError(f"{source}: is no state of a search; give what `state` or `save` made.")
    if state["version"] != VERSION:
        raise InputError(f"{source}: version: {other_version(state['version'], VERSION)}")
    body = {key: state[key] for key in ("evaluations", "search", "open", "best") if key in state}
    try:
        whole = set(state) == keys and sha256(body) == state["sha256"]
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{source}: the state was changed or damaged since it was saved; take an earlier one.")
    if state["made_of"] != made_of:
        raise InputError(
            f"{source}: is the state of a search with another space, seed, objective or option; make this one alike."
        )
    return body


def sha256(body: Mapping[str, Any]) -> str:
    """Of plain data."""
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def digest(batch: CandidateBatch) -> str:
    """Of the candidates and how they came to be."""
    rows = [genome.to_dict() for genome in batch.genomes] if batch.genes is None else batch.genes.tolist()
    return sha256({"first_id": batch.first_id, "rows": rows, "parents": batch.parents.tolist()})


def plain(value: Any) -> Any:
    """Arrays and tuples as lists."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
