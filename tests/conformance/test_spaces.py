import dataclasses
import random
import threading

import numpy as np
import pytest

from evoquant.genomes.direct import DirectSpace, direct_from_dict
from evoquant.genomes.rule import RuleSpace
from evoquant.genomes.tree import TreeSpace
from evoquant.profiles.builtin import builtin_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem
from evoquant.testing import ConformanceError, check_genome, check_space
from evoquant.testing.examples import example_profile

TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")
SIGNALS = ("gradient_sensitivity", "loss:INT2", "loss:INT4", "loss:INT8", "loss:FP16")


MODELS = {
    **{name: builtin_profile(name) for name in ("seed/train", "seed/test", "seed-additive/test")},
    "restricted": example_profile(restricted=True),
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


class Unkeyed(DirectSpace):
    """Draws from a stream of its own."""

    rng = np.random.Generator(np.random.PCG64(1))

    def sample(self, rng, n):
        return super().sample(self.rng, n)


class Shared(DirectSpace):
    """Draws from the stream of everybody."""

    def mutate(self, genes, rate, rng):
        return np.roll(genes, random.randrange(len(genes)), axis=0)


class Lossy(DirectSpace):
    def encode(self, genome):
        return np.zeros(len(self.genes))


class Forbidden(DirectSpace):
    def allocate(self, genes, problem):
        return genes.astype(np.int8)


class Neighbourly(DirectSpace):
    """Gives a genome another allocation where more stand beside it."""

    def allocate(self, genes, problem):
        return np.roll(super().allocate(genes, problem), len(genes) - 1, axis=0)


class Asleep(DirectSpace):
    def dormant(self, genes):
        return np.ones(genes.shape, dtype=bool)


class Writing(DirectSpace):
    """Makes children in their parents' array."""

    def cross(self, first, second, rng):
        first[:] = super().cross(first, second, rng)
        return first


class Leaving(DirectSpace):
    def tune(self, genes, rng):
        return genes + 1.0


class Restless(DirectSpace):
    def mutate(self, genes, rate, rng):
        return super().mutate(genes, 0.5, rng)


class Estimating(DirectSpace):
    """Sums something else than its allocations."""

    def sums(self, genes, problem):
        losses, costs = super().sums(genes, problem)
        return losses, costs + 1


class Rooted(DirectSpace):
    """Holds what cannot be sent to a worker."""

    def __init__(self, problem):
        super().__init__(problem)
        self.lock = threading.Lock()


class Welcoming(RuleSpace):
    """Takes genomes of any space for its own."""

    def encode(self, genome):
        known = all(hasattr(genome, name) for name in ("protected", "rungs"))
        return super().encode(genome) if known else self.sample(generator_for(0, 0, "conformance"), 1)[0]


class OwnGenome:
    """A direct genome under a name of its own."""

    def __init__(self, inner):
        self.inner = inner

    parts = 0
    text = property(lambda self: self.inner.text)

    def allocate(self, problem):
        return self.inner.allocate(problem)

    def to_dict(self):
        return self.inner.to_dict() | {"kind": "own"}

    def __eq__(self, other):
        return isinstance(other, OwnGenome) and self.inner == other.inner

    def __hash__(self):
        return hash(self.inner)


class OwnSpace(DirectSpace):
    kind = "own"

    def decode(self, row):
        return OwnGenome(super().decode(row))

    def encode(self, genome):
        return super().encode(getattr(genome, "inner", genome))

    @classmethod
    def genome_from_dict(cls, data):
        return OwnGenome(direct_from_dict(data | {"kind": "direct"}, "own"))


class Unread(OwnSpace):
    genome_from_dict = None


class Misread(OwnSpace):
    @classmethod
    def genome_from_dict(cls, data):
        return super().genome_from_dict(data | {"model": "another"})


class Gullible(OwnSpace):
    @classmethod
    def genome_from_dict(cls, data):
        return super().genome_from_dict(data) if "widths" in data else None


class Otherwise(OwnSpace):
    kind = "otherwise"


def test_a_space_of_ones_own_conforms():
    check_space(OwnSpace(PROBLEMS["seed/test"]))


BROKEN = {
    Unread: "has such a class method",
    Misread: "rebuilt from to_dict differs",
    Gullible: "data of no genome should raise GenomeError",
    Otherwise: "kind 'own', and the space's is 'otherwise'",
    Outside: "sample: a gene lies outside its limits",
    Unkeyed: "sample: depends on more than its generator",
    Shared: "mutate draws from, or seeds, the global `random` module",
    Lossy: "encode",
    Forbidden: "canonical: changes an allocation",
    Neighbourly: "allocat",
    Asleep: "dormant: a gene said to be dormant changes an allocation",
    Writing: "cross: changes its argument",
    Leaving: "tune: a gene lies outside its limits",
    Restless: "mutate: changes something at rate 0",
    Estimating: "sums: other costs than those of allocate",
    Rooted: "cannot be copied to a worker",
    Welcoming: "encode: a genome of another space should raise GenomeError",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_suite_catches_each_sort_of_broken_space(broken):
    problem = PROBLEMS["restricted"]
    space = broken(SEED_MENU, TYPES, SIGNALS, 2) if issubclass(broken, RuleSpace) else broken(problem)
    with pytest.raises(ConformanceError, match=BROKEN[broken]) as caught:
        check_space(space, problem)
    assert "evoquant.testing, _check_" in caught.value.__notes__[0]


@dataclasses.dataclass(frozen=True)
class Widths:
    """A genome; each test breaks one thing of it."""

    data: object = "INT8"
    index: int = 1
    parts: object = 1
    text: object = "a line"

    def allocate(self, problem):
        widths = np.full(len(problem.units), self.index, dtype=np.int8)
        return problem.repair(widths[None])[0] if self.index < len(problem.menu) else widths

    def to_dict(self):
        return {"kind": "widths", "data": self.data}


class Int64(Widths):
    def allocate(self, problem):
        return super().allocate(problem).astype(np.int64)


class Nameless(Widths):
    def to_dict(self):
        return {"data": self.data}


class Unequal(Widths):
    def __eq__(self, other):
        return self is other

    __hash__ = Widths.__hash__


class Unlike(Widths):
    def __hash__(self):
        return id(self)


class Unrepaired(Widths):
    def allocate(self, problem):
        return np.zeros(len(problem.units), dtype=np.int8)


def test_a_genome_conforms():
    check_genome(Widths(), PROBLEMS["restricted"])


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Widths(data=np.float64(1.0).astype(np.float32)), "to_dict: no plain data"),
        (Widths(data=float("nan")), "to_dict: no plain data"),
        (Widths(data=(1, 2)), "to_dict: 'a line' comes back from JSON as something else"),
        (Widths(index=7), "allocate: an index outside the menu"),
        (Widths(parts=1.5), "parts: 1.5 is no whole number"),
        (Widths(text="two\nlines"), "text: .* is no line"),
        (Int64(), "allocate: int64, not int8"),
        (Nameless(), "to_dict: no kind"),
        (Unequal(), "a copy is not equal"),
        (Unlike(), "equal genomes have unlike hashes"),
        (Unrepaired(), "allocate: a width that is not allowed"),
    ],
)
def test_the_suite_catches_each_sort_of_broken_genome(broken, promise):
    with pytest.raises(ConformanceError, match=promise):
        check_genome(broken, PROBLEMS["restricted"])
