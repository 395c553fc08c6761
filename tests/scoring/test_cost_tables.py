"""Costs by name: bytes as files have them, bit operations, tables of one's own device and what they refuse."""

import json

import numpy as np
import pytest

from evoquant.campaign.build_scoring import maker_of, named_cost
from evoquant.campaign.config import config_from_dict, load_config
from evoquant.errors import ConfigError, InputError
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_from_dict, profile_to_dict
from evoquant.quantization.precision import Menu, Precision
from evoquant.scoring.bit_operations import bit_operations
from evoquant.scoring.cost import bits_cost
from evoquant.scoring.cost_file import TableCost, read_table
from evoquant.scoring.packed_bytes import PACKINGS, PackedBytes
from evoquant.testing import check_cost
from evoquant.testing.costs import check_additive, check_menu, check_reference, check_repeats, check_table

MENU = Menu.parse(["INT4-channel", "INT8-channel", "FP32"])
VALUES = {"INT4-channel": 10, "INT8-channel": 20, "FP32": 80}


@pytest.fixture
def profile():
    layers = (
        LayerProfile("first", "Linear", (7, 5), 0.0, macs=70),
        LayerProfile("second", "Linear", (3, 7), 1.0, macs=42),
    )
    return ModelProfile("two", layers, constant_bits=320)


def each(profile):
    return [(i,) for i in range(len(profile.layers))]


def csv_text(values=VALUES, layers=("first", "second"), more=""):
    lines = [f"{layer},{width},{value}" for layer in layers for width, value in values.items()]
    return "\n".join(["layer,width,value", *lines]) + "\n" + more


def plain_table(**changes):
    layers = [{"name": name, "values": dict(VALUES)} for name in ("first", "second")]
    return {"schema": "evoquant.cost_table", "version": 1, "unit": "ns", "layers": layers, **changes}


@pytest.mark.parametrize("target", list(PACKINGS))
def test_bytes_keep_the_protocol(target):
    check_cost(PackedBytes(target), menu=Menu.parse(["INT3-channel", "INT4-g32-asym", "FP16", "FP32"]))


def test_bytes_are_whole_and_scales_and_the_rest_are_counted(profile):
    cost = PackedBytes()(profile, MENU, each(profile))
    assert cost.table.tolist() == [[18 + 14, 35 + 14, 140], [11 + 6, 21 + 6, 84]]  # 35 codes of 4 bits: 17.5 bytes
    assert (cost.constant, cost.reference) == (40, 140 + 84 + 40)


@pytest.mark.parametrize(
    ("target", "width", "expected"),
    [
        ("openvino", "INT3-channel", 5 * 3 + 14 + 3),  # 8 codes in three bytes; symmetric ones have a zero point
        ("openvino", "INT2-channel", 9 + 14 + 1),
        ("openvino", "INT4-channel-asym", 18 + 14 + 4),
        ("onnx", "INT4-channel-asym", 18 + 14 + 4),
        ("compressed-tensors", "INT4-channel", 7 * 4 + 14),  # each row from a word of its own
        ("compressed-tensors", "FP16", 140),  # which it does not take: FP32
        ("gguf", "FP32", 140),
    ],
)
def test_bytes_as_a_target_packs_them(profile, target, width, expected):
    cost = PackedBytes(target)(profile, Menu.parse([width]), each(profile))
    assert cost.table[0, 0] == expected


def test_a_target_has_no_nominal_widths(profile):
    with pytest.raises(InputError, match="INT4 on the menu are nominal"):
        PackedBytes("onnx")(profile, Menu.parse(["INT4", "FP32"]), each(profile))


def test_bit_operations(profile):
    cost = bit_operations(profile, Menu.parse(["INT4-channel", "INT8-channel-a8", "FP32"]), [(0, 1)])
    assert cost.table.tolist() == [[112 * 4 * 32, 112 * 8 * 8, 112 * 32 * 32]]
    assert cost.reference == 112 * 32 * 32


