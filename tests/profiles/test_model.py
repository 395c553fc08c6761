import json
import math
import pickle
import re
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evoquant.errors import ProfileError
from evoquant.profiles.builtin import builtin_profile
from evoquant.profiles.model import (
    LayerProfile,
    ModelProfile,
    load_profile,
    profile_from_dict,
    profile_to_dict,
    profile_to_json,
)
from evoquant.quantization.precision import Precision

PRECISIONS = ("INT2", "INT4-channel", "INT8-g32", "FP16", "FP32")
POSITIVE = st.floats(0, 1e300)
PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")  # what str.isprintable lets pass
NAME = st.text(PRINTABLE, min_size=1, max_size=12)
PLAIN = st.dictionaries(st.text(max_size=6), st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=6), max_size=3)


def per_precision(values):
    return st.dictionaries(st.sampled_from(PRECISIONS), values, max_size=len(PRECISIONS))


@st.composite
def layers(draw, name):
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    return LayerProfile(
        name=name,
        type=draw(st.sampled_from(["Linear", "Conv", "LayerNorm"]) | NAME),
        shape=shape,
        position=draw(st.floats(0, 1)),
        channel_axis=draw(st.none() | st.integers(0, len(shape) - 1)),
        weight_mean=draw(st.floats(-1e300, 1e300)),
        weight_std=draw(POSITIVE),
        weight_range=draw(POSITIVE),
        activation_range=draw(POSITIVE),
        gradient_sensitivity=draw(st.floats(0, 1)),
        loss=draw(per_precision(st.floats(-1, 1))),
        fisher=draw(per_precision(POSITIVE)),
        weight_error=draw(per_precision(POSITIVE)),
        allowed=draw(st.none() | st.lists(st.sampled_from(PRECISIONS), max_size=3).map(tuple)),
        tie_group=draw(st.none() | NAME.map("a group named {}".format)),
        fan_in=draw(st.none() | st.integers(1, 10**6)),
        groups=draw(st.integers(1, 8)),
    )


@st.composite
def profiles(draw):
    names = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    return ModelProfile(
        draw(NAME),
        tuple(draw(layers(name)) for name in names),
        constant_bits=draw(st.integers(0, 2**60)),
        passes=draw(st.dictionaries(NAME, POSITIVE, max_size=3)),
        provenance=draw(PLAIN),
    )


def plain():
    """A small valid file."""
    return {
        "schema": "evoquant.profile",
        "version": 1,
        "name": "mine",
        "layers": [
            {"name": "conv1", "type": "Conv", "shape": [16, 3, 3, 3], "position": 0, "loss": {"INT4": 0.05}},
            {"name": "fc", "type": "Classifier", "shape": [10, 64], "position": 1},
        ],
    }


@settings(max_examples=40)
@given(profiles())
def test_json_round_trip(profile):
    again = profile_from_dict(json.loads(profile_to_json(profile)))
    assert again == profile
    assert again.digest == profile.digest
    assert profile_to_json(again) == profile_to_json(profile)


@settings(max_examples=40)
@given(profiles())
def test_profiles_travel_to_workers(profile):
    assert pickle.loads(pickle.dumps(profile)) == profile


@settings(max_examples=40)
@given(profiles(), st.sampled_from(["weight_std", "position", "groups", "name"]))
def test_the_digest_follows_the_content(profile, key):
    first = profile.layers[0]
    new = {"weight_std": first.weight_std + 1 + first.weight_std, "position": 1 - first.position, "groups": 99}
    changed = replace(
        profile, layers=(replace(first, **{key: new.get(key, "a name longer than any")}), *profile.layers[1:])
    )
    assert (changed.digest == profile.digest) == (changed == profile)


def test_a_file_written_by_hand(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(plain()))
    profile = load_profile(path)
    conv, fc = profile.layers
    assert (profile.name, profile.parameters, conv.parameters, fc.parameters) == ("mine", 432 + 640, 432, 640)
    assert conv.loss == {"INT4": 0.05}
    assert fc == LayerProfile("fc", "Classifier", (10, 64), 1.0)
    assert (profile.constant_bits, dict(profile.passes), dict(profile.provenance)) == (0, {}, {})


def test_a_tensor_of_one_slice_stays_one(tmp_path):
    data = plain()
    data["layers"][1]["channel_axis"] = None
    profile = profile_from_dict(data)
    assert profile.layers[1].channel_axis is None
    assert profile_from_dict(profile_to_dict(profile)) == profile


@pytest.mark.parametrize("name", ["seed/train", "seed/valid", "seed/test", "seed-additive/test"])
def test_built_in_profiles_round_trip(name):
    profile = builtin_profile(name)
    assert profile_from_dict(json.loads(profile_to_json(profile))) == profile


def test_profiles_are_read_only():
    profile = profile_from_dict(plain())
    with pytest.raises(TypeError):
        profile.layers[0].loss["INT4"] = 0.0
    with pytest.raises(TypeError):
        profile.passes["loss"] = 1.0
    with pytest.raises(FrozenInstanceError):
        profile.name = "x"


