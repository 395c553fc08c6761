"""From parents to children on any genome space: crossover, mutation and immigrants, shared by the searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from evoquant.search.base import NO_PARENT, CandidateBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space


class Rates(Protocol):
    """What `children` reads of a search's settings."""

    @property
    def crossover_rate(self) -> float:
        """Share of children with two parents."""
        ...

    @property
    def mutation_rate(self) -> float:
        """Probability that a gene of a child changes."""
        ...

    @property
    def immigrant_rate(self) -> float:
        """Share of children that are drawn at random instead."""
        ...


def newcomers(
    space: Space, rng: np.random.Generator, n: int, *, first_id: int = 0, start: Sequence[Genome] = ()
) -> CandidateBatch:
    """n candidates without parents: the given ones, the rest random."""
    rows = [space.encode(genome) for genome in start]
    drawn = space.sample(rng, n - len(rows))
    genes = space.canonical(np.concatenate([np.array(rows).reshape(-1, drawn.shape[1]), drawn]))
    operators = ("start",) * len(rows) + ("random",) * len(drawn)
    return CandidateBatch(first_id, np.full((n, 2), NO_PARENT, dtype=np.int64), operators, genes=genes)


def children(
    space: Space,
    parents: NDArray[np.float64],
    ids: NDArray[np.int64],
    rng: np.random.Generator,
    rates: Rates,
    *,
    first_id: int = 0,
) -> CandidateBatch:
    """n children of two parents each, or of the first alone where there is no crossover.

    Args:
        space: of the genomes.
        parents: `(n, 2, genes)`.
        ids: `(n, 2)` ids of the parents.
        rng: where the draws come from.
        rates: probabilities of the operators.
        first_id: of the first child.
    """
    n = len(parents)
    random = space.sample(rng, n)
    # Genes without an effect are drawn afresh, so that a mutation that wakes one brings something new.
    first = np.where(space.dormant(parents[:, 0]), random, parents[:, 0])
    crossed = (rng.random(n) < rates.crossover_rate) & (ids[:, 0] != ids[:, 1])
    made = np.where(crossed[:, None], space.cross(first, parents[:, 1], rng), first)
    made = space.mutate(made, rates.mutation_rate, rng)
    immigrant = rng.random(n) < rates.immigrant_rate
    genes = space.canonical(np.where(immigrant[:, None], random, made))
    changed = (genes != np.where(crossed[:, None], genes, parents[:, 0])).any(axis=1)
    operators = tuple(_operator(bool(i), bool(c), bool(m)) for i, c, m in zip(immigrant, crossed, changed, strict=True))
    of = np.where(immigrant[:, None], NO_PARENT, ids)
    of[:, 1] = np.where(crossed, of[:, 1], NO_PARENT)
    return CandidateBatch(first_id, of, operators, genes=genes)


def _operator(immigrant: bool, crossed: bool, changed: bool) -> str:
    if immigrant:
        return "random"
    if crossed:
        return "crossover"
    return "mutation" if changed else "copy"
