"""What targets can express: every fact that running them showed, remedies that help, fused layers, narrowing."""

import re

import pytest

from evoquant.errors import InputError
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.narrowing import constrained
from evoquant.profiles.targets import TARGETS, fused_groups, target_named
from evoquant.quantization.precision import Menu, Precision
from evoquant.scoring.problem import compile_problem

Q = "model.layers.0.self_attn.q_proj"


def layer(kind="Linear", shape=(64, 128), name=Q, axis=0, groups=1, **more):
    return LayerProfile(name=name, type=kind, shape=shape, position=0, channel_axis=axis, groups=groups, **more)


LINEAR, EMBEDDING = layer(), layer("Embedding", (96, 64), "model.embed_tokens")
CONV, DEPTHWISE = layer("Conv", (16, 8, 3, 3)), layer("Conv", (32, 1, 3, 3), groups=32)
CONV1D, TRANSPOSED = layer("Conv", (16, 8, 4)), layer("Conv", (8, 16, 3, 3), axis=1)
NORM = layer("LayerNorm", (64,), "model.norm", axis=None)
TORCH_GRU, CELL = layer("Recurrent", (15, 6), "rnn.weight_ih_l0"), layer("Recurrent", (48, 16), "cell.weight_ih")
ONNX_LSTM, FLIPPED = layer("Recurrent", (1, 32, 8), "lstm.W", 1), layer(shape=(128, 64), axis=1)

TAKEN = [
    ("onnx", LINEAR, "INT2-g32 INT4-tensor INT8-channel INT4-g128-asym INT4-channel-mse FP8-g32 FP16 BF16 FP32"),
    ("onnx", DEPTHWISE, "INT4-channel INT4-g9 INT2-tensor"),
    ("onnx", CELL, "INT4-channel"),
    ("onnx", TORCH_GRU, "INT8-channel FP16"),
    ("openvino", TORCH_GRU, "INT8-channel"),
    ("onnx", ONNX_LSTM, "INT4-g8"),
    ("onnx", FLIPPED, "INT4-g32"),
    ("onnx", NORM, "INT8-channel FP16"),
    ("onnx-matmulnbits", CONV, "INT4-channel"),
    ("openvino", CONV, "INT2-channel INT3-g9 INT4-g9-asym INT6-tensor NF4-channel FP8-channel BF16"),
    ("compressed-tensors", LINEAR, "INT2-channel INT3-g32 INT4-g128 INT5-channel INT8-tensor FP8-channel FP32"),
    ("compressed-tensors", EMBEDDING, "INT8-channel FP32"),
    ("compressed-tensors", CONV, "FP32"),
    ("torchao", LINEAR, "INT4-g32 INT7-channel INT8-channel INT8-g32 INT8-tensor FP8-tensor FP8-g32 FP32"),
    ("torchao", CONV, "INT8-channel FP32"),
    ("gguf", LINEAR, "INT8-g32 INT4-g32 INT4-g32-mse FP16 BF16 FP32"),
    ("gguf", NORM, "FP32"),
    ("gguf", layer(name="lm_head"), "INT4-g32 FP32"),
    ("modelopt", LINEAR, "INT4-g32 INT4-g128 INT8-channel FP8-tensor FP32"),
    ("tensorrt", CONV, "INT8-channel FP8-tensor FP16"),
    ("tensorrt", LINEAR, "INT4-g64 INT4-g128 INT8-tensor FP8-channel BF16"),
    ("executorch", EMBEDDING, "INT2-channel INT4-g32 INT8-channel FP32"),
    ("executorch", LINEAR, "INT4-g32-a8 INT4-channel-a8 INT8-channel-a8 FP32"),
    ("executorch", CONV, "FP32"),
    ("coreml", layer("Conv", (64, 16, 3, 3)), "INT4-channel INT8-channel-asym INT4-g18 FP16"),
    ("coreml", LINEAR, "INT4-g32 INT8-tensor"),
]
REFUSED = [
    ("onnx", LINEAR, "INT4 INT3-channel INT6-g32 NF4-g32 INT8-channel-a8 INT4-g48"),
    ("tensorrt", TORCH_GRU, "INT8-channel FP16"),
    ("openvino", LINEAR, "INT4 INT5-channel INT7-g32-asym INT4-g48 INT8-channel-a8"),
    ("compressed-tensors", LINEAR, "INT4 INT4-g48 INT4-g32-asym NF4-g32 FP8-g32 FP16 BF16 INT8-channel-a8"),
    ("compressed-tensors", CONV, "INT8-channel FP16"),
    ("compressed-tensors", NORM, "INT8-channel"),
    ("compressed-tensors", EMBEDDING, "INT4-g32 INT2-channel"),
    ("compressed-tensors", FLIPPED, "INT8-channel"),
    ("torchao", LINEAR, "INT8-channel-asym NF4-g32 INT8-g48 FP16 BF16"),
    ("torchao", CONV, "FP8-channel INT8-tensor INT8-g36 INT4-channel"),
    ("torchao", DEPTHWISE, "INT8-channel"),
    ("torchao", CONV1D, "INT8-channel"),
    ("torchao", TRANSPOSED, "INT8-channel"),
    ("torchao", NORM, "INT8-channel FP16"),
    ("gguf", LINEAR, "INT4-channel INT8-g128 INT8-channel FP8-channel INT2-g32 INT4-g32-asym NF4-g32"),
    ("gguf", layer(shape=(64, 48)), "INT4-g16 INT8-g16"),
    ("gguf", NORM, "FP16 BF16"),
    ("gguf", layer("Conv", (16, 8, 3, 3), "features.0"), "FP32 FP16 INT8-channel"),
    ("gguf", layer(name="features.norm"), "FP32"),
    ("gguf", layer(name="embed_tokens"), "FP32"),
    ("gguf", layer(name="layers.0.mlp.up_proj"), "INT8-g32 FP32"),
    ("gguf", layer(name="blk.0.attn_q"), "FP32"),
    ("gguf", layer(name="model.layers.0.mlp.up_proj.weight"), "FP32"),
    ("gguf", layer(name="vision.model.layers.0.mlp.up_proj"), "FP32"),
    ("modelopt", LINEAR, "INT2-channel INT3-g32 INT4-channel FP8-g32 FP8-channel INT8-g32 FP16 INT8-channel-asym"),
    ("modelopt", layer(shape=(63, 128)), "INT4-g32"),
    ("modelopt", layer(shape=(1, 128)), "INT8-channel"),
    ("modelopt", CONV, "INT4-g8 INT8-channel"),
    (
        "tensorrt",
        LINEAR,
        "INT4-channel INT4-g32 INT8-g64 FP8-g64 INT2-channel INT4-g32-asym NF4-g32 INT3-channel INT8-channel-a8",
    ),
    (
        "executorch",
        LINEAR,
        "INT4-g16-a8 INT8-g32-a8 INT4-g32 INT8-channel INT2-g32-a8 FP8-tensor INT4-channel-mse-a8 FP16 INT4-tensor-a8",
    ),
    ("executorch", EMBEDDING, "INT4-channel-a8 INT3-channel"),
    ("executorch", CONV, "INT4-channel-a8 INT8-channel INT8-channel-a8"),
    ("executorch", NORM, "INT8-channel"),
    ("coreml", NORM, "INT8-channel"),
    ("coreml", TORCH_GRU, "INT8-channel"),
    ("coreml", layer("Conv", (64, 16, 3, 3)), "INT4-g16 INT2-channel FP8-tensor NF4-g32"),
    ("coreml", LINEAR, "BF16 INT4-channel-mse INT3-g32"),
]


