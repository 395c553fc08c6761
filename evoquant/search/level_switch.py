"""Level switches: a (1 + λ) evolution of one model's allocation that trades width between layers of like size.

Sieberling, Kuznedelev, Kurtic & Alistarh, EvoPress: towards optimal dynamic model compression via evolutionary
search, arXiv:2410.14649, 2024. There the size is fixed and every move is a switch; here compression is part of the
fitness, so that some moves are single steps, and the search starts from the uniform allocations and random ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.genomes.base import digest_of
from evoquant.genomes.direct import DirectSpace
from evoquant.rng import generator_for
from evoquant.search.base import NO_PARENT, OK, CandidateBatch, EvaluationBatch, best_first
from evoquant.search.generational import Generational
from evoquant.search.variation import newcomers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space


@dataclass(frozen=True)
class LevelSwitchSettings:
    """Settings of `LevelSwitchSearch`.

    Attributes:
        offspring: of the one parent, in a generation.
        initial: candidates of the first generation: the menu's uniform allocations, the rest random.
        moves: the most moves of an offspring; the smaller of two draws from 1 to this, as EvoPress has it.
        step_rate: probability that a move is a single step, one unit one level up or down, and no switch.
    """

    offspring: int = 32
    initial: int = 32
    moves: int = 3
    step_rate: float = 0.3


class LevelSwitchSearch(Generational):
    """See the module's docstring."""

    space: DirectSpace

    def __init__(
        self, space: Space, *, seed: int, settings: LevelSwitchSettings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        if not isinstance(space, DirectSpace):
            raise InputError(
                f"search.kind: level_switch moves single units' widths, which {space.kind} genomes do not have; "
                f"use genome.kind: direct."
            )
        super().__init__(space, seed, start)
        self._settings = settings or LevelSwitchSettings()
        self._parent: dict[str, Any] | None = None

    def _propose(self) -> CandidateBatch:
        """The start, uniform and random allocations first, then offspring of the parent."""
        if self._parent is None:
            return self._first()
        n = self._settings.offspring
        rng = generator_for(self._seed, self._generation, "switches")
        parent = np.array(self._parent["genes"], dtype=np.float64)
        genes, stepped = offspring(self.space, np.tile(parent, (n, 1)), self._settings, rng)
        ids = np.tile(np.array([self._parent["id"], NO_PARENT], dtype=np.int64), (n, 1))
        operators = tuple("step" if step else "switch" for step in stepped.tolist())
        return CandidateBatch(self._next_id, ids, operators, genes=self.space.canonical(genes))

    def _learn(self, first_id: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        """The best of parent and offspring in the one order of genomes is the next parent."""
        (ok,) = np.nonzero((evaluations.status == OK) & ~np.isnan(evaluations.fitness))
        family = [] if self._parent is None else [self._parent]
        family += [
            {
                "id": first_id + row,
                "genes": genes[row].tolist(),
                "fitness": float(evaluations.fitness[row]),
                "parts": int(evaluations.parts[row]),
                "cost": int(evaluations.cost[row]),
            }
            for row in ok.tolist()
        ]
        if family:
            self._parent = family[self._best(family)]

    def state(self) -> dict[str, Any]:
        """The parent and counters."""
        return self._counters() | {"parent": self._parent}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._restore_counters(state)
        self._parent = None if state["parent"] is None else dict(state["parent"])

    def _first(self) -> CandidateBatch:
        menu = self.space.problem.menu
        units = len(self.space.genes)
        uniform = self.space.canonical(np.tile(np.arange(len(menu), dtype=np.float64)[:, None], (1, units)))
        start = [*self._start, *(self.space.decode(row) for row in uniform)]
        n = max(self._settings.initial, len(start))
        rng = generator_for(self._seed, self._generation, "sample")
        return newcomers(self.space, rng, n, first_id=self._next_id, start=start)

    def _best(self, family: Sequence[Mapping[str, Any]]) -> int:
        return int(
            best_first(
                np.array([one["fitness"] for one in family], dtype=np.float64),
                np.array([one["parts"] for one in family], dtype=np.int64),
                np.array([one["cost"] for one in family], dtype=np.int64),
                lambda row: digest_of(self.space.decode(np.array(family[row]["genes"], dtype=np.float64))),
                1,
            )[0]
        )


def offspring(
    space: DirectSpace, genes: NDArray[np.float64], settings: LevelSwitchSettings, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """`(n, units)` allocations after 1 to `moves` moves each, and `(n,)` whether any of them was a single step.

    A switch takes one unit one level up and one of like size one level down.
    """
    result = genes.copy()
    n = len(result)
    rows = np.arange(n)
    moves = rng.integers(1, settings.moves + 1, (2, n)).min(axis=0)
    stepped = np.zeros(n, dtype=bool)
    for move in range(settings.moves):
        wider, narrower = space.levels(result, up=True), space.levels(result, up=False)
        can_rise, can_fall = wider != result, narrower != result
        step = rng.random(n) < settings.step_rate
        rises = ~step | (rng.random(n) < 0.5)
        up = _one_of(can_rise, rng)
        can_fall[rows, up] &= step  # a switch is between two units
        down = np.where(step, _one_of(can_fall, rng), space.like_sized(up, can_fall, rng))
        falls = ~rises | ~step
        active = move < moves
        possible = (can_rise[rows, up] | ~rises) & (can_fall[rows, down] | ~falls)
        for moving, unit, to in ((rises, up, wider), (falls, down, narrower)):
            chosen = rows[active & possible & moving]
            result[chosen, unit[chosen]] = to[chosen, unit[chosen]]
        stepped |= active & step
    return result, stepped


def _one_of(eligible: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """`(n,)` one eligible column of each row, by lot; any where none is."""
    return np.asarray((rng.random(eligible.shape) * eligible).argmax(axis=1), dtype=np.intp)
