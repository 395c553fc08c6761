"""Networks exported from PyTorch: the same layers, the same outcomes for the same allocation."""

import io
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from torch import nn

from evoquant.models.base import DIVERGENCE, SCORE, Request
from evoquant.models.measurer import start_measurer
from evoquant.models.onnx_task import load_onnx_task
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision
from evoquant.scoring.statistics import ACCURACY, paired_retention

SAMPLES = 240


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.group = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.relu(self.group(self.up(self.features(x)))).mean(dim=(2, 3)))

    @staticmethod
    def inputs(generator):
        return torch.randn(SAMPLES, 1, 8, 8, generator=generator)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 16)])
        self.final = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, ids):
        x = self.tokens(ids)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp[1](torch.relu(self.mlp[0](x)))
        return self.head(self.final(x).mean(dim=1))

    @staticmethod
    def inputs(generator):
        return torch.randint(0, 20, (SAMPLES, 7), generator=generator)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

    @staticmethod
    def inputs(generator):
        return torch.randn(SAMPLES, 5, 6, generator=generator)


NETWORKS = {"cnn": Cnn, "transformer": Transformer, "recurrent": Recurrent}
PARAMETERS = {
    "lstm.W": "lstm.weight_ih_l0",
    "lstm.R": "lstm.weight_hh_l0",
    "attention.in_proj": "attention.in_proj_weight",
}
TYPES = {
    "cnn": ["Conv", "LayerNorm", "Conv", "Conv", "LayerNorm", "Classifier"],
    "transformer": ["Embedding", "LayerNorm", "Attention", "Attention", "Linear", "Linear", "LayerNorm", "Classifier"],
    "recurrent": ["Recurrent", "Recurrent", "Classifier"],
}


def make_network(name):
    """Weights with some spread, drawn by a generator of their own."""
    network = NETWORKS[name]().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if "var" in key:
                drawn = drawn.abs() + 0.5
            elif value.ndim == 1 and key.endswith("weight"):
                drawn = 1 + 0.3 * drawn
            else:
                drawn = drawn / max(value[0].numel(), 1) ** 0.5
            value.copy_(drawn)
    return network, network.inputs(generator)


def export(network, inputs, folding):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (inputs[:2],),
            stream,
            dynamo=False,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=folding,
        )
    return stream.getvalue()


def torch_outcomes(network, inputs, labels, parameters, axes, widths):
    """Scores and divergences of the network with its parameters quantized, computed here by hand."""
    state = network.state_dict()
    changed = {
        name: torch.from_numpy(fake_quantize(state[name].numpy(), Precision.parse(width), axis))
        for name, axis, width in zip(parameters, axes, widths, strict=True)
    }
    with torch.inference_mode():
        reference = network(inputs).double().log_softmax(dim=1)
        quantized = torch.func.functional_call(network, changed, (inputs,)).double().log_softmax(dim=1)
    scores = (quantized.argmax(dim=1).numpy() == labels).astype(float)
    return scores, (reference.exp() * (reference - quantized)).sum(dim=1).numpy()


@pytest.mark.parametrize(
    ("name", "folding"),
    [("cnn", True), ("cnn", False), ("transformer", True), ("transformer", False), ("recurrent", True)],
)
def test_an_exported_network_gives_what_torch_gives(name, folding):
    network, inputs = make_network(name)
    with torch.inference_mode():
        labels = network(inputs).argmax(dim=1).numpy()
    labels[::5] = (labels[::5] + 1) % 5
    task = load_onnx_task(
        export(network, inputs, folding), {"x": inputs.numpy(), "labels": labels}, block=64, name=name
    )
    parameters = [PARAMETERS.get(layer, f"{layer}.weight") for layer in task.layers]
    state = network.state_dict()
    expected = [key for key, value in state.items() if key in parameters]
    assert sorted(parameters) == sorted(expected) == sorted(k for k in state if "weight" in k)
    assert [layer.type for layer in task.table] == TYPES[name]
    axes = [1 if key == "up.weight" else None if state[key].ndim == 1 else 0 for key in parameters]
    for layer, key, axis in zip(task.table, parameters, axes, strict=True):
        shape = tuple(state[key].shape)
        assert (layer.shape, layer.channel_axis) in ((shape, axis), (shape[::-1], 1)), layer.name
    test = torch.from_numpy(task.data["test"].arrays["input0"])
    targets = task.data["test"].arrays["targets"]
    measure = start_measurer(task.payload())
    rng = np.random.default_rng(1)
    menu = ["INT2-channel", "INT3-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"]
    (reference,) = measure([Request(("FP32",) * len(parameters), "test", 0)])
    for widths in [["FP32"] * len(parameters), *rng.choice(menu, (6, len(parameters))).tolist()]:
        scores, divergences = torch_outcomes(network, test, targets, parameters, axes, widths)
        (outcome,) = measure([Request(tuple(widths), "test", 0)])
        np.testing.assert_allclose(outcome[:, DIVERGENCE], divergences, rtol=1e-3, atol=1e-6)
        plain, _ = torch_outcomes(network, test, targets, parameters, axes, ["FP32"] * len(parameters))
        here = paired_retention(outcome[:, SCORE], reference[:, SCORE], ACCURACY).value
        there = paired_retention(scores, plain, ACCURACY).value
        assert here == pytest.approx(there, abs=1e-3)