def spoken(value):
    return value if isinstance(value, str) else f"{value.type}{value.shape}"


def each(cases):
    return [(target, one, name) for target, one, names in cases for name in names.split()]


@pytest.mark.parametrize(("target", "one", "name"), each(TAKEN), ids=spoken)
def test_taken(target, one, name):
    assert TARGETS[target].fault(one, Precision.parse(name)) is None


@pytest.mark.parametrize(("target", "one", "name"), each(REFUSED), ids=spoken)
def test_refused_and_whoever_follows_the_remedies_arrives(target, one, name):
    stack, followed = TARGETS[target], [name]
    fault = stack.fault(one, Precision.parse(name))
    assert fault is not None
    if "choose the target" in fault:
        return
    while fault is not None:
        followed.append(re.search(r"choose ([\w-]+)", fault)[1])
        assert len(followed) < 6, followed
        fault = stack.fault(one, Precision.parse(followed[-1]))


def test_what_is_stored_in_more_bits_is_exported_but_not_searched_for():
    four, eight = Precision.parse("INT4-g32"), Precision.parse("INT8-g32")
    stack = TARGETS["torchao"]
    assert stack.fault(LINEAR, four) is None
    assert "stored in 8" in stack.excludes(LINEAR, four)
    assert any("stored in 8" in doubt for doubt in stack.doubts(LINEAR, four))
    assert stack.excludes(LINEAR, eight) is None and not stack.doubts(LINEAR, eight)


def test_tied_weights_are_not_quantized_for_transformers():
    tied, eight = layer("Embedding", (96, 64), "model.embed_tokens", holders=2), Precision.parse("INT8-channel")
    assert "tied" in TARGETS["compressed-tensors"].fault(tied, eight)
    assert TARGETS["compressed-tensors"].fault(tied, Precision.parse("FP32")) is None
    assert TARGETS["torchao"].fault(tied, eight) is None