def test_bit_operations_need_macs(profile):
    bare = ModelProfile("bare", (LayerProfile("first", "Linear", (7, 5), 0.0),))
    with pytest.raises(InputError, match="layer 'first' says no `macs`"):
        bit_operations(bare, MENU, [(0,)])


def test_macs_are_kept_and_leave_the_digest_alone(profile):
    plain = profile_to_dict(profile)
    assert [layer["macs"] for layer in plain["layers"]] == [70, 42]
    assert profile_from_dict(plain) == profile
    for layer in plain["layers"]:
        del layer["macs"]
    assert profile_from_dict(plain).digest == profile.digest


def test_a_table_of_ones_own_device(profile, tmp_path):
    path = tmp_path / "phone.csv"
    path.write_text(csv_text(more=",,7\n"))
    cost = TableCost(read_table(path))(profile, MENU, [(0, 1)])
    assert (cost.name, cost.table.tolist(), cost.constant) == ("nanoseconds", [[20, 40, 160]], 7)
    assert cost.reference == 167
    path.write_text(csv_text({width: value / 1000 for width, value in VALUES.items()}))
    assert TableCost(read_table(path, "us"))(profile, MENU, [(0, 1)]).table.tolist() == [[20, 40, 160]]
    path.write_text(csv_text())
    assert TableCost(read_table(path, "joules"))(profile, MENU, [(0, 1)]).name == "joules"
    as_json = tmp_path / "phone.json"
    as_json.write_text(json.dumps(plain_table(constant=7)))
    assert np.array_equal(TableCost(read_table(as_json))(profile, MENU, [(0, 1)]).table, cost.table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no layers"),
        ("layer;width;value\n", "line 1: the columns are layer,width,value"),
        ("layer,width,value\nfirst,INT4-channel\n", "line 2: 2 cells"),
        ("layer,width,value\nfirst,INT4-chanel,3\n", "unknown precision 'INT4-chanel'"),
        ("layer,width,value\nfirst,FP32,-3\n", "a number from 0 .got '-3'"),
        ("layer,width,value\nfirst,FP32,nan\n", "a number from 0"),
        ("layer,width,value\nfirst,FP32,1e40\n", "beyond 2.62"),
        ("layer,width,value\nfirst,FP32,3\nfirst,FP32,4\n", "'first' at FP32 stands twice"),
        ("layer,width,value\n,,3\n,,4\n", "what no width applies to stands twice"),
        (csv_text(layers=("first",)), "a table of another model than 'two': no layer 'second'"),
        (csv_text(layers=("first", "second", "third")), "the model has no layer 'third'"),
        (csv_text({"INT4-channel": 1, "FP32": 2}), "layer 'first': no value for INT8-channel, which is on the menu"),
        (csv_text({"INT4-channel": 1, "INT8-channel": 2}), "no value for FP32, from which compression counts"),
    ],
)
def test_what_is_no_table_is_told(profile, tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        TableCost(read_table(path))(profile, MENU, each(profile))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "bananas!"}, "unit"),
        ({"layers": []}, "layers"),
        ({"version": 2}, "version"),
        ({"nois": 3}, "nois: unknown key. Did you mean 'noise'"),
        (
            {"layers": [{"name": "first", "shape": [7, 6], "values": VALUES}, {"name": "second", "values": VALUES}]},
            "7, 6",
        ),
        ({"layers": [{"name": "first", "values": {"INT5-chanel": 1}}]}, "unknown precision"),
        ({"layers": [{"name": "first", "values": VALUES}] * 2}, "two layers are called 'first'"),
        ({"unit": "joules", "constant": 0.5}, "not whole"),
    ],
)
def test_what_is_no_json_table_is_told(profile, tmp_path, changes, message):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(plain_table(**changes)))
    with pytest.raises(InputError, match=message):
        TableCost(read_table(path))(profile, MENU, each(profile))


