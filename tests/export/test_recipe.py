"""Recipes: what goes in comes out, the promise is the search's own cost, and damaged files are told from sound ones."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("safetensors")

from safetensors.numpy import load, save

from evoquant.errors import InputError, PrecisionError
from evoquant.export.recipe import build_recipe, read_recipe, write_recipe
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Menu, Precision
from evoquant.rng import generator_for
from evoquant.scoring.cost import BIT_UNITS
from evoquant.scoring.problem import compile_problem

NAMES = [
    *(f"INT{bits}-{slices}" for bits in (2, 3, 4, 8) for slices in ("tensor", "channel", "g4")),
    *(
        "INT4-channel-asym",
        "INT2-g4-asym",
        "INT8-tensor-asym",
        "INT4-channel-mse",
        "INT4-g4-asym-mse",
        "INT8-channel-a8",
    ),
    *("NF4-channel", "NF4-g4", "FP8-tensor", "FP8-channel", "FP8-g4", "FP16", "BF16", "FP32"),
]
LAYERS = (
    LayerProfile("embed", "Embedding", (10, 8), 0.0),
    LayerProfile("conv", "Conv", (4, 2, 2, 2), 0.25, groups=2),
    LayerProfile("up", "Conv", (4, 8, 2), 0.5, channel_axis=1),
    LayerProfile("norm", "LayerNorm", (8,), 0.75, channel_axis=None),
    LayerProfile("head", "Classifier", (3, 8), 1.0, tie_group="ends"),
)
PROFILE = ModelProfile("toy", LAYERS, constant_bits=32 * 17)


def weights(seed=0):
    rng = generator_for(seed, 0, "test weights")
    return {layer.name: rng.standard_normal(layer.shape).astype(np.float32) for layer in LAYERS}


def made(widths, seed=0):
    scores = {"test": {"retention": 0.5}}
    return build_recipe(PROFILE, widths, weights(seed).__getitem__, "digest", scores, {"seed": seed, "gate": "passed"})


@pytest.fixture
def written(tmp_path):
    """A recipe's path; each layer has numbers of another kind."""
    recipe = made(["INT4-g4-asym", "INT8-channel", "FP8-channel", "BF16", "FP16"])
    beside = write_recipe(recipe, tmp_path / "recipe.json")
    assert beside == tmp_path / "recipe.safetensors" and beside.is_file()
    return tmp_path / "recipe.json"


def changed(path, change):
    """The recipe's text, changed."""
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


def with_tensors(path, change):
    """The recipe's numbers, changed, and its digest of them made to fit."""
    beside = path.with_suffix(".safetensors")
    tensors = dict(load(beside.read_bytes()))
    change(tensors)
    content = save(tensors)
    beside.write_bytes(content)
    changed(path, lambda data: data.update(tensors_sha256=hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_comes_back_as_it_was_and_stands_for_what_was_measured(name, tmp_path):
    recipe = made([name] * len(LAYERS))
    write_recipe(recipe, tmp_path / "recipe.json")
    back = read_recipe(tmp_path / "recipe.json")
    assert (back.model, back.model_digest, back.constant_bits) == ("toy", "digest", 544)
    assert back.layers == recipe.layers and back.promise == recipe.promise
    assert back.provenance == {"seed": 0, "gate": "passed"}
    assert back.tensors.keys() == recipe.tensors.keys()
    precision = Precision.parse(name)
    for layer, profile in zip(back.layers, LAYERS, strict=True):
        assert (layer.type, layer.shape, layer.channel_axis) == (profile.type, profile.shape, profile.channel_axis)
        assert (layer.groups, layer.tie_group, layer.width) == (profile.groups, profile.tie_group, precision)
        expected = fake_quantize(weights()[layer.name], precision, layer.channel_axis)
        values = back.values(layer)
        assert values.dtype == np.float32 and values.tobytes() == expected.tobytes()
        assert recipe.values(recipe.layers[0]).tobytes() == back.values(back.layers[0]).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (3, 8), elements=st.floats(-60000, 60000, width=32)),
    st.sampled_from(NAMES),
    st.sampled_from([0, 1, None]),
)
def test_any_weight_is_kept_bit_for_bit(weight, name, axis):
    precision = Precision.parse(name)
    profile = ModelProfile("one", (LayerProfile("w", "Linear", (3, 8), 0.0, channel_axis=axis),))
    try:
        expected = fake_quantize(weight, precision, axis)
    except PrecisionError as error:
        with pytest.raises(PrecisionError, match="layer 'w': "):
            build_recipe(profile, [name], lambda _: weight, "", {}, {})
        assert str(error)
        return
    recipe = build_recipe(profile, [name], lambda _: weight, "", {}, {})
    assert recipe.values(recipe.layers[0]).tobytes() == expected.tobytes()