@pytest.mark.parametrize("target", ["compressed-tensors", "torchao", "modelopt"])
def test_the_input_projection_of_pytorch_s_own_attention_stays_as_it_is(target):
    projection = layer("Attention", (96, 32), "attention.in_proj")
    mamba = layer("Linear", (96, 32), "mixer.in_proj")
    stack = TARGETS[target]
    assert "not the module that holds it" in stack.fault(projection, Precision.parse("INT8-channel"))
    assert stack.fault(projection, Precision.parse("FP32")) is None
    assert stack.fault(mamba, Precision.parse("INT8-channel")) is None
    uncalled = layer("Attention", (32, 32), "attention.out_proj", called=False)
    assert "not the module that holds it" in stack.fault(uncalled, Precision.parse("INT8-channel"))


def test_every_target_is_tested_both_ways():
    assert {target for target, *_ in TAKEN} == set(TARGETS)
    assert {target for target, *_ in REFUSED} == set(TARGETS) - {"onnx-matmulnbits"}  # it takes what onnx takes
    assert TARGETS["onnx-matmulnbits"].rules == TARGETS["onnx"].rules


def test_an_unknown_target_is_suggested():
    with pytest.raises(InputError, match=r"unknown deployment target 'openvin'.*'openvino'"):
        target_named("openvin")


def test_fused_layers_are_found_by_name():
    names = [
        *(f"model.layers.{i}.self_attn.{part}_proj" for i in (0, 1) for part in "qkvo"),
        *("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"),
        *(f"model.layers.1.mlp.experts.{i}.{part}" for i in range(2) for part in ("w1", "w2")),
        *("model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.gate_proj.weight", "q_proj"),
    ]
    found = fused_groups([layer(name=name) for name in names])
    assert found == [
        tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkv"),
        tuple(f"model.layers.1.self_attn.{part}_proj" for part in "qkv"),
        ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"),
        tuple(f"model.layers.1.mlp.experts.{i}.{part}" for i in range(2) for part in ("w1", "w2")),
        ("model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.gate_proj.weight"),
    ]


MENU = Menu.parse(["INT3-channel", "INT4-channel", "INT4-g32", "INT8-channel", "FP16", "FP32"])


def test_a_profile_keeps_what_all_targets_take_and_everything_else():
    conv = layer("Conv", (16, 8, 3, 3), "conv", fisher={"FP32": 1.0}, allowed=("INT3-channel", "INT4-g32", "FP32"))
    profile = ModelProfile("m", (layer(), conv), provenance={"a": 1})
    narrow = constrained(profile, MENU, ["onnx", "compressed-tensors"])
    assert [one.allowed for one in narrow.layers] == [("INT4-channel", "INT4-g32", "INT8-channel", "FP32"), ("FP32",)]
    assert narrow.layers[1].fisher == {"FP32": 1.0} and narrow.provenance == {"a": 1}
    assert constrained(profile, Menu.parse(["INT8-channel", "FP32"]), ["torchao"]).layers[0] is profile.layers[0]
    assert constrained(narrow, MENU, ["onnx", "compressed-tensors"]) == narrow


def test_fused_layers_are_tied_with_all_that_their_members_were_tied_to():
    names = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    layers = (*(layer(name=name) for name in names[:2]), layer(name=names[2], tie_group="mine"), layer(name="x"))
    profile = ModelProfile("m", (*layers, layer(name="y", tie_group="mine")))
    assert compile_problem(constrained(profile, MENU, ["onnx"]), MENU).unit_of_layer.tolist() == [0, 1, 2, 3, 2]
    tied = compile_problem(constrained(profile, MENU, ["onnx", "modelopt"]), MENU)
    assert tied.unit_of_layer.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("layers", "menu", "targets", "parts"),
    [
        ([CONV], ["INT8-channel"], ["compressed-tensors"], [Q, "Conv, 16x8x3x3", "compressed-tensors: ", "FP32"]),
        (
            [layer("Conv", name="stem")],
            ["INT8-channel", "FP32"],
            ["gguf"],
            ["'stem'", "gguf: llama.cpp has no", "onnx"],
        ),
        ([LINEAR], ["INT8-channel", "FP32"], ["onyx"], ["'onyx'", "'onnx'"]),
        (
            [
                layer(name="a.gate_proj", shape=(8, 33), allowed=("INT4-channel",)),
                layer(name="a.up_proj", allowed=("INT4-g32",)),
            ],
            ["INT4-channel", "INT4-g32"],
            ["compressed-tensors"],
            ["2 layers are fused", "a.gate_proj: INT4-channel; a.up_proj: INT4-g32", "Widen the menu"],
        ),
    ],
)
def test_what_cannot_be_deployed_is_said_in_one_message(layers, menu, targets, parts):
    with pytest.raises(InputError) as caught:
        constrained(ModelProfile("m", tuple(layers)), Menu.parse(menu), targets)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
