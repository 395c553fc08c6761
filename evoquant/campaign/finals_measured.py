"""After a search on a real network: the finalists on selection data, the champion on the gate's half and on test."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.additivity import additivity_of
from evoquant.campaign.champion import Champion
from evoquant.campaign.finals import figures, origin, size_figures
from evoquant.campaign.limit_figures import limit_figures
from evoquant.campaign.measure import MeasuredEstimator, measure_allocations
from evoquant.campaign.measurer import reference_outcomes
from evoquant.errors import CampaignError
from evoquant.models.base import DIVERGENCE, SCORE, Failed
from evoquant.rng import generator_for
from evoquant.scoring.chance import share_at_least, with_doubt
from evoquant.scoring.objective import retention_floor, score
from evoquant.scoring.separable import all_cost_sums
from evoquant.scoring.statistics import bootstrap, interval, paired_retention
from evoquant.search.base import best_first

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.build import Campaign
    from evoquant.campaign.measurer import Measurer
    from evoquant.genomes.base import Genome
    from evoquant.models.base import Outcome, Split
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem

INTERVAL_LEVEL = 0.95
FEW_SLICES = 5  # the worst are listed
APART = 2.0  # standard errors between two splits that call for a warning
EVEN_CHANCE = 0.5
REPORTED: tuple[Split, ...] = ("calibration", "selection", "gate", "test")


@dataclass(frozen=True, eq=False)
class Judge:
    """Who measures allocations of one network, by which objective.

    Attributes:
        measurer: answers requests.
        problem: the network's.
        objective: the campaign's.
        seed: of resampling.
    """

    measurer: Measurer
    problem: Problem
    objective: Objective
    seed: int


def judge_of(campaign: Campaign) -> Judge:
    """The judge of a campaign on a real network."""
    assert campaign.measurer is not None
    (problem,) = campaign.problems["calibration"]
    return Judge(campaign.measurer, problem, campaign.objective, campaign.config.seed)


def measured_champion(
    campaign: Campaign, records: Sequence[dict[str, Any]], genomes: Sequence[Genome], provenance: Mapping[str, Any]
) -> Champion:
    """Measure the finalists once on the selection split, choose, and measure the champion where nobody has looked.

    Raises:
        CampaignError: none of the finalists could be measured.
    """
    judge = judge_of(campaign)
    allocations = np.stack([genome.allocate(judge.problem) for genome in genomes])
    best = choose(judge, allocations, records)
    scores: dict[str, dict[str, Any]] = {split: measured_figures(judge, allocations[best], split) for split in REPORTED}
    distinct = {judge.problem.unfold(row) for row in allocations}
    passes: dict[str, float] = {"selection": len(distinct) + 1, "gate": 2, "test": 2}
    assert isinstance(campaign.estimator, MeasuredEstimator)
    again = sum(campaign.estimator.uncounted(widths) for widths in sorted(distinct))
    if again:
        passes = {"calibration": again, **passes}
    more: dict[str, Any] = {"finalist_passes": passes}
    found = campaign.estimator.complete.values()
    if found:
        additive = additivity_of(judge.problem, np.stack([a for a, _ in found]), [retention for _, retention in found])
        more |= {} if additive is None else {"additivity": additive.to_dict()}
    if warnings := disagreements(scores):
        more["warnings"] = warnings
    return Champion(genomes[best], scores, {**provenance, **origin(records[best], len(records)), **more})


def choose(judge: Judge, allocations: NDArray[np.int8], records: Sequence[Mapping[str, Any]]) -> int:
    """The row of the finalist with the most fitness at its retention over calibration and selection data together.

    The search has looked at the calibration data many times, so there alone the luckiest is ahead; the selection data
    are fresh, but fewer. Taking the samples of both together weighs each split by what it knows: a mean weighted by
    inverse variance, since the variance of a sample is the same in both. Of equals, the order of all genomes.

    Args:
        judge: measures them on both.
        allocations: `(finalists, units)`.
        records: of the finalists, for the order of equals.

    Raises:
        CampaignError: none could be measured.
    """
    splits: tuple[Split, ...] = ("calibration", "selection")
    widths = [judge.problem.unfold(row) for row in allocations]
    measured = [judge.measurer.split(widths, split) for split in splits]
    fp32 = np.concatenate([reference_outcomes(judge.measurer, split) for split in splits])[:, SCORE]
    values = []
    for outcomes in zip(*measured, strict=True):
        kept = [outcome[:, SCORE] for outcome in outcomes if not isinstance(outcome, Failed)]
        whole = len(kept) == len(splits)
        metric = judge.measurer.task.metric
        values.append(paired_retention(np.concatenate(kept), fp32, metric).value if whole else math.nan)
    costs = all_cost_sums(judge.problem, allocations)
    scores = score(judge.objective, (judge.problem,), np.array(values)[:, None], costs[:, None])
    parts = np.array([record["parts"] for record in records], dtype=np.int64)
    best = int(best_first(scores.fitness, parts, scores.cost, lambda row: str(records[row]["digest"]))[0])
    if np.isnan(scores.fitness[best]):
        raise CampaignError("none of the finalists could be measured on the selection data.")
    return best


def measured_figures(judge: Judge, allocation: NDArray[np.int8], split: Split) -> dict[str, Any]:
    """Figures of one `(units,)` allocation on a split: retention with standard error and a 95% bootstrap interval.

    Where the objective has a floor also P(retention ≥ floor), and where the task has slices the worst of them.

    Raises:
        CampaignError: it cannot be measured.
    """
    task = judge.measurer.task
    scores, retentions, outcomes = measure_allocations(
        allocation[None], judge.problem, judge.measurer, split, judge.objective
    )
    result = outcomes[0]
    if isinstance(result, Failed):
        raise CampaignError(f"task {task.name!r}: cannot be measured on {split}: {result.message}")
    reference = reference_outcomes(judge.measurer, split)
    quantized, fp32 = result[:, SCORE], reference[:, SCORE]
    rng = generator_for(judge.seed, 0, f"bootstrap {split}")
    resampled = bootstrap(*with_doubt(quantized, fp32), rng, task.metric)
    if math.isnan(retentions[0].value):
        ours, theirs = (task.metric.figure(float(part.mean(dtype=np.float64))) for part in (quantized, fp32))
        raise CampaignError(
            f"task {task.name!r}: there is no retention on {split}: {task.metric.name} is {ours:.6g} against "
            f"{theirs:.6g} of the FP32 network; give that split more samples, or a metric that is above 0 there."
        )
    plain = figures(scores, 0) | size_figures([allocation], (judge.problem,))
    plain |= limit_figures(judge.objective, [allocation], (judge.problem,), scores.retention[0])
    plain["standard_error"] = retentions[0].standard_error
    plain["interval"] = list(interval(resampled, INTERVAL_LEVEL))
    floor = retention_floor(judge.objective)
    if floor is not None:
        plain |= {"floor": floor, "probability": share_at_least(resampled, floor)}
    plain["divergence"] = float(result[:, DIVERGENCE].mean(dtype=np.float64))
    plain["samples"] = retentions[0].samples
    plain["metric"] = {
        "name": task.metric.name,
        "quantized": task.metric.figure(float(quantized.mean(dtype=np.float64))),
        "fp32": task.metric.figure(float(fp32.mean(dtype=np.float64))),
    }
    names = task.slices(split)
    if names is not None:
        plain["slices"] = _slices(judge, result, reference, names)
    return plain


def _slices(judge: Judge, result: Outcome, reference: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """How many slices there are, and those of least retention, each with P(retention ≥ floor)."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    metric, floor = judge.measurer.task.metric, retention_floor(judge.objective)
    found = []
    for name in sorted(rows):
        pair = result[rows[name], SCORE], reference[rows[name], SCORE]
        retention = paired_retention(*pair, metric)
        if not math.isnan(retention.value):  # a slice that FP32 gets all wrong has none
            found.append((retention.value, name, retention, pair))
    worst = []
    for _, name, retention, pair in sorted(found, key=lambda entry: entry[:2])[:FEW_SLICES]:
        rng = generator_for(judge.seed, 0, f"bootstrap slice {name}")
        resampled = bootstrap(*with_doubt(*pair), rng, metric)
        entry = {
            "name": name,
            "retention": retention.value,
            "standard_error": retention.standard_error,
            "interval": list(interval(resampled, INTERVAL_LEVEL)),
            "samples": retention.samples,
        }
        worst.append(entry if floor is None else {**entry, "probability": share_at_least(resampled, floor)})
    return {"count": len(rows), "worst": worst}


def disagreements(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings where the gate's data, which nobody has chosen by, do not bear out what was believed."""
    gate = scores["gate"]
    found = []
    for split in ("calibration", "selection"):
        mine = scores[split]
        distance = mine["retention"] - gate["retention"]
        error = math.hypot(mine["standard_error"], gate["standard_error"])
        if distance > APART * error and error > 0:
            found.append(
                f"retention: from {mine['retention']:.2%} on {split} to {gate['retention']:.2%} on the gate's data, "
                f"{distance / error:.1f} standard errors: it was chosen by luck."
            )
    chance = gate.get("probability")
    if chance is not None and chance < EVEN_CHANCE:
        found.append(
            f"on the gate's data the chance that retention holds {gate['floor']:.2%} is {chance:.0%}: more likely than "
            f"not it does not."
        )
    return found
