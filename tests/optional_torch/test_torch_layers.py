"""Which parameters take a width: of any network, each once, in order, under stable names."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from evoquant.errors import InputError
from evoquant.models.base import DIVERGENCE, Request
from evoquant.models.measurer import start_measurer
from evoquant.models.torch_layers import find_layers
from evoquant.models.torch_task import classification

from .networks import TASKS, Everything, language_task, normal, seeded, tokens


def layers_of(network, inputs, **options):
    return find_layers(network.eval(), {"inputs": inputs}, **options)


@pytest.fixture(scope="module")
def everything():
    return {layer.name: layer for layer in layers_of(Everything(), tokens(2))}


def test_order_names_and_types_of_a_network_with_everything(everything):
    assert {name: layer.type for name, layer in everything.items()} == {
        "embed": "Embedding",
        "pos": "Embedding",
        "block.self_attn.in_proj": "Attention",
        "block.self_attn.out_proj": "Attention",
        "block.norm1": "LayerNorm",
        "block.linear1": "Linear",
        "block.linear2": "Linear",
        "block.norm2": "LayerNorm",
        "q": "Linear",
        "k": "Linear",
        "v": "Linear",
        "rnn.weight_ih_l0": "Recurrent",
        "rnn.weight_hh_l0": "Recurrent",
        "rnn.weight_ih_l0_reverse": "Recurrent",
        "rnn.weight_hh_l0_reverse": "Recurrent",
        "cell.weight_ih": "Recurrent",
        "cell.weight_hh": "Recurrent",
        "plain": "Other",
        "turned": "Other",
        "norm": "LayerNorm",
    }
    order = list(everything)
    assert order.index("embed") < order.index("block.linear1") < order.index("q") < order.index("cell.weight_ih")


def test_shared_weights_are_one_layer_and_the_last_linear_is_no_classifier_where_the_embedding_is(everything):
    assert sum(layer.shape == (20, 16) for layer in everything.values()) == 1
    assert all(layer.type != "Classifier" for layer in everything.values())


def test_axes_and_inputs(everything):
    pos, out = everything["pos"], everything["block.self_attn.out_proj"]
    assert (pos.channel_axis, pos.fan_in) == (1, 16), "of a (1, T, D) table the channels are the T"
    assert everything["norm"].channel_axis is None
    assert (out.module, out.activations) == ("block.self_attn", None), "never called as a module of its own"
    assert everything["q"].activations == "token" and everything["plain"].activations is None
    network = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Conv2d(6, 4, 1, groups=2))
    up, conv = layers_of(network, normal(1, 4, 5, 5))
    assert (up.channel_axis, up.fan_in, up.groups) == (1, 18, 2)
    assert (conv.channel_axis, conv.fan_in, conv.groups, conv.activations) == (0, 3, 2, "sample")


def test_layers_that_read_the_very_same_tensor_are_tied(everything):
    groups = {name: layer.tie_group for name, layer in everything.items() if layer.tie_group}
    assert groups == dict.fromkeys("qkv", "q+k+v")

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.ModuleDict({"gate": nn.Linear(4, 6), "up": nn.Linear(4, 6), "down": nn.Linear(6, 4)})

        def forward(self, x):
            return self.mlp["down"](torch.sigmoid(self.mlp["gate"](x)) * self.mlp["up"](x))

    found = {layer.name: layer for layer in layers_of(Gated(), normal(1, 4))}
    assert found["mlp.gate"].tie_group == found["mlp.up"].tie_group == "mlp.gate+up"
    assert found["mlp.down"].tie_group is None and found["mlp.down"].type == "Classifier"


def test_what_is_declared_wins():
    found = {
        layer.name: layer
        for layer in layers_of(
            Everything(), tokens(2), tie_groups={"pair": ["k", "v"], "alone": ["q"]}, types={"k": "Attention"}
        )
    }
    assert [found[name].tie_group for name in "qkv"] == [None, "pair", "pair"]
    assert found["k"].type == "Attention" and found["v"].type == "Linear"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tie_groups": {"g": ["q", "kk"]}}, "tie_groups: the network has no layer 'kk'"),
        ({"tie_groups": {"g": ["q", "k"], "h": ["k", "v"]}}, "layer 'k' is in two groups"),
        ({"types": {"plane": "Linear"}}, "types: the network has no layer 'plane'. Did you mean 'plain'"),
    ],
)
def test_what_is_declared_for_no_layer_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        layers_of(Everything(), tokens(2), **options)


def test_a_network_without_weights_is_refused():
    with pytest.raises(InputError, match="no weight that could take a width"):
        layers_of(nn.ReLU(), normal(1, 4))


def test_attention_by_linears_counts_as_attention_and_one_module_may_run_twice():
    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v))

    attention = SelfAttention()
    network = nn.Sequential(attention, attention, nn.Linear(4, 2))
    assert [(layer.name, layer.type) for layer in layers_of(network, normal(1, 3, 4))] == [
        ("0.qkv", "Attention"),
        ("0.out", "Attention"),
        ("2", "Classifier"),
    ]


def test_a_weight_that_is_read_past_its_module_has_no_inputs_to_quantize():
    class Past(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return nn.functional.linear(x, self.linear.weight)

    (layer,) = layers_of(Past(), normal(1, 4))
    assert (layer.name, layer.activations) == ("linear", None)


@pytest.mark.parametrize("name", TASKS)
def test_nothing_big_is_left_out_and_every_layer_is_measured(name):
    """Each used matrix takes a width, and the output moves where it alone is at the lowest."""
    task = TASKS[name]()
    measure = start_measurer(task.payload())
    found = {layer.parameter for layer in task.found}
    left = {key for key, p in task.network.named_parameters() if p.ndim > 1 and key not in found}
    assert left <= {"unused.weight"}
    for i, layer in enumerate(task.layers):
        widths = tuple("INT2-channel" if i == j else "FP32" for j in range(len(task.layers)))
        (outcome,) = measure([Request(widths, "calibration", 0)])
        if task.found[i].type != "LayerNorm":  # INT2 of nearly equal weights is one factor, which a norm may undo
            assert outcome[:, DIVERGENCE].max() > 0, layer


def test_dynamic_activations_quantize_the_inputs_of_the_layers_that_have_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.attend = nn.Conv1d(4, 4, 3, padding=1), nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            x = self.conv(x).transpose(1, 2)
            return self.out(self.attend(query=x, key=x, value=x, need_weights=False)[0].mean(dim=1))

    network = seeded(Net())
    task = classification(network, calibration=normal(8, 4, 5), selection=normal(4, 4, 5), test=normal(2, 4, 5),
                          agreement=True)  # fmt: skip
    measure = start_measurer(task.payload())
    assert {layer.name: layer.activations for layer in task.found} == {
        "conv": "sample",
        "attend.in_proj": "token",
        "attend.out_proj": None,
        "out": "token",
    }
    for i, layer in enumerate(task.found):
        if layer.activations is None:
            continue
        by_width = []
        for width in ("INT8-channel", "INT8-channel-a8"):
            widths = tuple(width if i == j else "FP32" for j in range(len(task.layers)))
            by_width.append(measure([Request(widths, "calibration", 0)])[0][:, DIVERGENCE])
        assert not np.array_equal(*by_width), layer.name
    with torch.no_grad():
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_layers_do_not_depend_on_what_ran_before():
    first, second = language_task(), language_task()
    assert first.found == second.found and first.model_digest == second.model_digest
    assert first.identity == second.identity