def test_the_promise_is_what_the_search_counts():
    menu = Menu.parse([name for name in NAMES if name != "INT8-channel-a8"])
    problem = compile_problem(PROFILE, menu)
    rng = generator_for(0, 1, "test allocations")
    for _ in range(50):
        units = len(problem.units)
        allocation = problem.repair_one(rng.integers(0, len(menu), units).astype(np.int8))
        recipe = made(problem.unfold(allocation))
        bits = int(problem.cost.table[np.arange(units), allocation].sum()) / BIT_UNITS
        assert recipe.promise.bits == bits + PROFILE.constant_bits
        effective = bits / PROFILE.parameters
        assert recipe.promise.effective_bits == pytest.approx(effective)
        full = 32 * PROFILE.parameters + PROFILE.constant_bits
        assert recipe.promise.compression == pytest.approx(full / recipe.promise.bits)
        assert recipe.promise.bytes == recipe.promise.bits / 8
        stored = sum(a.size * 8 * a.dtype.itemsize for a in recipe.tensors.values())  # codes one a byte
        assert stored >= bits


def test_the_text_alone_can_be_read(written):
    written.with_suffix(".safetensors").unlink()
    recipe = read_recipe(written, tensors=False)
    assert [layer.precision for layer in recipe.layers] == [
        "INT4-g4-asym",
        "INT8-channel",
        "FP8-channel",
        "BF16",
        "FP16",
    ]
    assert not recipe.tensors
    with pytest.raises(InputError, match=r"recipe\.safetensors: does not exist; the recipe's numbers lie beside it"):
        read_recipe(written)


def test_other_numbers_are_refused(written):
    write_recipe(
        made(["INT4-g4-asym", "INT8-channel", "FP8-channel", "BF16", "FP16"], seed=1), written.parent / "b.json"
    )
    (written.parent / "b.safetensors").rename(written.with_suffix(".safetensors"))
    with pytest.raises(InputError, match=r"holds other numbers than its recipe was written with; export both anew"):
        read_recipe(written)


@pytest.mark.parametrize("cut", [0, 5, 40, 200])
def test_truncated_numbers_are_refused(written, cut):
    content = written.with_suffix(".safetensors").read_bytes()[:cut]
    written.with_suffix(".safetensors").write_bytes(content)
    with pytest.raises(InputError, match="holds other numbers"):
        read_recipe(written)
    changed(written, lambda data: data.update(tensors_sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(InputError, match=r"recipe\.safetensors: cannot be read"):
        read_recipe(written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("embed:codes"), r"embed:codes is missing; INT4-g4-asym needs uint8\(10, 8\)"),
        (lambda t: t.pop("embed:zero_points"), r"embed:zero_points is missing"),
        (lambda t: t.pop("norm:values"), r"norm:values is missing; BF16 needs uint16\(8,\)"),
        (lambda t: t.update({"conv:codes": t["conv:codes"].reshape(4, 8)}), r"conv:codes is int8\(4, 8\)"),
        (lambda t: t.update({"conv:codes": t["conv:codes"].astype(np.int16)}), r"conv:codes is int16"),
        (lambda t: t.update({"conv:scales": t["conv:scales"].astype(np.float32)}), r"conv:scales is float32\(4,\)"),
        (lambda t: t.update({"up:scales": t["up:scales"][:3]}), r"up:scales is float16\(3,\); FP8-channel needs"),
        (lambda t: t.update({"head:values": t["head:values"].astype(np.float32)}), r"head:values is float32\(3, 8\)"),
        (
            lambda t: t.update({"conv:scales": t["conv:scales"] * np.float16("nan")}),
            r"conv:scales has scales that are not finite and positive",
        ),
        (
            lambda t: t.update({"conv:scales": -t["conv:scales"]}),
            r"conv:scales has scales that are not finite and positive",
        ),
        (lambda t: t.update({"embed:codes": t["embed:codes"] + np.uint8(16)}), r"embed:codes .*outside 0 … 15"),
        (
            lambda t: t.update({"embed:zero_points": t["embed:zero_points"] | np.uint8(16)}),
            r"embed:zero_points .*0 … 15",
        ),
        (lambda t: t.update({"conv:codes": np.full_like(t["conv:codes"], -128)}), r"conv:codes .*outside -127 … 127"),
        (lambda t: t.update({"up:codes": np.full_like(t["up:codes"], 0x7F)}), r"up:codes .*no number"),
        (lambda t: t.update({"more:codes": t["embed:codes"]}), r"more:codes belongs to no layer"),
    ],
)
def test_numbers_that_are_no_recipes_are_refused(written, change, message):
    with_tensors(written, change)
    with pytest.raises(InputError, match=message) as fault:
        read_recipe(written)
    assert "recipe.safetensors" in str(fault.value)