@pytest.mark.parametrize("noisy", [{"noise": 100}, {"noise": 20, "span": 30}, {}])
def test_a_table_whose_differences_drown_in_noise_is_refused(profile, tmp_path, noisy):
    path = tmp_path / "noisy.json"
    table = plain_table(**noisy)
    if not noisy:  # of its cells, whose squares add up
        for layer in table["layers"]:
            layer["spread"] = dict.fromkeys(VALUES, 60)
    path.write_text(json.dumps(table))
    with pytest.raises(InputError, match=r"no latency signal here.*less than twice the noise"):
        TableCost(read_table(path))(profile, MENU, each(profile))
    quiet = TableCost(read_table(path), refuse=False)
    assert quiet(profile, MENU, each(profile)).table.shape == (2, 3)


def test_a_table_in_which_layers_take_nothing_is_refused(profile, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(csv_text(dict.fromkeys(VALUES, 0), more=",,500\n"))
    with pytest.raises(
        InputError, match=r"t\.csv: at FP32 the layers take nothing beside the constant part, 500 .*--batch"
    ):
        TableCost(read_table(path), refuse=False)(profile, MENU, each(profile))


def test_tables_keep_the_protocol(tmp_path, profile):
    """But for models that they are not of."""
    path = tmp_path / "phone.csv"
    path.write_text(csv_text(more=",,7\n"))
    maker = TableCost(read_table(path))
    for check in (check_table, check_repeats, check_additive, check_menu, check_reference):
        check(maker, profile, MENU)


def config(**cost):
    return {"name": "own", "models": {"train": ["seed/train"], "valid": [], "test": []}, "cost": cost}


def test_bits_are_what_no_cost_is():
    plain = config_from_dict({"name": "own"}, "own.yaml")
    named = config_from_dict({"name": "own", "cost": {"kind": "bits"}}, "own.yaml")
    assert named.to_dict() == plain.to_dict()
    assert "cost" not in plain.to_dict()
    assert named_cost("bits") is bits_cost


def test_a_table_is_part_of_the_hash_and_may_not_change(tmp_path):
    (tmp_path / "phone.csv").write_text(csv_text())
    file = tmp_path / "own.yaml"
    file.write_text("cost: {kind: table, file: phone.csv}\n")
    before = load_config(file)[0]
    assert before.cost.file == str(tmp_path / "phone.csv")
    (tmp_path / "phone.csv").write_text(csv_text({**VALUES, "FP32": 81}))
    assert load_config(file)[0].hash() != before.hash()
    with pytest.raises(ConfigError, match=r"cost\.file: .*another file than when the campaign was made"):
        maker_of(before.cost)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({"kind": "byte"}, "cost.kind: unknown kind 'byte'. Did you mean 'bytes'"),
        ({"kind": "bytes", "target": "onx"}, "Did you mean 'onnx'"),
        ({"kind": "bytes", "target": "torchao"}, "how torchao packs is not known to the byte"),
        ({"kind": "table", "file": "/nowhere.csv"}, "/nowhere.csv: does not exist"),
        ({"kind": "table"}, "file: this key is required"),
        ({"kind": "bit_operations", "target": "onnx"}, "unknown key"),
    ],
)
def test_a_cost_that_is_wrong_is_told(cost, message):
    with pytest.raises(ConfigError) as caught:
        config_from_dict(config(**cost), "own.yaml")
    assert message in str(caught.value)


def test_nothing_is_cheaper_than_it_can_be(profile):
    """A target packs no tighter than bits."""
    for target in PACKINGS:
        for name in ("INT4-channel", "INT8-channel", "FP32"):
            cost = PackedBytes(target)(profile, Menu.parse([name]), each(profile))
            for row, layer in zip(cost.table, profile.layers, strict=True):
                assert 8 * row[0] >= Precision.parse(name).bits(layer.shape, layer.channel_axis)
