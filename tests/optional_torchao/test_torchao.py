"""torchao: the saved state has the recipe's codes and scales in torchao's tensors, and computes what was measured.

200 allocations of each network: `EVOQUANT_LARGE=1 python -m pytest tests/optional_torchao`.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchao")
safetensors_torch = pytest.importorskip("safetensors.torch")

from torch import nn

from evoquant.errors import InputError
from evoquant.export.as_torchao import due_bytes, load_torchao, stored_bytes, torchao_files
from evoquant.export.consumers import write_arrays
from evoquant.export.consumers.torch_network import runner
from evoquant.export.hf import linear
from evoquant.export.recipe import build_recipe
from evoquant.export.torchao_file import require_torchao
from evoquant.models.deployable import deployable
from evoquant.models.hf import require_transformers
from evoquant.models.torch_task import classification, embedding, language_model
from evoquant.profiles.targets import TARGETS
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from tests.optional_torch.networks import Everything, Images, normal, seeded, splits, tokens

require_torchao("the tests")
require_transformers("the tests")

from torchao.core.config import config_from_dict
from torchao.quantization import Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, quantize_
from transformers import LlamaConfig, LlamaForCausalLM, TorchAoConfig

ALLOCATIONS = 200 if "EVOQUANT_LARGE" in os.environ else 8
SLICES = ("tensor", "channel", "g2", "g8", "g16", "g18")
MENU = Menu.parse(
    [
        *(f"INT{bits}-{part}" for bits in range(2, 9) for part in SLICES),
        *(f"FP8-{part}" for part in SLICES),
        *("INT3-channel-mse", "INT8-g16-mse", "FP32"),
    ]
)
NEVER = Menu.parse(["INT4-channel-asym", "INT8-channel-a8", "NF4-channel", "FP16", "BF16"])
TENSORS = (Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor)


class Pictures(nn.Module):
    """(n, 2, 8, 8) → logits (n, 3), by convolutions of several makes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding="same")
        self.norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 16, 1, bias=False)
        self.down = nn.Conv2d(16, 4, (3, 2), stride=2, dilation=2, padding=1, padding_mode="circular")
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.point(torch.relu_(self.norm(self.first(x)))))
        return self.head(self.depthwise(self.down(x)).mean(dim=(2, 3)))


class Tied(nn.Module):
    """Tokens (n, T) → logits (n, T, V); one weight under two names."""

    def __init__(self, vocabulary=20, width=16, *, tied=True):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.embed(x))))


def perceptron():
    return nn.Sequential(nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5))


def llama(*, tied=False):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            use_cache=False,
            attn_implementation="eager",
        )
    )


NETWORKS = {
    "llama": llama,
    "tied llama": lambda: llama(tied=True),
    "pictures": Pictures,
    "images": Images,
    "perceptron": perceptron,
    "everything": Everything,
    "tied": Tied,
}


def task_of(name):
    network = seeded(NETWORKS[name]()).eval()
    if name in ("pictures", "images"):
        network.norm.running_mean += 0.1
        return classification(network, **splits(lambda k: (normal(k, 2, 8, 8), np.arange(k) % 3), 24))
    if name == "perceptron":
        return embedding(network, **splits(lambda k: normal(k, 32), 24))
    words = 64 if "llama" in name else 20
    return language_model(network, **splits(lambda k: tokens(k, vocabulary=words), 24))


def prepared(name):
    task = task_of(name)
    return task, deployable(task), task.profile(Menu.parse(["FP32"]), None, ())


def exported(name, widths, path):
    """Recipe, deployable and files; `widths`: for every layer that torchao holds, or by layer, else FP32."""
    task, ready, profile = prepared(name)
    if isinstance(widths, str):
        every = Menu.parse([widths]).precisions[0]
        chosen = [widths if holds(task.network, layer, every) else "FP32" for layer in profile.layers]
    else:
        chosen = [widths.get(layer.name, "FP32") for layer in profile.layers]
    recipe = build_recipe(profile, chosen, ready.weight, task.model_digest, {}, {})
    return recipe, ready, torchao_files(recipe, ready, path)


