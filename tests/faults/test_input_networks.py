"""Changed files about real networks: allocations for `score`, and recipes, are used or refused in one message."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from evoquant.campaign.imported_layers import Site
from evoquant.campaign.score import Unresolved, allocation_of, menu_for, read_allocation
from evoquant.files import pretty_json
from evoquant.scoring.problem import compile_problem

from . import mutations
from .judging import BYTES, VALUES, Tally, champions, input_folder, small_profile, state, structured, tried, tried_cli

folder = pytest.fixture(input_folder)


# ---- allocations of `score` -----------------------------------------------------------------------------------------

WIDTHS = {"layer0": "INT8", "layer1": "INT4", "layer2": "INT4", "layer3": "FP16", "layer4": "FP32"}
COMPRESSED = {
    "architectures": ["Small"],
    "model_type": "llama",
    "dtype": "float16",
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {
                "targets": ["re:layer[12]", "Embedding"],
                "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "channel", "group_size": None},
            }
        },
        "ignore": ["layer4"],
    },
}
MODELOPT = {
    "producer": {"name": "modelopt"},
    "quantization": {"quant_algo": "W8A16", "exclude_modules": ["layer4", "lay*3"], "kv_cache_quant_algo": None},
}
QUANT_CFG = {
    "quant_cfg": {"*weight_quantizer": {"num_bits": 8, "axis": 0}, "*layer4*": {"enable": False}},
    "algorithm": "max",
}
SITES = tuple(
    Site(layer.name, ("Embedding",) if layer.type == "Embedding" else ("Linear",), layer.shape, layer.channel_axis)
    for layer in small_profile().layers
    if layer.type != "LayerNorm"
)


def allocations():
    csv = "layer,width\r\n" + "".join(f"{layer},{width}\r\n" for layer, width in WIDTHS.items())
    plain = [WIDTHS, COMPRESSED, MODELOPT, QUANT_CFG, champions()[3]]
    return {"a.csv": csv.encode()} | {f"a{i}.json": pretty_json(one).encode() for i, one in enumerate(plain)}


def check_allocation(path, data):
    path.write_bytes(data)
    before = state(path.parent)

    def use():
        given = read_allocation(path)
        if isinstance(given, Unresolved):
            given = given.recipe.resolve(SITES).widths
        menu = menu_for(given, None)
        allocation_of(given, compile_problem(small_profile(), menu), str(path))

    used = tried([str(path), "precision", "menu", "'small'", "signal", "rule "], use)
    assert state(path.parent) == before
    return used


@pytest.mark.parametrize("count", BYTES)
def test_allocations_with_changed_bytes(folder, record, count):
    rng, tally = np.random.default_rng(4), Tally()
    known = allocations()
    for i in range(count):
        name = list(known)[i % len(known)]
        tally.add(check_allocation(folder / name, mutations.garbled(known[name], rng, list(known.values()))))
        (folder / name).unlink()
    record("input", "allocations for score with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_allocations_with_changed_values(folder, record, count):
    all_used = all_tried = 0
    for i, plain in enumerate([WIDTHS, COMPRESSED, MODELOPT, QUANT_CFG]):
        tally = structured(
            plain, count // 4, i, lambda case: check_allocation(folder / "a.json", mutations.as_json(case))
        )
        all_tried, all_used = all_tried + tally.tried, all_used + tally.used
    record("input", "allocations for score with changed values", tried=all_tried, held=all_tried, used=all_used)


# ---- recipes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(folder):
    """A recipe in a folder: its path, and the numbers beside it."""
    pytest.importorskip("safetensors")
    from evoquant.export.recipe import build_recipe, write_recipe

    rng = np.random.default_rng(0)
    profile = dataclasses.replace(
        small_profile(), layers=tuple(dataclasses.replace(one, tie_group=None) for one in small_profile().layers)
    )
    widths = ["INT4-g4-asym", "INT8-channel", "FP8-channel", "BF16", "FP16"]
    shapes = {layer.name: layer.shape for layer in profile.layers}
    made = build_recipe(
        profile,
        widths,
        lambda name: rng.standard_normal(shapes[name]).astype(np.float32),
        "digest",
        {"test": {"retention": 0.5}},
        {"seed": 0},
    )
    write_recipe(made, folder / "r.json")
    return folder / "r.json"


def check_recipe(path, data, numbers=None):
    """Numbers, where they are changed, get the digest that belongs to them, so that more than that is looked at."""
    from evoquant.export.recipe import read_recipe

    if numbers is not None:
        path.with_suffix(".safetensors").write_bytes(numbers)
        digest = json.loads(data)["tensors_sha256"]
        data = data.replace(digest.encode(), hashlib.sha256(numbers).hexdigest().encode())
    path.write_bytes(data)
    before = state(path.parent)

    def use():
        found = read_recipe(path)
        for layer in found.layers:
            assert found.values(layer).shape == layer.shape

    used = tried([path.stem], use)
    assert state(path.parent) == before
    return used


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.long)])
def test_recipes_with_changed_bytes(recipe, record, count):
    rng, tally = np.random.default_rng(5), Tally()
    text, numbers = recipe.read_bytes(), recipe.with_suffix(".safetensors").read_bytes()
    for i in range(count):
        if i % 3 == 0:
            tally.add(check_recipe(recipe, text, mutations.garbled(numbers, rng)))
        else:
            tally.add(check_recipe(recipe, mutations.garbled(text, rng)))
        if i % 25 == 0:
            tried_cli(["r.json", "r.safetensors"], "lint", recipe, "--for", "onnx", codes=(0, 1, 2))
        recipe.with_suffix(".safetensors").write_bytes(numbers)
    record("input", "recipes with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_recipes_with_changed_values(recipe, record, count):
    plain = json.loads(recipe.read_bytes())
    tally = structured(plain, count, 0, lambda case: check_recipe(recipe, mutations.as_json(case)))
    record("input", "recipes with changed values", tried=tally.tried, held=tally.tried, used=tally.used)
