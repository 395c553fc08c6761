import numpy as np

from evoquant.genomes.expression import ALL_SIGNALS
from evoquant.genomes.tree import Tree, TreeSpace
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem

TREE_TYPES = ("Conv", "Linear")


def random_problem(seed, layers=8):
    """A model whose figures often coincide, vanish or are huge, so that ties and saturation occur."""
    rng = np.random.default_rng(seed)

    def figure():
        return float(rng.choice([0.0, 1.0, 0.5, rng.random(), -rng.random(), 1e99, 1e-300]))

    profiles = tuple(
        LayerProfile(
            name=f"l{i}",
            type=str(rng.choice(TREE_TYPES)),
            shape=(int(rng.integers(1, 9)),),
            position=i / (layers - 1),
            weight_mean=figure(),
            weight_std=abs(figure()),
            weight_range=abs(figure()),
            activation_range=abs(figure()),
            gradient_sensitivity=float(rng.choice([0.0, 1.0, rng.random()])),
            loss={p: float(rng.choice([0.0, 0.5, rng.uniform(-0.2, 1.0)])) for p in SEED_MENU.names},
            fisher={p: abs(figure()) for p in SEED_MENU.names},
            weight_error={p: abs(figure()) for p in SEED_MENU.names},
            divergence={p: abs(figure()) for p in SEED_MENU.names},
            hessian={p: abs(figure()) for p in SEED_MENU.names},
            expected_loss={p: (i + 1) / (k + 1) for k, p in enumerate(SEED_MENU.names)},
            allowed=None if rng.random() < 0.7 else ("INT4", "FP16"),
        )
        for i in range(layers)
    )
    return compile_problem(ModelProfile(f"random {seed}", profiles), SEED_MENU)


TREES = TreeSpace(SEED_MENU, TREE_TYPES, ALL_SIGNALS, max_nodes=60, max_depth=12)


def random_trees(n, seed):
    """Trees with many coincidences: few signals, and constants of 0, ±1 and ±10^100."""
    rng = np.random.default_rng(seed)
    space = TreeSpace(SEED_MENU, TREE_TYPES, ("loss", "bits", "weight_mean"), max_nodes=60, max_depth=12)
    constants = (0.0, 1.0, -1.0, 2.0, 1e100, -1e100, 1e-100)
    for some in (space, TREES):
        for row in some.mutate(some.sample(rng, n), 0.3, rng):
            tree = some.decode(row)
            yield Tree(tuple(t if isinstance(t, str) else float(rng.choice([t, *constants])) for t in tree.expression))
