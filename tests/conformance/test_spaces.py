import dataclasses

import numpy as np
import pytest

from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import RuleSpace
from evoquant.genomes.tree import TreeSpace
from evoquant.profiles.builtin import builtin_profile
from evoquant.profiles.model import ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem
from evoquant.testing.spaces import check_space

TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")
SIGNALS = ("gradient_sensitivity", "loss:INT2", "loss:INT4", "loss:INT8", "loss:FP16")


def restricted(profile):
    """The model with forbidden widths and a tie group."""
    layers = [
        dataclasses.replace(
            layer,
            allowed=(("INT4", "FP16"), ("INT8",), None)[i % 3],
            tie_group="tied" if i in (5, 8) else None,
        )
        for i, layer in enumerate(profile.layers)
    ]
    return ModelProfile(profile.name, tuple(layers))


MODELS = {
    **{name: builtin_profile(name) for name in ("seed/train", "seed/test", "seed-additive/test")},
    "restricted": restricted(seed_profile("test")),
}
PROBLEMS = {name: compile_problem(profile, SEED_MENU) for name, profile in MODELS.items()}
PRICES = ("gradient_sensitivity", "loss:INT8", *(f"loss_per_bit:{name}" for name in SEED_MENU.names[:-1]))
TREE_SIGNALS = ("loss", "bits", "share", "gradient_sensitivity", "position", "units", "model_loss")
SPACES = {
    "rules": lambda problem: RuleSpace(SEED_MENU, TYPES, SIGNALS, 3),
    "rules over prices": lambda problem: RuleSpace(SEED_MENU, TYPES, PRICES, 4),
    "rules without rungs": lambda problem: RuleSpace(SEED_MENU, TYPES, (), 3),
    "rules without types": lambda problem: RuleSpace(SEED_MENU, (), SIGNALS, 2),
    "trees": lambda problem: TreeSpace(SEED_MENU, TYPES, TREE_SIGNALS),
    "trees without flags": lambda problem: TreeSpace(SEED_MENU, (), ("loss", "weight_std"), max_nodes=9),
    "trees of one node": lambda problem: TreeSpace(SEED_MENU, TYPES, TREE_SIGNALS, max_nodes=1, max_depth=0),
    "direct": DirectSpace,
}


@pytest.mark.parametrize("model", PROBLEMS)
@pytest.mark.parametrize("space", SPACES)
def test_space_conforms(space, model):
    problem = PROBLEMS[model]
    check_space(SPACES[space](problem), problem, n=48, seed=len(model))


class Outside(DirectSpace):
    def sample(self, rng, n):
        return super().sample(rng, n) + 1


class Lossy(DirectSpace):
    def encode(self, genome):
        return np.zeros(len(self.genes))


class Forbidden(DirectSpace):
    def allocate(self, genes, problem):
        return genes.astype(np.int8)


class Asleep(DirectSpace):
    def dormant(self, genes):
        return np.ones(genes.shape, dtype=bool)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [(Outside, "limits"), (Lossy, "encode"), (Forbidden, "canonical|allowed"), (Asleep, "dormant")],
)
def test_the_suite_can_fail(broken, promise):
    problem = PROBLEMS["restricted"]
    with pytest.raises(AssertionError, match=promise):
        check_space(broken(problem), problem)