def holds(network, layer, precision):
    """What torchao's tensors take, found apart from the code under test."""
    if precision.name == "FP32":
        return True
    try:
        module = linear(network, layer.name, "torchao")
    except InputError:
        return False
    if not precision.fits(layer.shape, layer.channel_axis):
        return False
    if isinstance(module, nn.Conv2d):
        kernel = module.kernel_size[0] * module.kernel_size[1]
        return module.groups == 1 and precision.is_integer and precision.group_size % kernel == 0
    return True


def fresh(name):
    """A network of the same architecture with other weights."""
    return seeded(NETWORKS[name](), seed=1)


def gap(network, ready, recipe):
    """How far the outputs are from the measured ones, by the largest of those."""
    expected = ready.outputs("test", 0, 5, tuple(layer.precision for layer in recipe.layers))[0]
    return np.abs(runner(network)(ready.feeds("test", 0, 5))[0] - expected).max() / np.abs(expected).max()


def check_weights(network, recipe):
    """Layers with scales are torchao's tensors with the recipe's codes, scales and weights; nothing else is."""
    weights = {id(p) for p in network.parameters() if isinstance(p, TENSORS)}
    assert weights == {id(network.get_submodule(one.name).weight) for one in recipe.layers if one.width.has_scales}
    for layer in recipe.layers:
        if layer.width.has_scales:
            quantized, weight = recipe.quantized(layer), network.get_submodule(layer.name).weight
            np.testing.assert_array_equal(weight.qdata.view(torch.int8).numpy(), quantized.codes.view(np.int8))
            np.testing.assert_array_equal(weight.scale.flatten().numpy(), quantized.scales)
            assert weight.scale.dtype == torch.float16
            found = weight.dequantize().numpy()
            np.testing.assert_array_equal(found.view(np.uint32), recipe.values(layer).view(np.uint32))


@pytest.mark.parametrize("name", NETWORKS)
def test_random_allocations(name, tmp_path):
    task, ready, profile = prepared(name)
    rng = generator_for(0, 0, "allocations")
    for _ in range(ALLOCATIONS):
        fitting = [[p.name for p in MENU if holds(task.network, layer, p)] for layer in profile.layers]
        widths = [names[rng.integers(len(names))] for names in fitting]
        recipe = build_recipe(profile, widths, ready.weight, task.model_digest, {}, {})
        files = torchao_files(recipe, ready, tmp_path / "m.safetensors")
        network = load_torchao(fresh(name), files[0])
        check_weights(network, recipe)
        assert gap(network, ready, recipe) < 1e-6, widths
        assert stored_bytes(files[0]) == pytest.approx(due_bytes(recipe), rel=0.01), widths


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_rules_take_can_be_written(name):
    task, _, profile = prepared(name)
    target = TARGETS["torchao"]
    taken = [(layer, p) for layer in profile.layers for p in MENU if target.fault(layer, p) is None]
    assert len(taken) > len(profile.layers)
    wrong = {layer.name for layer, p in taken if not holds(task.network, layer, p)}
    assert wrong == set()
    assert [p.name for layer in profile.layers for p in NEVER if target.fault(layer, p) is None] == []


