"""Rounding methods of somebody's own: what is measured is what is exported, and one is told from another."""

import dataclasses
import functools
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import evoquant
from evoquant.api.given import sendable
from evoquant.api.parts import rounder_of
from evoquant.errors import InputError
from evoquant.export.recipe import read_recipe
from evoquant.models.own_rounding import rounded_by
from evoquant.models.torch_quantize import fake_quantize_tensor
from evoquant.quantization.numerics import fake_quantize, quantize
from evoquant.quantization.precision import Precision
from evoquant.quantization.rounding import Rounder
from evoquant.testing import check_rounding
from tests.optional_torch.networks import seeded

ME = __name__
WEIGHT = np.random.Generator(np.random.PCG64(0)).normal(size=(6, 8)).astype(np.float32)


def clipped(codes, precision):
    low = 0 if precision.asymmetric else -precision.largest_code
    return np.clip(codes, low, precision.largest_code).astype(np.int16)


def nearest(rows, scales, zero_points, precision):
    return clipped(np.rint(rows / scales[:, None]) + zero_points[:, None], precision)


def stochastic(rows, scales, zero_points, precision, salt=b""):
    seed = int.from_bytes(hashlib.sha256(rows.tobytes() + salt).digest()[:8], "little")
    draws = np.random.Generator(np.random.PCG64(seed)).random(rows.shape, dtype=np.float32)
    return clipped(np.floor(rows / scales[:, None] + draws) + zero_points[:, None], precision)


def floats(rows, scales, zero_points, precision):
    return np.rint(rows / scales[:, None])


def wide(rows, scales, zero_points, precision):
    return 3 * nearest(rows, scales, zero_points, precision)


def flat(*given):
    return nearest(*given).ravel()


def listed(*given):
    return nearest(*given).tolist()


def drawn(rows, scales, zero_points, precision):
    return clipped(np.floor(rows / scales[:, None] + np.random.default_rng().random(rows.shape)), precision)


def writes(rows, *others):
    rows[:] = 0


def rounder(function, **given):
    return Rounder(function, function.__name__, "0" * 64, **given)


WIDTHS = ("INT2-tensor", "INT4-channel", "INT4-g4-asym", "INT8-channel-asym", "INT4-channel-mse", "INT8-channel-a8")


@pytest.mark.parametrize("name", [*WIDTHS, "NF4-g4", "FP8-channel", "FP16", "BF16", "FP32"])
def test_nearest_is_what_evoquant_does_and_pytorch_goes_the_same_way(name):
    width = Precision.parse(name)
    own = fake_quantize(WEIGHT, width, 0, rounder(nearest))
    assert np.array_equal(own, fake_quantize(WEIGHT, width, 0))
    for function in (nearest, stochastic):
        found = fake_quantize_tensor(torch.from_numpy(WEIGHT), width, 0, rounder(function))
        assert np.array_equal(found.numpy(), fake_quantize(WEIGHT, width, 0, rounder(function)))
    changed = not np.array_equal(fake_quantize(WEIGHT, width, 0, rounder(stochastic)), own)
    assert changed == width.is_integer


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (floats, "gives float32 numbers; return a NumPy array of an integer type"),
        (listed, "gives a list"),
        (wide, r"gives codes from -21 to 21; clip them to -7 … 7"),
        (flat, r"gives the shape \(48,\) for rows of \(6, 8\)"),
        (drawn, "gives other codes the second time|gives other codes when it is called again"),
        (writes, "raised ValueError: .*read-only"),
    ],
)
def test_what_are_no_codes_is_refused_by_name(function, fault):
    with pytest.raises(InputError, match=f"rounding: '{function.__name__}': INT4-channel: .*({fault})"):
        quantize(WEIGHT, Precision.parse("INT4-channel"), 0, rounder(function, twice=True))


def test_the_suite_takes_the_good_ones():
    check_rounding(nearest)
    check_rounding(stochastic)


