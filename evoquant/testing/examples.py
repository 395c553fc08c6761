"""What the suites try implementations on where the caller brings nothing: two small models, three spaces over them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from evoquant.campaign.evaluate import SeparableEstimator
from evoquant.execution.local import LocalExecutor
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.genomes.tree import TreeSpace
from evoquant.profiles.model import ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.genomes.base import Space
    from evoquant.scoring.problem import Problem
    from evoquant.search.base import CandidateBatch, EvaluationBatch

SCALED = ("INT4-channel", "INT8-channel", "FP16", "FP32")
"""A menu whose widths have scales, so that no two layers of unlike shapes cost the same a weight."""


def example_profile(*, restricted: bool = False) -> ModelProfile:
    """The published test model; `restricted` has forbidden widths, and two layers that share theirs."""
    profile = seed_profile("test")
    if not restricted:
        return profile
    layers = [
        dataclasses.replace(
            layer,
            allowed=(("INT4", "FP16"), ("INT8",), None)[i % 3],
            tie_group="tied" if i in (5, 8) else None,
        )
        for i, layer in enumerate(profile.layers)
    ]
    return ModelProfile(f"{profile.name}, restricted", tuple(layers))


def example_problem(*, restricted: bool = False, menu: Menu = SEED_MENU) -> Problem:
    """`example_profile`, compiled for the seed menu or another."""
    return compile_problem(example_profile(restricted=restricted), menu)


def example_spaces(problem: Problem | None = None) -> dict[str, Space]:
    """A space of each built-in kind over a model: `rules`, `direct`, `trees`."""
    problem = example_problem() if problem is None else problem
    return {
        "rules": RuleSpace(problem.menu, LAYER_TYPES, ("gradient_sensitivity", "loss:FP16"), 2),
        "direct": DirectSpace(problem),
        "trees": TreeSpace(problem.menu, LAYER_TYPES, ("loss", "bits", "share")),
    }


def evaluator(space: Space | None, problem: Problem | None = None) -> Callable[[CandidateBatch], EvaluationBatch]:
    """What a campaign tells a search over `space`: separable scores of the published objective on one model."""
    problem = example_problem() if problem is None else problem
    estimator = SeparableEstimator(space, (problem,), Cliff(), "mean", 7)
    estimator.use(LocalExecutor())
    return lambda batch: estimator.evaluate(batch, {})
