"""One search on a frozen table, with a budget of measured allocations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evoquant.bench.table import OBJECTIVE
from evoquant.campaign.evaluate import as_evaluations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from evoquant.bench.table import Table
    from evoquant.genomes.direct import DirectSpace
    from evoquant.scoring.objective import Objective
    from evoquant.search.base import CandidateBatch, EvaluationBatch

IDLE = 200  # turns in which nothing new is asked for, after which a search is taken to be at its end
NONE = -1


class AskTell(Protocol):
    """What a search has to have to be judged; those of evoquant do."""

    def ask(self) -> CandidateBatch:
        """The next candidates, as genes of the direct space."""
        ...

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Their evaluations, row for row."""
        ...

    def done(self) -> bool:
        """Whether there is nothing more to ask."""
        ...


@dataclass(frozen=True, eq=False)
class Trajectory:
    """How the best so far grew.

    Attributes:
        best: `(evaluations,)` calibration fitness of the best after each evaluation; 0 before there is one.
        rows: `(evaluations,)` its row in the table; −1 before there is one.
        spent: evaluations used, signals included; fewer than there were where the search came to its end.
    """

    best: NDArray[np.float64]
    rows: NDArray[np.int64]
    spent: int


def signal_evaluations(table: Table, signals: Iterable[str]) -> int:
    """Evaluations that signals count for: their full passes over the calibration split, rounded up.

    Loss and divergence come from the same measurements, which the profile books under one of them.
    """
    wanted = set(signals)
    if wanted & {"loss", "divergence"}:
        wanted |= {"loss", "divergence"}
    return math.ceil(math.fsum(table.profile.passes.get(name, 0.0) for name in sorted(wanted)))


def run_on_table(
    search: AskTell,
    space: DirectSpace,
    table: Table,
    evaluations: int,
    *,
    objective: Objective = OBJECTIVE,
    spent: int = 0,
) -> Trajectory:
    """Ask and tell until `evaluations` distinct allocations have been measured, exactly.

    An allocation that was measured before costs nothing. Evaluations carry divergences, as those of a measured campaign
    do, and a standard error of 0: what the table says is the truth that is looked for.

    Args:
        search: any that asks for genes of `space`.
        space: over the table's problem.
        table: what answers.
        evaluations: the budget.
        objective: what to maximise.
        spent: evaluations that went into signals before the search began.
    """
    seen: set[int] = set()
    best, rows = np.zeros(evaluations), np.full(evaluations, NONE, dtype=np.int64)
    top, top_row, idle = -math.inf, NONE, 0
    while spent < evaluations and idle < IDLE and not search.done():
        batch = search.ask()
        assert batch.genes is not None
        asked = table.rows(space.allocate(batch.genes, table.problem))
        scores = table.score(asked, "calibration", objective)
        before = spent
        for row, fitness in zip(asked.tolist(), scores.fitness.tolist(), strict=True):
            if row in seen or spent == evaluations:
                continue
            seen.add(row)
            if fitness > top:
                top, top_row = fitness, row
            best[spent], rows[spent] = top, top_row
            spent += 1
        idle = 0 if spent > before else idle + 1
        search.tell(
            as_evaluations(
                batch,
                scores,
                space,
                {},
                standard_error=np.zeros(len(asked)),
                divergence=table.divergence[asked].astype(np.float64),
            )
        )
    if top_row != NONE:
        best[spent:], rows[spent:] = top, top_row
    return Trajectory(best, rows, spent)
