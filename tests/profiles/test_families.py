import json
import math
from collections import Counter

import numpy as np
import pytest

from evoquant.profiles.draw import Draw, readable
from evoquant.profiles.families import FAMILIES, family_profile
from evoquant.profiles.family_figures import TARGET_BITS
from evoquant.profiles.family_layouts import FEWEST_LAYERS, MOST_LAYERS
from evoquant.profiles.model import profile_from_dict, profile_to_json
from evoquant.profiles.seed_suite import SPLITS, seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.rng import generator_for
from evoquant.scoring.objective import Cliff
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import retention_of

TYPES = {"Attention", "Classifier", "Conv", "Embedding", "LayerNorm", "Linear"}
KINDS = pytest.mark.parametrize("kind", FAMILIES)
MODELS = 30

# The first model of each kind. A change here changes what every campaign on families is run on.
DIGESTS = {
    "cnn": "4ed228be58ab3f9b",
    "encoder_decoder": "9e4b23bf4115b31c",
    "mixture_of_experts": "a6640edc9520ddd1",
    "mlp_mixer": "999ea83fae5a0e23",
    "recurrent": "5c720368bca293fc",
    "transformer": "44d0a3f26e6cdb93",
    "unet": "96f97b100f537c0e",
}


def plans(kind, index):
    return FAMILIES[kind](Draw(generator_for(index, 0, f"family {kind}")))


def shapes(layers):
    return [(layer.type, layer.shape) for layer in layers]


def models(kind):
    return [family_profile(kind, index) for index in range(MODELS)]


@KINDS
def test_the_same_model_everywhere_and_always(kind):
    family_profile.cache_clear()
    assert family_profile(kind, 0).digest[:16] == DIGESTS[kind]


@KINDS
def test_models_of_a_kind_differ(kind):
    assert len({str(shapes(plans(kind, index))) for index in range(100)}) == 100
    assert len({model.digest for model in models(kind)}) == MODELS


@KINDS
def test_losses_fall_to_nothing_as_the_width_grows(kind):
    for model in models(kind):
        for layer in model.layers:
            losses = [layer.loss[width] for width in SEED_MENU.names]
            assert losses == sorted(losses, reverse=True)
            assert 0.99 >= losses[0] > 0.0
            assert losses[-1] == 0.0


@KINDS
def test_figures_are_in_range_and_readable(kind):
    for model in models(kind):
        assert 0.5 <= max(layer.gradient_sensitivity for layer in model.layers) <= 1.0
        for layer in model.layers:
            figures = [layer.weight_std, layer.weight_range, layer.activation_range, layer.gradient_sensitivity]
            assert min(figures) > 0.0
            assert layer.weight_range > 2 * layer.weight_std
            for value in (*figures, layer.weight_mean, *layer.loss.values()):
                assert value == readable(value)


@KINDS
def test_profiles_are_valid_and_travel_through_json(kind):
    for model in models(kind)[:8]:
        again = profile_from_dict(json.loads(profile_to_json(model)))
        assert again == model
        assert again.digest == model.digest


@KINDS
def test_sizes_and_types(kind):
    counts, parameters = [], []
    for index in range(200):
        layers = plans(kind, index)
        counts.append(len(layers))
        parameters.append(sum(math.prod(layer.shape) for layer in layers))
        assert {layer.type for layer in layers} <= TYPES
        assert len({layer.name for layer in layers}) == len(layers)
        assert [layer.type for layer in layers].count("Classifier") == (kind != "unet")
        assert all(min(layer.shape) >= 1 for layer in layers)
    assert min(counts) >= FEWEST_LAYERS
    assert max(counts) <= MOST_LAYERS
    assert 30 <= np.median(counts) <= 90
    assert min(parameters) > 10**3
    assert max(parameters) < 10**11
    assert max(parameters) > 100 * min(parameters)


@KINDS
def test_nothing_is_laid_out_like_a_model_of_the_suite(kind):
    suite = [seed_profile(split).layers for split in SPLITS]
    for index in range(200):
        layers = plans(kind, index)
        for model in suite:
            assert shapes(layers) != shapes(model)
            assert sorted(math.prod(layer.shape) for layer in layers) != sorted(layer.parameters for layer in model)


def test_tie_groups_hold_layers_of_one_kind():
    sizes = Counter()
    for kind in ("transformer", "mixture_of_experts"):
        for model in models(kind):
            groups = {}
            for layer in model.layers:
                groups.setdefault(layer.tie_group, []).append(layer)
            groups.pop(None, None)
            for name, members in groups.items():
                assert len(members) > 1
                expected = {"Embedding", "Classifier"} if name == "vocabulary" else {members[0].type}
                assert {layer.type for layer in members} == expected
                sizes[name.rpartition(".")[2]] += 1
            assert len(compile_problem(model, SEED_MENU).units) == len(model.layers) - sum(
                len(members) - 1 for members in groups.values()
            )
    assert set(sizes) == {"vocabulary", "qkv", "experts"}


def test_depthwise_convolutions_say_their_groups():
    depthwise = [
        layer for index in range(40) for layer in plans("cnn", index) if layer.type == "Conv" and layer.groups > 1
    ]
    assert depthwise
    assert all(layer.shape[1] == 1 and layer.shape[0] == layer.groups for layer in depthwise)


def sweep(problem):
    """`(steps,)` cliff fitness, retention and compression of argmin loss + λ · bits over a grid of λ."""
    loss, bits = problem.separable_loss(), problem.cost.table / 1024 / problem.weights
    rows = np.arange(len(loss))
    chosen = [np.argmin(loss / 2**40 + price * bits, axis=1) for price in np.geomspace(1e-5, 3, 150)]
    retention = retention_of(np.array([loss[rows, widths].sum() for widths in chosen]))
    compression = 32 / np.array([bits[rows, widths].sum() for widths in chosen])
    return Cliff().score(retention, compression, 32 / compression), retention, compression


def test_models_are_neither_trivial_nor_alike():
    """Loose bounds around what was measured, so that a change of a range shows what it does to the task."""
    uniform, compression, retention, shares = Counter(), [], [], []
    for kind in FAMILIES:
        for model in models(kind):
            problem = compile_problem(model, SEED_MENU)
            kept = retention_of(problem.separable_loss().sum(axis=0)) >= 0.95
            uniform[SEED_MENU.names[int(np.argmax(kept))]] += 1
            fitness, kept, packed = sweep(problem)
            best = int(np.argmax(fitness))
            compression.append(packed[best])
            retention.append(kept[best])
            shares.append(fitness / fitness[best])
    # Which uniform width crosses the cliff differs: mostly FP16 or INT8, sometimes none but FP32.
    total = len(compression)
    assert uniform["INT2"] == 0
    assert min(uniform["INT8"], uniform["FP16"], uniform["FP32"]) > total / 20
    assert max(uniform.values()) < total * 0.65
    low, median, high = np.quantile(compression, [0.1, 0.5, 0.9])
    assert 32 / TARGET_BITS[1] * 0.9 < low < 2.4
    assert 3.0 < median < 4.5
    assert 5.5 < high < 9.0
    assert np.quantile(retention, [0.05, 0.95]) == pytest.approx([0.96, 0.99], abs=0.006)
    # One price of a bit for all models is good, and leaves something to find.
    each = np.array(shares)
    one = each[:, np.argmax(each.mean(axis=0))]
    assert np.median(one) > 0.97
    assert np.quantile(one, 0.1) < 0.95