@pytest.fixture(scope="module")
def network():
    return seeded(torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)))


@pytest.fixture(scope="module")
def data(network):
    x = np.random.Generator(np.random.PCG64(1)).normal(size=(240, 6)).astype(np.float32)
    with torch.no_grad():
        return x, network(torch.from_numpy(x)).argmax(1).numpy()


def optimize(network, data, **given):
    return evoquant.optimize(network, data, budget=8, floor=0.9, menu=["INT3-channel", "INT4-channel", "FP32"], **given)


@pytest.fixture(scope="module")
def result(network, data, tmp_path_factory):
    place = tmp_path_factory.mktemp("rounded")
    return optimize(network, data, rounding=stochastic, run_dir=place / "run", cache=place / "cache")


def test_what_was_measured_is_what_is_applied_and_exported(result, network, tmp_path):
    (path, _), _ = result.export("recipe", tmp_path / "recipe.json", ungated=True)
    found, applied = read_recipe(path), dict(result.apply(ungated=True).named_parameters())
    assert found.rounding == f"{ME}:stochastic" and found.quantizer.startswith(f"1+{ME}:stochastic@")
    integers = 0
    for layer in found.layers:
        assert np.array_equal(found.values(layer), applied[f"{layer.name}.weight"].numpy())
        integers += layer.width.is_integer
        if layer.width.is_integer:
            weight = network.get_submodule(layer.name).weight.detach().numpy()
            codes = quantize(weight, layer.width, layer.channel_axis, rounder(stochastic)).codes
            assert np.array_equal(found.quantized(layer).codes, codes)
            assert not np.array_equal(codes, quantize(weight, layer.width, layer.channel_axis).codes)
    assert integers


def test_targets_that_make_codes_by_themselves_are_refused(result, tmp_path):
    with pytest.raises(InputError, match="executorch makes its codes by itself, to the nearest"):
        result.export("executorch", tmp_path / "x.py", ungated=True)
    assert not (tmp_path / "x.py").exists()


def test_edited_code_exports_nothing(result, tmp_path):
    edited = Rounder(stochastic, f"{ME}:stochastic", "f" * 64)
    changed = dataclasses.replace(result, _task=rounded_by(result._task, edited))
    with pytest.raises(InputError, match=r"was measured with the rounding .*restore its code, or start a new run"):
        changed.export("recipe", tmp_path / "recipe.json", ungated=True)
    assert not (tmp_path / "recipe.json").exists()


def test_the_store_tells_one_from_another(result, network, data):
    """With the same store nearest gives what evoquant's own gives, and nothing of what stochastic left there."""
    cache = result.path.parent / "cache"
    plain = optimize(network, data, cache=cache)
    own = optimize(network, data, cache=cache, rounding=nearest)
    first, second, third = (
        [json.loads(line)["population"] for line in (one.path / "journal.jsonl").read_text().splitlines()]
        for one in (plain, own, result)
    )
    assert first == second != third


def test_another_rounding_is_another_call(result, network, data):
    with pytest.raises(InputError, match="rounding"):
        optimize(network, data, rounding=nearest, run_dir=result.path)
    with pytest.raises(InputError, match="is a function, or its name, module:function"):
        optimize(network, data, rounding="nearest")
    with pytest.raises(InputError, match="gives float32 numbers"):
        optimize(network, data, rounding=floats)


def test_what_an_object_holds_tells_it_from_another():
    first, again, other = (rounder_of(functools.partial(stochastic, salt=salt)) for salt in (b"a", b"a", b"b"))
    assert first.suffix == again.suffix != other.suffix
    assert rounder_of(stochastic).suffix == rounder_of(f"{ME}:stochastic").suffix
    with pytest.raises(InputError, match="sent to Ray's workers"):
        sendable(SimpleNamespace(rounder=rounder_of(lambda *given: nearest(*given))), None)