def test_the_givers_dictionaries_stay_theirs():
    loss = {"INT4": 0.1}
    layer = LayerProfile("a", "Linear", (2, 2), 0.0, loss=loss)
    loss["INT4"] = 0.9
    assert layer.loss["INT4"] == 0.1


def test_allows_by_list_and_by_shape():
    layer = LayerProfile("a", "Linear", (4, 96), 0.0, allowed=("INT4-g32", "INT4-g128", "FP16"))
    allowed = [name for name in ("INT4-g32", "INT4-g128", "INT8", "FP16") if layer.allows(Precision.parse(name))]
    assert allowed == ["INT4-g32", "FP16"]
    assert replace(layer, allowed=None).allows(Precision.parse("INT8"))


def broken(change):
    data = plain()
    change(data)
    return data


def second_layer(**changes):
    return lambda data: data["layers"][1].update(changes)


FAULTS = [
    (lambda d: d.pop("name"), "name: this key is required"),
    (lambda d: d.pop("layers"), "layers: this key is required"),
    (lambda d: d.update(layers=[]), "layers: .*at least 1 item"),
    (lambda d: d.update(schema="other"), "schema: .*evoquant.profile.*got 'other'"),
    (lambda d: d.update(version=2), "version: .*got 2"),
    (lambda d: d.update(constant_bits=-1), "constant_bits: .*got -1"),
    (lambda d: d.update(provenence={}), r"provenence: unknown key\. Did you mean 'provenance'\?"),
    (lambda d: d["layers"][1].pop("shape"), r"layers\.1\.shape: this key is required"),
    (second_layer(wieght_std=1.0), r"layers\.1\.wieght_std: unknown key\. Did you mean 'weight_std'\?"),
    (second_layer(name=""), r"layers\.1\.name: "),
    (second_layer(name="conv1"), "two layers are called 'conv1'; names are unique"),
    (second_layer(name="a\x1b[2J"), r"layers\.1\.name: a name has printable characters only"),
    (second_layer(tie_group="conv1"), "layer 'fc': the tie group 'conv1' has the name of a layer; rename the group"),
    (second_layer(shape=[]), r"layers\.1\.shape: "),
    (second_layer(shape=[10, 0]), r"layers\.1\.shape\.1: .*got 0"),
    (second_layer(shape=[2**30, 2**30]), r"layers\.1: layer 'fc' has more than 2\^53 weights"),
    (second_layer(channel_axis=2), r"layer 'fc': channel_axis 2 is no axis of a shape of 2 axes; .* use null"),
    (second_layer(channel_axis=-1), "layer 'fc': channel_axis -1 is no axis"),
    (second_layer(position=1.5), r"layers\.1\.position: .*got 1\.5"),
    (second_layer(weight_std=-0.1), r"layers\.1\.weight_std: .*got -0\.1"),
    (second_layer(weight_mean="wide"), r"layers\.1\.weight_mean: .*got 'wide'"),
    (second_layer(weight_mean=math.nan), r"layers\.1\.weight_mean: .*got nan"),
    (second_layer(fan_in=0), r"layers\.1\.fan_in: .*got 0"),
    (second_layer(groups=0), r"layers\.1\.groups: .*got 0"),
    (second_layer(loss={"INT4": 1.5}), r"layers\.1\.loss\.INT4: .*got 1\.5"),
    (second_layer(loss={"INT99": 0.5}), r"layers\.1\.loss: unknown precision 'INT99'; precisions are written like"),
    (second_layer(fisher={"INT4": -1}), r"layers\.1\.fisher\.INT4: .*got -1"),
    (second_layer(allowed=["int4"]), r"layers\.1\.allowed: unknown precision 'int4'"),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_every_fault_names_file_layer_and_key(tmp_path, change, fault):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(broken(change)).replace("NaN", '"NaN"'))
    expected = fault.replace("got nan", "got 'NaN'")
    with pytest.raises(ProfileError, match=expected) as raised:
        load_profile(path)
    assert all(line.startswith(f"{path}: ") for line in str(raised.value).splitlines())


def test_several_faults_have_a_line_each():
    data = plain()
    data["layers"][1] |= {"position": 2, "groups": 0}
    with pytest.raises(ProfileError) as raised:
        profile_from_dict(data, "p.json")
    assert re.findall(r"^p\.json: 'fc': (\S+):", str(raised.value), re.M) == ["layers.1.position", "layers.1.groups"]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"schema": "evoquant.profile"}', "\x00", '{"layers": NaN}'])
def test_files_that_are_no_profile(tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"odd\.json: "):
        load_profile(path)


@given(st.sampled_from(sorted(plain())), st.none() | st.integers() | st.text() | st.lists(st.none() | PLAIN))
def test_no_plain_data_ends_in_another_error(key, value):
    data = plain() | {key: value}
    try:
        assert profile_from_dict(data).layers
    except ProfileError as error:
        assert str(error).startswith("profile: ")


def test_a_fault_names_its_layer(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(broken(second_layer(name="conv7\n", position=2.0))))
    with pytest.raises(ProfileError, match=r"mine\.json: 'conv7\\n': layers\.1\.position: Input should be less than"):
        load_profile(path)
