"""PyTorch networks in ONNX: each weight is found in the graph, whatever exporters make of names and equal tensors."""

import importlib.util
import logging
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from torch import nn

from evoquant.errors import InputError
from evoquant.export.as_onnx import float_bytes, onnx_model
from evoquant.export.recipe import build_recipe
from evoquant.models.deployable import deployable
from evoquant.models.torch_task import regression
from evoquant.quantization.precision import Menu
from tests.optional_torch.networks import normal, seeded, splits

MENU = Menu.parse(("INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"))


def task_of(network, *shape):
    network = network.eval()
    with torch.no_grad():
        outputs = network(torch.zeros(2, *shape)).shape[1:]
    return regression(network, **splits(lambda n: (normal(n, *shape), normal(n, *outputs, seed=1))))


def deployed(task, widths):
    """The deployed model's outputs, the measured network's, the recipe and the model."""
    network = deployable(task)
    recipe = build_recipe(task.profile(MENU, None, ()), widths, network.weight, task.model_digest, {}, {})
    model = onnx_model(network.graph(), recipe)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, network.feeds("test", 0, 5))
    (expected,) = network.outputs("test", 0, 5, tuple(widths))
    return found, expected, recipe, model


def widths_of(task, **given):
    return [given.get(layer.name.replace(".", "_"), "FP32") for layer in task.found]


def assert_close(found, expected):
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


class Equal(nn.Module):
    """Norms that are all ones, and two equal matrices: the exporter keeps one tensor of each."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.LayerNorm(8) for _ in range(3))
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        seeded(self)
        for norm in (self.a, self.b, self.c):
            nn.init.ones_(norm.weight)
        self.second.weight.data.copy_(self.first.weight.data)

    def forward(self, x):
        return self.c(torch.tanh(self.second(self.b(torch.tanh(self.first(self.a(x)))))))


def test_equal_tensors_can_have_different_widths():
    task = task_of(Equal(), 3, 8)
    assert [layer.name for layer in task.found] == ["a", "first", "b", "second", "c"]
    widths = ["FP16", "INT2-channel", "INT4-channel", "INT8-channel", "INT2-channel"]
    found, expected, recipe, model = deployed(task, widths)
    assert_close(found, expected)
    assert float_bytes(model) <= recipe.promise.bytes
    other, *_ = deployed(task, [*widths[:3], "INT2-channel", widths[4]])
    assert np.abs(other - expected).max() > 1e-2


class Unread(nn.Module):
    """A layer whose result is thrown away, so that no graph has it."""

    def __init__(self):
        super().__init__()
        self.used, self.thrown = nn.Linear(8, 4), nn.Linear(8, 64)

    def forward(self, x):
        self.thrown(x)
        return self.used(x)


def test_a_layer_that_nothing_reads_is_deployed_in_the_promised_size():
    task = task_of(seeded(Unread()), 8)
    before = task.network.thrown.weight.detach().clone()
    found, expected, recipe, model = deployed(task, widths_of(task, used="INT8-channel", thrown="INT4-channel"))
    assert_close(found, expected)
    assert torch.equal(task.network.thrown.weight, before)
    # the bias of that layer is in no graph
    assert float_bytes(model) == recipe.promise.bytes - 4 * 64


class Past(nn.Module):
    """Reads a weight's values past autograd, as it is and turned: exporters see a nameless constant."""

    def __init__(self):
        super().__init__()
        self.line, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        y = torch.tanh(self.line(x)) @ self.line.weight.data
        return self.head(torch.tanh(y @ self.line.weight.data.T))


def test_a_weight_that_is_read_past_autograd_is_the_layers():
    task = task_of(seeded(Past()), 3, 8)
    found, expected, recipe, model = deployed(task, widths_of(task, line="INT4-channel", head="FP16"))
    assert_close(found, expected)
    assert float_bytes(model) == pytest.approx(recipe.promise.bytes, abs=4)  # kept once
    found, expected, *_ = deployed(task, widths_of(task))
    assert_close(found, expected)


