import dataclasses

import numpy as np
import pytest

from evoquant.campaign.champion import Champion
from evoquant.genomes.rule import Rule, RuleSpace, Rung
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.builtin import builtin_profile
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import DATA_SETS, SPLITS
from evoquant.quantization.precision import SEED_MENU, Menu

TYPES = ("Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear")
SIGNALS = (
    "gradient_sensitivity",
    "parameters",
    "weight_mean",
    "weight_std",
    "weight_range",
    "activation_range",
    *(f"loss:{name}" for name in SEED_MENU.names),
)
GROUPED_MENU = Menu.parse(["INT2-g4", "INT4-channel", "INT8-channel", "FP16", "FP32"])


def champion_of(genome, **provenance):
    """A champion with made-up figures."""
    scores = {"train": {"fitness": 2.5, "retention": 0.96}}
    return Champion(genome, scores, {"campaign": "test", "seed": 0, "menu": list(SEED_MENU.names), **provenance})


def random_rules(n, seed, menu=SEED_MENU, signals=SIGNALS):
    space = RuleSpace(menu, TYPES, signals, 4)
    return [space.decode(row) for row in space.sample(np.random.default_rng(seed), n)]


def prices(menu, kinds=("loss_per_bit",)):
    return tuple(f"{kind}:{name}" for kind in kinds for name in menu.names[:-1])


def at_prices(problems):
    """Rules whose thresholds are some unit's price, and the next smaller figure: one bit decides what it takes."""
    rules = []
    for problem in problems:
        for name in prices(problem.menu):
            price = float(np.sort(problem.signal(name))[len(problem.units) // 2])
            for above in (price, float(np.nextafter(price, -np.inf))):
                rules.append(Rule("INT4", (Rung(name, above, "FP16"),)))
    return rules


@pytest.fixture(scope="session")
def suite():
    """The six models of the seed suite."""
    return [builtin_profile(f"{data}/{split}") for data in DATA_SETS for split in SPLITS]


@pytest.fixture(scope="session")
def rules():
    """Every strategy that is a rule, and random rules."""
    named = [genome for genome in STRATEGIES.values() if isinstance(genome, Rule)]
    return named + random_rules(50, seed=11)


def random_profile(seed):
    """A model with tie groups, forbidden widths and every signal."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    layers = []
    for i in range(n):
        figures = {name: float(rng.random()) for name in ("weight_std", "weight_range", "activation_range")}
        shape = tuple(int(size) for size in rng.choice([1, 2, 3, 4, 8, 12], size=int(rng.integers(1, 4))))
        axis = rng.choice([None, 0, len(shape) - 1])
        layers.append(
            LayerProfile(
                name=f"layer{i}",
                type=str(rng.choice(TYPES)),
                shape=shape,
                channel_axis=None if axis is None else int(axis),
                position=i / (n - 1) if n > 1 else 0.5,
                weight_mean=float(rng.normal()),
                gradient_sensitivity=float(rng.random()),
                loss={name: float(rng.uniform(-0.1, 0.6)) for name in GROUPED_MENU.names},
                fisher={name: float(rng.random()) for name in GROUPED_MENU.names},
                weight_error={name: float(rng.random()) for name in GROUPED_MENU.names},
                divergence={name: float(rng.random()) for name in GROUPED_MENU.names},
                hessian={name: float(rng.random()) for name in GROUPED_MENU.names},
                expected_loss={name: float(rng.random()) for name in GROUPED_MENU.names},
                allowed=[None, ("INT4-channel", "FP32"), ("INT2-g4", "INT8-channel", "FP32")][int(rng.integers(3))],
                tie_group=[None, None, "a", "b"][int(rng.integers(4))],
                **figures,
            )
        )
    return ModelProfile(f"random {seed}", tuple(layers))


@pytest.fixture(scope="session")
def tied_models():
    """Models with everything that a profile may say."""
    return [random_profile(seed) for seed in range(25)]


@pytest.fixture(scope="session")
def hostile():
    """Names that try to break out of strings and comments."""
    return [
        '"""',
        "'''",
        '"; import os; os._exit(3) #',
        '""" + __import__("os")._exit(3) + """',
        "back\\",
        "back\\\\",
        '\\"',
        "line\nbreak",
        "carriage\rreturn",
        "\r\n//! evil",
        "tab\tbed",
        "*/ fn evil() {} /*",
        "{braces} {0} %s $x",
        "\\N{BULLET} \\x41 \\u{41}",
        "right\u202eto left",
        "line\u2028separator",
        "nul\x00l",
        "bell\x07 escape\x1b[31m",
        "größe 量子化 🦀",
        "# comment",
        "- yaml: [",
        "no",
        "1e5",
        "~",
        " padded ",
        "=1+1",
        "a,b",
    ]


def with_types(profile, types):
    """The model with its layers' types replaced in turn."""
    layers = [dataclasses.replace(layer, type=types[i % len(types)]) for i, layer in enumerate(profile.layers)]
    return ModelProfile(profile.name, tuple(layers))