@pytest.mark.parametrize(
    ("precision", "tensor", "bits", "zeros"),
    [
        ("INT2-channel", IntxUnpackedToInt8Tensor, torch.int2, 1),
        ("INT5-g8", IntxUnpackedToInt8Tensor, torch.int5, 1),
        ("INT8-tensor", IntxUnpackedToInt8Tensor, torch.int8, 1),
        ("INT8-channel", IntxUnpackedToInt8Tensor, torch.int8, 1),
        ("INT8-g8", Int8Tensor, None, 0),
        ("FP8-g8", Float8Tensor, None, 0),
    ],
)
def test_which_tensor_a_precision_becomes_and_what_it_stores(precision, tensor, bits, zeros, tmp_path):
    recipe, _, files = exported("perceptron", precision, tmp_path / "m.safetensors")
    weight = load_torchao(fresh("perceptron"), files[0])[2].weight
    assert type(weight) is tensor
    assert getattr(weight, "target_dtype", None) == bits
    size = {"tensor": [16, 48], "channel": [1, 48], "g8": [1, 8]}[precision.split("-")[1]]
    assert list(weight.block_size) == size
    slices = {"tensor": 3, "channel": 48 + 16 + 5, "g8": (32 * 48 + 48 * 16 + 16 * 5) // 8}[precision.split("-")[1]]
    biases = 4 * (48 + 16 + 5)
    assert stored_bytes(files[0]) == 32 * 48 + 48 * 16 + 16 * 5 + slices * (2 + zeros) + biases == due_bytes(recipe)


def test_groups_of_a_convolution_are_whole_input_channels(tmp_path):
    recipe, ready, files = exported("pictures", {"down": "INT4-g12", "point": "INT3-g2"}, tmp_path / "m.safetensors")
    network = load_torchao(fresh("pictures"), files[0])
    assert list(network.down.weight.block_size) == [1, 2, 3, 2]
    assert list(network.point.weight.block_size) == [1, 2, 1, 1]
    check_weights(network, recipe)
    assert gap(network, ready, recipe) < 1e-6


@pytest.mark.parametrize(
    ("name", "first", "second"), [("tied", "embed", "head"), ("tied llama", "model.embed_tokens", "lm_head")]
)
def test_tied_weights_are_stored_once_and_stay_tied(name, first, second, tmp_path):
    recipe, ready, files = exported(name, {first: "INT4-channel"}, tmp_path / "m.safetensors")
    assert [key for key in safetensors_torch.load_file(files[0]) if second in key] == []
    network = load_torchao(fresh(name), files[0])
    assert isinstance(network.get_submodule(first).weight, IntxUnpackedToInt8Tensor)
    assert network.get_submodule(second).weight is network.get_submodule(first).weight
    assert gap(network, ready, recipe) < 1e-6
    configuration = json.loads(files[1].read_text())["_data"]["fqn_to_config"]
    assert sorted(configuration) == sorted([first, second])


def test_a_network_that_is_not_tied_is_refused(tmp_path):
    files = exported("tied", "INT4-channel", tmp_path / "m.safetensors")[2]
    network = seeded(Tied(tied=False))
    with pytest.raises(InputError, match=r"m\.safetensors: holds no 'head\.weight'; make the network as it was expo"):
        load_torchao(network, files[0])
    assert not isinstance(network.embed.weight, IntxUnpackedToInt8Tensor)


MIXED = {
    "llama": {
        "model.embed_tokens": ("FP8-g16", Float8Tensor, [1, 16], None),
        "model.layers.0.self_attn.q_proj": ("INT2-channel", IntxUnpackedToInt8Tensor, [1, 32], torch.int2),
        "model.layers.0.self_attn.k_proj": ("INT3-g8", IntxUnpackedToInt8Tensor, [1, 8], torch.int3),
        "model.layers.0.self_attn.v_proj": ("INT8-tensor", Int8Tensor, [16, 32], None),
        "model.layers.0.mlp.up_proj": ("INT8-channel", IntxUnpackedToInt8Tensor, [1, 32], torch.int8),
        "model.layers.0.mlp.down_proj": ("INT8-g16", Int8Tensor, [1, 16], None),
        "model.layers.1.mlp.up_proj": ("FP8-tensor", Float8Tensor, [48, 32], None),
        "model.layers.1.mlp.down_proj": ("FP8-channel", Float8Tensor, [1, 48], None),
        # by tensor torchao's configuration has INT8 and FP8 only
        "lm_head": ("INT4-tensor", IntxUnpackedToInt8Tensor, [1, 32], torch.int4),
    },
    # and of convolutions each place of the kernel has scales of its own
    "pictures": {
        "first": ("INT8-tensor", IntxUnpackedToInt8Tensor, [1, 2, 1, 1], torch.int8),
        "point": ("INT4-channel", IntxUnpackedToInt8Tensor, [1, 8, 1, 1], torch.int4),
        "down": ("INT6-g12", IntxUnpackedToInt8Tensor, [1, 2, 1, 1], torch.int6),
    },
}


def check_configured(network, name):
    for module, (_, tensor, block, bits) in MIXED[name].items():
        weight = network.get_submodule(module).weight
        assert type(weight) is tensor, module
        assert list(weight.block_size) == block, module
        assert getattr(weight, "target_dtype", None) == bits, module
    made = [key.removesuffix(".weight") for key, weight in network.named_parameters() if isinstance(weight, TENSORS)]
    assert sorted(made) == sorted(MIXED[name])


@pytest.mark.parametrize("name", MIXED)
def test_the_configuration_quantizes_a_float_network_alike(name, tmp_path):
    widths = {module: said[0] for module, said in MIXED[name].items()}
    _, ready, files = exported(name, widths, tmp_path / "m.safetensors")
    network = fresh(name).eval()
    quantize_(network, config_from_dict(json.loads(files[1].read_text())), filter_fn=None)
    check_configured(network, name)
    assert np.isfinite(runner(network)(ready.feeds("test", 0, 5))[0]).all()


def test_transformers_quantizes_by_the_configuration_and_loads_the_state(tmp_path):
    widths = {module: said[0] for module, said in MIXED["llama"].items()}
    recipe, ready, files = exported("llama", widths, tmp_path / "m.safetensors")
    own = TorchAoConfig(config_from_dict(json.loads(files[1].read_text())), include_input_output_embeddings=True)
    folder = tmp_path / "float"
    ready.network("torchao").save_pretrained(folder)
    check_configured(LlamaForCausalLM.from_pretrained(folder, quantization_config=own), "llama")
    # a checkpoint of ours: the state under the name that transformers looks for, and the configuration in config.json
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": own.to_dict()}))
    shutil.copy(files[0], folder / "model.safetensors")
    network = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    check_weights(network, recipe)
    assert gap(network, ready, recipe) < 1e-6


def test_a_fresh_process_has_the_same_outputs_and_says_nothing(tmp_path):
    widths = {module: said[0] for module, said in MIXED["llama"].items()}
    recipe, ready, files = exported("llama", widths, tmp_path / "m.safetensors")
    float_files = exported("llama", {}, tmp_path / "fp32.safetensors")[2]
    feeds = ready.feeds("test", 0, 5)
    write_arrays(tmp_path / "inputs.npz", [feeds.values()])
    job = {
        "models": [["fp32", str(float_files[0])], ["deployed", str(files[0])]],
        "inputs": str(tmp_path / "inputs.npz"),
        "names": list(feeds),
        "batches": 1,
        "outputs": list(ready.names),
        "folder": str(tmp_path),
        "repeats": 0,
        "network": ready.recreation(),
        "generate": None,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "evoquant.export.consumers.torchao_run", tmp_path / "job.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for model, precisions in (
        ("fp32", ["FP32"] * len(recipe.layers)),
        ("deployed", [p.precision for p in recipe.layers]),
    ):
        expected = ready.outputs("test", 0, 5, tuple(precisions))[0]
        with np.load(tmp_path / f"{model}.npz") as found:
            assert np.abs(found["0.0"] - expected).max() < 1e-6 * np.abs(expected).max()
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["facts"]["fp32"]["tensors"] == {}
    kinds = {"Float8Tensor": 3, "Int8Tensor": 1, "IntxUnpackedToInt8Tensor": 5}
    assert answer["facts"]["deployed"]["tensors"] == kinds


@pytest.mark.parametrize("name", ["llama", "everything"])
def test_the_same_bytes_again(name, tmp_path):
    first, second = (exported(name, "INT4-channel", tmp_path / part / "m.safetensors")[2] for part in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["m.safetensors", "m.torchao.json"]


@pytest.mark.parametrize(
    ("name", "layer", "precision", "message"),
    [
        ("perceptron", "2", "INT4-channel-asym", "'2' at INT4-channel-asym: zero points are not taken; choose INT4-ch"),
        ("perceptron", "2", "INT8-channel-a8", "'2' at INT8-channel-a8: activations stay in .*; choose INT8-channel"),
        ("perceptron", "2", "NF4-channel", "'2' at NF4-channel: torchao has no NF4; choose INT4-channel"),
        (
            "perceptron",
            "2",
            "BF16",
            "'2': torchao's file holds weights without scales in FP32, not in BF16; choose FP32",
        ),
        (
            "pictures",
            "down",
            "FP8-channel",
            "'down' at FP8-channel: convolutions in FP8 need a GPU; choose INT8-channel",
        ),
        ("pictures", "down", "INT4-g2", "'down' at INT4-g2: .*whole inputs of 6 weights.*choose INT4-channel"),
        (
            "pictures",
            "depthwise",
            "INT8-channel",
            "'depthwise' at INT8-channel: convolutions with groups are not taken; choose FP32",
        ),
        ("pictures", "norm", "INT8-tensor", "'norm' is a BatchNorm2d"),
        ("everything", "block.self_attn.out_proj", "INT8-channel", "MultiheadAttention reads its weights past the mod"),
    ],
)
def test_what_torchao_cannot_hold_is_refused(name, layer, precision, message, tmp_path):
    with pytest.raises(InputError, match=message):
        exported(name, {layer: precision}, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("m.onnx", r"m\.onnx: torchao's state is a \.safetensors file; its configuration goes into m\.torchao\.json"),
        ("file/m.safetensors", "cannot be written"),
    ],
)
def test_where_nothing_can_be_written_is_said(path, message, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        exported("perceptron", "INT8-channel", tmp_path / path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_network_that_is_one_layer_is_refused(tmp_path):
    task = embedding(seeded(nn.Linear(8, 4)), **splits(lambda k: normal(k, 8), 24))
    ready, profile = deployable(task), task.profile(Menu.parse(["FP32"]), None, ())
    recipe = build_recipe(profile, ["INT8-channel"], ready.weight, task.model_digest, {}, {})
    with pytest.raises(InputError, match="layer 'weight'"):
        torchao_files(recipe, ready, tmp_path / "m.safetensors")


def damaged(path, change):
    """The file with other parts: `change` takes name → tensor."""
    parts = safetensors_torch.load_file(path)
    with safetensors_torch.safe_open(path, "pt") as file:
        metadata = file.metadata()
    safetensors_torch.save_file(change(parts), path, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {k: t for k, t in p.items() if k != "2._weight_scale"}, "tensor that 2._weight_qdata is a part of"),
        (lambda p: {k: t for k, t in p.items() if k != "4.bias"}, "holds no '4.bias'"),
        (lambda p: {**p, "more": torch.zeros(2)}, "the network has no 'more'"),
        (lambda p: {**p, "4.bias": torch.zeros(2)}, r"4\.bias is \(2,\), the network has \(5,\)"),
        (lambda p: {**p, "2._weight_qdata": torch.zeros(2)}, "no torchao state, or a damaged one"),
    ],
)
def test_damaged_states_are_refused(change, message, tmp_path):
    files = exported("perceptron", "INT8-channel", tmp_path / "m.safetensors")[2]
    load_torchao(fresh("perceptron"), files[0])
    damaged(files[0], change)
    network = fresh("perceptron")
    with pytest.raises(InputError, match=message):
        load_torchao(network, files[0])
    assert not any(isinstance(p, TENSORS) for p in network.parameters())


@pytest.mark.parametrize("read", [stored_bytes, lambda path: load_torchao(perceptron(), path)])
def test_other_files_are_refused(read, tmp_path):
    with pytest.raises(InputError, match=r"m\.safetensors: does not exist"):
        read(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_text("{}")
    with pytest.raises(InputError, match=r"m\.safetensors: no torchao state, or a damaged one"):
        read(tmp_path / "m.safetensors")
