"""After the search: the finalists on valid models or selection data, the champion on test, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.champion import Champion
from evoquant.campaign.evaluate import score_genomes
from evoquant.campaign.limit_figures import limit_figures
from evoquant.errors import CampaignError
from evoquant.genomes.load import genome_from_dict
from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.objective import combine
from evoquant.scoring.separable import cost_sums, table_sums
from evoquant.search.base import best_first

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.campaign.build import Campaign
    from evoquant.genomes.base import Genome
    from evoquant.scoring.objective import Aggregate, Scores
    from evoquant.scoring.problem import Problem


def choose_champion(campaign: Campaign, records: Sequence[dict[str, Any]], provenance: Mapping[str, Any]) -> Champion:
    """Score the finalists once on what the search has not seen, take the best, report it on test once.

    Args:
        campaign: after its search.
        records: of the finalists, at least one.
        provenance: for the champion.
    """
    genomes = [genome_from_dict(record["genome"], "journal") for record in records]
    if campaign.space is None:
        return _replayed(campaign, records[0], genomes[0], provenance)
    if campaign.measured:
        from evoquant.campaign.finals_measured import measured_champion

        return measured_champion(campaign, records, genomes, provenance)
    return _separable(campaign, records, genomes, provenance)


def figures(
    scores: Scores,
    row: int,
    aggregate: Aggregate = "mean",
    optimum: NDArray[np.float64] | None = None,
    *,
    per_model: bool = True,
) -> dict[str, Any]:
    """Plain data: fitness over the models, and the rest as means over them, per model where there are several.

    Args:
        scores, row: of whom.
        aggregate: how fitness on several models becomes one number.
        optimum: `(models,)` certified best fitness; shares of it are given only where all of both are positive.
        per_model: whether to list the models.
    """
    plain: dict[str, Any] = {
        "fitness": float(combine(scores.per_model[[row]], aggregate)[0]),
        "retention": float(scores.retention[row].mean()),
        "compression": float(scores.compression[row].mean()),
        "effective_bits": float(scores.effective_bits[row].mean()),
    }
    several = per_model and scores.retention.shape[1] > 1
    if several:
        plain["per_model"] = {
            "fitness": scores.per_model[row].tolist(),
            "retention": scores.retention[row].tolist(),
            "compression": scores.compression[row].tolist(),
        }
    if optimum is not None and (optimum > 0).all() and (scores.per_model[row] > 0).all():
        shares = scores.per_model[row] / optimum
        plain["share_of_optimum"] = float(shares.mean())
        if several:
            plain["per_model"]["share_of_optimum"] = shares.tolist()
    return plain


def size_figures(allocations: Sequence[NDArray[np.int8]], problems: tuple[Problem, ...]) -> dict[str, Any]:
    """`effective_bits` as a mean over models, and `cost` with its `name`, `value` and FP32 `reference` as sums, and
    its `noise` where it was measured.

    Empty where bits are the cost, which all figures count then.

    Args:
        allocations: `(units,)` of each model.
        problems: the models.
    """
    if not any(problem.own_cost for problem in problems):
        return {}
    pairs = list(zip(problems, allocations, strict=True))
    bits = [float(table_sums(problem.bits, row[None])[0]) / (BIT_UNITS * problem.weights) for problem, row in pairs]
    cost: dict[str, Any] = {
        "name": problems[0].cost.name,
        "value": sum(int(cost_sums(problem, row[None])[0]) for problem, row in pairs),
        "reference": sum(problem.cost.reference for problem in problems),
    }
    if problems[0].cost.noise is not None:
        cost["noise"] = sum(problem.cost.noise or 0 for problem in problems)
    return {"effective_bits": float(np.mean(bits)), "cost": cost}


def _order(scores: Scores, records: Sequence[dict[str, Any]]) -> np.ndarray:
    parts = np.array([record["parts"] for record in records], dtype=np.int64)
    return best_first(scores.fitness, parts, scores.cost, lambda row: str(records[row]["digest"]))


def _separable(
    campaign: Campaign, records: Sequence[dict[str, Any]], genomes: Sequence[Genome], provenance: Mapping[str, Any]
) -> Champion:
    aggregate, model = campaign.config.aggregate, campaign.model
    best = 0
    if campaign.problems["valid"]:
        relative = campaign.optimum("valid") if campaign.config.relative_to_optimum else None
        valid = score_genomes(genomes, campaign.problems["valid"], campaign.objective, aggregate, relative, model)
        best = int(_order(valid, records)[0])
    scores = {}
    for split in ("train", "valid", "test"):
        problems = campaign.problems[split]
        if problems:
            found = score_genomes([genomes[best]], problems, campaign.objective, aggregate, model=model)
            if np.isnan(found.retention).any():
                raise CampaignError(f"the champion has no retention on {split}: estimator gave no number from 0 up.")
            allocations = [genomes[best].allocate(problem) for problem in problems]
            scores[split] = figures(found, 0, aggregate, campaign.optimum(split)) | size_figures(allocations, problems)
            scores[split] |= limit_figures(campaign.objective, allocations, problems, found.retention[0])
    return Champion(genomes[best], scores, {**provenance, **origin(records[best], len(records))})


def _replayed(campaign: Campaign, record: dict[str, Any], genome: Genome, provenance: Mapping[str, Any]) -> Champion:
    """A replay's champion is judged where its table judges it; that split's name comes from the profile's."""
    model = campaign.problems["replay"][record["on"]]
    scores = score_genomes([genome], (model,), campaign.objective, campaign.config.aggregate)
    split = model.name.rpartition("/")[2]
    optimum = campaign.optimum("replay")
    share = None if optimum is None else optimum[[record["on"]]]
    return Champion(genome, {split: figures(scores, 0, optimum=share)}, {**provenance, "label": record["label"]})


def origin(record: Mapping[str, Any], finalists: int) -> dict[str, Any]:
    """Where a champion comes from, for its provenance."""
    return {
        "id": record["id"],
        "operator": record["operator"],
        "parents": record["parents"],
        "finalists": finalists,
    }