class Computed(nn.Module):
    """Uses a product of a weight's values that no graph holds as the weight."""

    def __init__(self):
        super().__init__()
        self.line, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(x @ torch.from_numpy(self.line.weight.detach().numpy() * 2))


def test_a_weight_that_the_graph_has_only_in_another_form_is_told():
    network = seeded(Computed())
    task = task_of(network, 3, 8)
    assert [layer.name for layer in task.found] == ["line", "head"]
    with pytest.raises(InputError, match=r"the weight of layer 'line' is not in the graph.*--onnx"):
        deployable(task).graph()


class Attends(nn.Module):
    """MultiheadAttention with queries of its own, and one with keys and values of other sizes."""

    def __init__(self):
        super().__init__()
        self.own = nn.MultiheadAttention(8, 2, batch_first=True)
        self.other = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)

    def forward(self, x):
        x = x + self.own(x, x, x, need_weights=False)[0]
        return self.other(x, x[..., :6], x[..., :4])[0]


def test_attention_of_both_makes():
    task = task_of(seeded(Attends()), 5, 8)
    names = [layer.name for layer in task.found]
    assert {"own.in_proj", "own.out_proj", "other.q_proj", "other.k_proj", "other.v_proj"} <= set(names)
    for width in ("INT4-channel", "INT8-channel"):
        found, expected, recipe, model = deployed(task, [width] * len(names))
        assert_close(found, expected)
        assert float_bytes(model) == pytest.approx(recipe.promise.bytes, rel=0.01)


class Recurs(nn.Module):
    """Two layers in both directions, with a projection; a GRU; a plain RNN."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 5, batch_first=True, bias=False)
        self.rnn = nn.RNN(5, 4, nonlinearity="relu", batch_first=True)

    def forward(self, x):
        return self.rnn(self.gru(self.lstm(x)[0])[0])[0][:, -1]


def test_recurrent_weights_are_deployed_though_exporters_reorder_their_gates():
    task = task_of(seeded(Recurs()), 7, 6)
    assert len(task.found) == 12 and {layer.type for layer in task.found} == {"Recurrent"}
    rng = np.random.default_rng(3)
    for widths in rng.choice(MENU.names, (4, 12)).tolist():
        found, expected, recipe, model = deployed(task, widths)
        assert_close(found, expected)
        assert float_bytes(model) == pytest.approx(recipe.promise.bytes, rel=0.02)


class Tied(nn.Module):
    """One matrix in two modules; a parametrized one."""

    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.back.weight = self.there.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))

    def forward(self, x):
        return self.normed(torch.tanh(self.back(torch.tanh(self.there(x)))))


def test_tied_and_parametrized_weights():
    task = task_of(seeded(Tied()), 3, 8)
    found, expected, recipe, model = deployed(task, ["INT4-channel"] * len(task.found))
    assert_close(found, expected)
    assert float_bytes(model) == pytest.approx(recipe.promise.bytes, rel=0.02)


class Odd(nn.Module):
    """An operator that ONNX does not have."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(8, 4)

    def forward(self, x):
        return torch.special.bessel_j0(self.line(x))


def test_what_no_exporter_takes_is_told_in_one_message_without_noise(capfd):
    task = task_of(seeded(Odd()), 8)
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), pytest.raises(InputError) as fault:
        warnings.simplefilter("error")
        deployable(task).graph()
    message = str(fault.value)
    assert "PyTorch cannot export the network to ONNX" in message and "bessel_j0" in message
    assert message.endswith("Export it yourself and search on the file (--onnx).")
    known = importlib.util.find_spec("onnxscript") is not None
    assert ("its newer exporter: " in message) == known
    assert ("pip install onnxscript" in message) != known
    assert capfd.readouterr().out == ""
    assert logging.getLogger("torch.onnx").level == level


def test_the_graph_is_exported_once_and_each_copy_is_ones_own():
    task = task_of(seeded(Unread()), 8)
    network = deployable(task)
    first = network.graph()
    del first.opened.proto.graph.node[:]
    second = network.graph()
    assert len(second.opened.proto.graph.node) > 0
    assert second.opened.weights is first.opened.weights