def layer(index, **values):
    return lambda data: data["layers"][index].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(extra=1), "extra"),
        (lambda data: data.pop("promise"), "promise"),
        (lambda data: data.update(schema="evoquant.profile"), "schema"),
        (lambda data: data.update(version=2), "version"),
        (lambda data: data.update(layers=[]), "layers"),
        (lambda data: data.update(constant_bits=-1), "constant_bits"),
        (lambda data: data["layers"].append(data["layers"][0]), r"the layer 'embed' stands twice"),
        (layer(1, bits=4), "bits"),
        (layer(1, precision="INT8"), "INT8 is nominal"),
        (layer(1, precision="INT9-channel"), "unknown precision 'INT9-channel'"),
        (layer(0, shape=[0, 8]), "shape"),
        (layer(0, channel_axis=2), r"layer 'embed'.*channel_axis is 2"),
        (layer(0, channel_axis=-1), r"layer 'embed'.*channel_axis is -1"),
        (layer(0, precision="INT4-g3-asym", shape=[10, 8]), r"layer 'embed'.*groups of 3"),
        (layer(0, granularity="channel"), r"layer 'embed'.*granularity is 'channel'.*'group'"),
        (lambda data: data.update(quantizer="0"), "quantizer version 0"),
        (lambda data: data["promise"].update(effective_bits="many"), "effective_bits"),
        (lambda data: data["promise"].update(bits=7), r"promises 7 bits, but its layers come to \d+"),
    ],
)
def test_texts_that_are_no_recipes_are_refused(written, change, message):
    changed(written, change)
    with pytest.raises(InputError, match=message) as fault:
        read_recipe(written, tensors=False)
    assert "recipe.json" in str(fault.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"{}"])
def test_what_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.json"):
        read_recipe(tmp_path / "recipe.json")


def test_a_missing_file_and_another_ending_are_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.json"):
        read_recipe(tmp_path / "none.json")
    with pytest.raises(
        InputError, match=r"a recipe is a \.json file; its numbers go into recipe\.safetensors beside it"
    ):
        write_recipe(made(["FP32"] * len(LAYERS)), tmp_path / "recipe.yaml")


@pytest.mark.parametrize(("width", "message"), [("INT4", "INT4 is nominal"), ("INT4-g3", "groups of 3")])
def test_a_layer_that_cannot_be_had_at_its_width_is_named(width, message):
    with pytest.raises(PrecisionError, match=rf"layer 'conv': .*{message}"):
        made(["FP32", width, "FP32", "FP32", "FP32"])


def test_weights_that_a_precision_cannot_hold_are_named():
    profile = ModelProfile("one", (LayerProfile("w", "Linear", (2, 2), 0.0),))
    with pytest.raises(PrecisionError, match=r"layer 'w': FP16: a weight of 70000"):
        build_recipe(profile, ["FP16"], lambda _: np.full((2, 2), 7e4, dtype=np.float32), "", {}, {})


def test_the_same_recipe_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_recipe(made(["INT4-g4-asym", "INT8-channel", "FP8-channel", "BF16", "FP16"]), tmp_path / f"{name}.json")
    for suffix in (".json", ".safetensors"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
