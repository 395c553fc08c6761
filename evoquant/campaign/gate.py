"""The gate: the comparison that an allocation of a real network passes before it is exported.

On data that nobody has chosen by, by the campaign's objective, with a paired bootstrap over samples: champion, rivals
and FP32 network are resampled together, and beaten is whoever's 95% interval of the difference in fitness excludes 0.
There are 32 blind draws, so theirs are 95% of all of them together (Bonferroni): one of so many is soon ahead by luck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.finals import size_figures
from evoquant.campaign.finals_measured import measured_figures
from evoquant.campaign.gate_file import CHAMPION_NAME, SCHEMA
from evoquant.campaign.gate_rivals import BLIND, DRAWS, SIMPLEST_FIRST, Contender, rivals_of
from evoquant.campaign.measure import measure_allocations
from evoquant.campaign.measurer import reference_outcomes
from evoquant.errors import CampaignError
from evoquant.models.base import REFERENCE, SCORE, Failed, Split
from evoquant.rng import generator_for
from evoquant.scoring.chance import resampled
from evoquant.scoring.objective import amounts_of, fitness_of
from evoquant.scoring.separable import all_cost_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.finals_measured import Judge
    from evoquant.models.base import Outcome
    from evoquant.scoring.objective import Amounts, Scores
    from evoquant.scoring.problem import Problem

VERSION = 1
LEVEL = 0.95
BLIND_LEVEL = 1.0 - (1.0 - LEVEL) / (len(BLIND) * DRAWS)  # of each, so that of all blind draws together it is LEVEL
RESAMPLES = 10_000
SPLIT: Split = "gate"
PROMISED: tuple[Split, ...] = ("gate", "test")


def run_gate(judge: Judge, champion: NDArray[np.int8], kind: str) -> dict[str, Any]:
    """What gate.json holds: the champion beside its rivals, warnings, and the allocation that is recommended.

    Args:
        judge: measures, by the campaign's objective.
        champion: `(units,)` menu indices.
        kind: of the champion's genome; decides which of equals is the simpler.

    Raises:
        CampaignError: the champion cannot be measured on the gate's data.
    """
    rivals, left_out = rivals_of(judge.problem, judge.objective, champion, judge.seed)
    contenders = [Contender(CHAMPION_NAME, kind if kind in SIMPLEST_FIRST else "direct", champion), *rivals]
    allocations = np.stack([one.allocation for one in contenders])
    scores, retentions, outcomes = measure_allocations(
        allocations, judge.problem, judge.measurer, SPLIT, judge.objective
    )
    if isinstance(outcomes[0], Failed):
        raise CampaignError(f"the champion cannot be measured on the gate's data: {outcomes[0].message}")
    if np.isnan(retentions[0].value):
        raise CampaignError("the champion has no retention on the gate's data, so nothing can be compared there.")
    kept = [row for row in range(len(contenders)) if not np.isnan(retentions[row].value)]  # a failed one has none
    costs = amounts_of((judge.problem,), all_cost_sums(judge.problem, allocations)[:, None])
    difference = _differences(judge, scores, costs, [outcomes[row] for row in kept], kept)
    rows = []
    for place, row in enumerate(kept):
        low, high = difference(0, place, BLIND_LEVEL if contenders[row].kind in BLIND else LEVEL)
        rows.append(
            {
                "name": contenders[row].name,
                "kind": contenders[row].kind,
                "fitness": float(scores.fitness[row]),
                "retention": retentions[row].value,
                "standard_error": retentions[row].standard_error,
                "compression": float(scores.compression[row, 0]),
                "effective_bits": _bits(
                    judge.problem, contenders[row].allocation, float(scores.effective_bits[row, 0])
                ),
                "difference": float(scores.fitness[0] - scores.fitness[row]),
                "interval": [low, high],
                "verdict": "ahead" if low > 0 else "behind" if high < 0 else "tie",
            }
        )
    chosen = recommended([contenders[row] for row in kept], scores.fitness[kept], difference)
    best = kept[chosen]
    gate: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "split": SPLIT,
        "level": LEVEL,
        "blind_level": BLIND_LEVEL,
        "samples": int(retentions[0].samples),
        "champion": {key: value for key, value in rows[0].items() if key not in ("difference", "interval", "verdict")},
        "rivals": rows[1:],
        "left_out": left_out,
        "failed": [contenders[row].name for row in range(len(contenders)) if row not in kept],
        "recommended": {
            "name": contenders[best].name,
            "kind": contenders[best].kind,
            "allocation": dict(
                zip(judge.problem.layers, judge.problem.unfold(contenders[best].allocation), strict=True)
            ),
            "units": dict(
                zip(
                    judge.problem.units, (judge.problem.menu.names[w] for w in contenders[best].allocation), strict=True
                )
            ),
        },
        "passes": len({judge.problem.unfold(row) for row in allocations} | {(REFERENCE,) * len(judge.problem.layers)}),
    }
    if best:  # whoever exports it promises this; of the champion it is known
        gate["recommended"]["scores"] = {
            split: measured_figures(judge, contenders[best].allocation, split) for split in PROMISED
        }
    return {**gate, "warnings": warnings_of(gate)}


def _bits(problem: Problem, allocation: NDArray[np.int8], counted: float) -> float:
    """Bits per weight, also where something else is counted."""
    return float(size_figures([allocation], (problem,)).get("effective_bits", counted))


def _differences(
    judge: Judge, scores: Scores, costs: Amounts, outcomes: Sequence[Outcome | Failed], rows: Sequence[int]
) -> Callable[[int, int, float], tuple[float, float]]:
    """A function that gives the interval, at a level, of one contender's fitness minus another's, by their places."""
    reference = reference_outcomes(judge.measurer, SPLIT)[:, SCORE].astype(np.float64)
    columns = [outcome[:, SCORE] for outcome in outcomes if not isinstance(outcome, Failed)]
    table = np.stack(columns, axis=1).astype(np.float64)
    drawn = resampled(table, reference, generator_for(judge.seed, 0, "gate bootstrap"), RESAMPLES)

    def fitness(place: int, retention: NDArray[np.float64]) -> NDArray[np.float64]:
        row = rows[place]
        compression = np.full(len(retention), scores.compression[row, 0])
        bits = np.full(len(retention), scores.effective_bits[row, 0])
        seen = {name: np.full(len(retention), amounts[row, 0]) for name, amounts in costs.items()}
        return fitness_of(judge.objective, np.clip(retention, 0.0, 1.0), compression, bits, seen)

    def difference(first: int, second: int, level: float) -> tuple[float, float]:
        if first == second:
            return 0.0, 0.0
        one, other = drawn.pair(first, second, judge.measurer.task.metric)
        known = ~(np.isnan(one) | np.isnan(other))
        apart = fitness(first, one[known]) - fitness(second, other[known])
        tail = (1.0 - level) / 2.0
        low, high = np.quantile(apart, [tail, 1.0 - tail]) if len(apart) else (0.0, 0.0)
        return float(low), float(high)

    return difference


def recommended(
    contenders: Sequence[Contender],
    fitness: NDArray[np.float64],
    difference: Callable[[int, int, float], tuple[float, float]],
) -> int:
    """The contender to deploy: the champion, which comes first, or of those that beat it the fittest.

    Of all that are tied with it the simplest is taken instead, and of equally simple ones the fittest. Allocations
    that were drawn blindly take no part.
    """
    worth = np.where(np.isnan(fitness), -np.inf, fitness)
    able = [i for i, one in enumerate(contenders) if one.kind not in BLIND]
    better = [i for i in able if difference(0, i, LEVEL)[1] < 0]
    anchor = max(better, key=lambda i: worth[i], default=0)
    tied = []
    for i in able:
        low, high = difference(anchor, i, LEVEL)
        if low <= 0 <= high:
            tied.append(i)
    return min(tied, key=lambda i: (SIMPLEST_FIRST.index(contenders[i].kind), -worth[i], i))


def warnings_of(gate: dict[str, Any]) -> list[str]:
    """What a user has to know before deploying."""
    found = []
    blind = [row["name"] for row in gate["rivals"] if row["kind"] in BLIND and row["verdict"] == "behind"]
    if blind:
        found.append(
            f"THE SEARCH LEARNED NOTHING: allocations drawn blindly beat the champion on the gate's data "
            f"({', '.join(blind)})."
        )
    better = [row["name"] for row in gate["rivals"] if row["kind"] not in BLIND and row["verdict"] == "behind"]
    if better:
        found.append(f"the champion is beaten on the gate's data by {', '.join(better)}; use that instead.")
    elif gate["recommended"]["name"] != CHAMPION_NAME:
        found.append(
            f"the champion is not distinguishable from {gate['recommended']['name']}, which is simpler and recommended."
        )
    return found
