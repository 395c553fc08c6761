"""The certified optimum of the separable problem: the best allocation, a proven upper bound, and the gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bounds.choices import Choices, choices_of, scores_at, scores_of
from evoquant.bounds.envelope import Envelope, envelope_of
from evoquant.bounds.limits import contradiction, least_within, one_cost, rows_of
from evoquant.bounds.programme import Incumbent, best_of, improve
from evoquant.bounds.relaxation import Level, limits_of, upper_bound
from evoquant.bounds.ties import settle
from evoquant.errors import InfeasibleError, InputError
from evoquant.scoring.limits import WithinLimits
from evoquant.scoring.protocol import SeesCosts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem

BEAM = 256
BEAM_WORK = 2**17
STATES = 2**18
WORK = 2**24
TIES = 1_000
ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Bound:
    """The optimum of one separable problem, or the best allocation known and how far it may be from it.

    Attributes:
        fitness: of the allocation.
        upper_bound: no allocation has more; equal to `fitness` where `exact`.
        allocation: `(units,)` int8 menu indices, read-only: of equally fit ones the cheapest, then the one of smallest
            digest (sha256 of the canonical JSON of the precision names, unit by unit).
        cost: its total, the constant part included, in the cost table's unit.
        loss: its total, in units of 2^−40.
        retention: as estimated, not clipped.
        compression, effective_bits: as the objective saw them.
        exact: whether the optimum is proven.
        method: how, in a few words.
        ties: how many allocations of this fitness and cost were found, this one included.
        ties_complete: whether these are all there are; else those of least loss were preferred, or, where the optimum
            was not proven by the dynamic programme, there was no choice among equals at all.
    """

    fitness: float
    upper_bound: float
    allocation: NDArray[np.int8]
    cost: int
    loss: int
    retention: float
    compression: float
    effective_bits: float
    exact: bool
    method: str
    ties: int
    ties_complete: bool

    @property
    def gap(self) -> float:
        """(upper bound − fitness) / the larger of their magnitudes; 0 where exact."""
        distance = self.upper_bound - self.fitness
        return distance / max(abs(self.upper_bound), abs(self.fitness)) if distance > 0 else 0.0


def certify(
    problem: Problem,
    objective: Objective,
    *,
    pins: Mapping[str, str] | None = None,
    states: int = STATES,
    work: int = WORK,
    ties: int = TIES,
) -> Bound:
    """The best fitness that any allocation of the problem has, with proof.

    A Lagrangian bound and its vertices first, then an exact dynamic programme over whatever may still be better. Where
    that needs more than `states` states at once or `work` in all, the best allocation found and the Lagrangian bound.

    Under limits on several costs a mixed-integer programme instead; see `evoquant.bounds.limits`.

    Args:
        problem: with losses for every width of its menu.
        objective: never worse with more retention at equal cost, nor with less cost at equal retention.
        pins: layer or unit name → precision name.
        states: the most states of the dynamic programme after one unit; 0 leaves it out.
        work: the most states in all.
        ties: the most equally good allocations that are compared by digest.

    Raises:
        InputError: the profile lacks losses, a pin cannot be kept, or the objective is seen not to be monotone.
        InfeasibleError: no allocation keeps the objective's limits; the message says which contradict.
    """
    if isinstance(objective, WithinLimits):
        return _within(problem, objective, pins, states=states, work=work, ties=ties)
    if isinstance(objective, SeesCosts):
        raise InputError(f"{objective!r} sees several costs; bounds are certified for evoquant's own limits alone.")
    return _best_of_two(problem, objective, pins, states=states, work=work, ties=ties)


def _within(problem: Problem, objective: WithinLimits, pins: Mapping[str, str] | None, **effort: int) -> Bound:
    """The optimum under limits: by the dynamic programme where one cost says all, else by a mixed-integer programme.

    Raises:
        InfeasibleError: no allocation keeps the limits.
    """
    choices = choices_of(problem, pins)
    single = one_cost(problem, objective)
    if single is not None:
        bound = _best_of_two(single[0], single[1], pins, **effort)
        if bound.fitness > 0:
            return bound
        raise InfeasibleError(contradiction(choices, rows_of(choices, objective)))
    found = least_within(choices, objective)
    scores = scores_at(problem, objective, found.allocation[None])
    allocation = found.allocation.copy()
    allocation.setflags(write=False)
    limits = 1 + len(objective.at_most)
    return Bound(
        fitness=float(scores.fitness[0]),
        upper_bound=float(problem.cost.reference) / float(min(found.least, found.cost)),
        allocation=allocation,
        cost=found.cost,
        loss=found.loss,
        retention=float(scores.retention[0, 0]),
        compression=float(scores.compression[0, 0]),
        effective_bits=float(scores.effective_bits[0, 0]),
        exact=found.least >= found.cost,
        method=f"mixed-integer programme under {limits} limits" + ("" if found.complete else ", cut off"),
        ties=1,
        ties_complete=False,
    )


def _best_of_two(
    problem: Problem, objective: Objective, pins: Mapping[str, str] | None, *, states: int, work: int, ties: int
) -> Bound:
    """The optimum where an objective sees retention and one cost."""
    choices = choices_of(problem, pins)
    envelope = envelope_of(choices, choices.useful)
    best = _best_vertex(choices, objective, envelope)
    proven, method = False, "Lagrangian bound"
    if len(envelope.unit) == 0:
        proven, method = True, "only one choice is worth taking"
    elif states:
        best, proven, core = _close(choices, objective, envelope, best, states, work)
        if proven:
            method = (
                f"dynamic programme over {core} of {len(problem.units)} units" if core else "bounds leave no choice"
            )
    bound = best.fitness if proven else upper_bound(envelope, _level(choices, objective, best))
    count, complete = 1, False
    if proven:  # only then is it known to be the cheapest of its fitness
        best, count, complete = settle(choices, objective, envelope, best, ties)
    scores = scores_of(problem, objective, np.array([best.cost]), np.array([best.loss]))
    allocation = best.allocation.copy()
    allocation.setflags(write=False)
    return Bound(
        fitness=best.fitness,
        upper_bound=bound,
        allocation=allocation,
        cost=best.cost,
        loss=best.loss,
        retention=float(scores.retention[0, 0]),
        compression=float(scores.compression[0, 0]),
        effective_bits=float(scores.effective_bits[0, 0]),
        exact=bound <= best.fitness,
        method=method,
        ties=count,
        ties_complete=complete,
    )


def _level(choices: Choices, objective: Objective, best: Incumbent) -> Level:
    return Level(choices.problem, objective, best.fitness, best.cost)


def _best_vertex(choices: Choices, objective: Objective, envelope: Envelope) -> Incumbent:
    fitness = scores_of(choices.problem, objective, envelope.cost, envelope.loss).fitness
    if np.isnan(fitness).any():
        raise InputError(f"{objective!r} gives NaN to an allocation; bounds need an objective that is always a number.")
    top = best_of(fitness, envelope.cost, envelope.loss)
    return Incumbent(float(fitness[top]), int(envelope.cost[top]), int(envelope.loss[top]), envelope.vertex(top))


def _close(
    choices: Choices, objective: Objective, envelope: Envelope, best: Incumbent, states: int, work: int
) -> tuple[Incumbent, bool, int]:
    """The incumbent improved, whether it is proven to be the best, and how many units still had a choice."""
    useful = choices.useful
    limits = limits_of(choices, envelope, useful, _level(choices, objective, best))
    for _ in range(ROUNDS):
        best, complete = improve(choices, objective, envelope, limits, best, states=min(BEAM, states), work=BEAM_WORK)
        core = int((limits.survivors.sum(axis=1) > 1).sum())
        if complete:
            return best, True, core
        fewer = limits.survivors
        if fewer.sum() < useful.sum():
            envelope = envelope_of(choices, fewer)
        useful = fewer
        limits = limits_of(choices, envelope, useful, _level(choices, objective, best))
        if limits.survivors.sum() > 0.9 * useful.sum():
            break
    best, complete = improve(choices, objective, envelope, limits, best, states=states, work=work)
    return best, complete, int((limits.survivors.sum(axis=1) > 1).sum())
