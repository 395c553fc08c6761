"""Arrays in the place of bytes, read where they lie: the same outcomes, and no copy of the weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from evoquant.errors import InputError
from evoquant.models.arrays import arrays_of, placed_arrays
from evoquant.models.base import Request
from evoquant.models.measurer import start_measurer
from evoquant.models.networks import build_network
from evoquant.models.torch_task import classification, make_task


class Tied(nn.Module):
    """(n, 6) → (n, 3); one weight under two names, a buffer that is written into."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again.weight = self.first.weight
        self.register_buffer("ones", torch.ones(6))

    def forward(self, x):
        self.ones.fill_(1.0)
        return self.last(torch.tanh(self.again(torch.tanh(self.first(x)))) * self.ones)


class Writing(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        self.last.weight.clamp_(-1.0, 1.0)
        return self.last(x)


def task_of(network, **options):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(parameter.shape).astype(np.float32)))
    made = classification(network, calibration=(x, y), selection=(x, y), test=(x, y), block=20)
    from dataclasses import replace

    return replace(made, **options)


def frozen(node):
    """Every array read-only, as Ray's object store gives it."""
    if isinstance(node, np.ndarray):
        copy = node.copy()
        copy.flags.writeable = False
        return copy
    if isinstance(node, dict):
        return {key: frozen(value) for key, value in node.items()}
    return type(node)(map(frozen, node)) if isinstance(node, list | tuple) else node


def outcomes(payload, layers):
    measure = start_measurer(payload)
    asked = [Request((width,) * layers, "calibration", 0) for width in ("FP32", "INT4-channel", "INT2-channel", "FP32")]
    return measure, [outcome.tobytes() for outcome in measure(asked)]


def test_a_network_in_memory_lies_on_the_arrays_it_is_sent_as():
    task = task_of(Tied(), travels=True)
    payload = frozen(task.payload(elsewhere=True))
    measure, found = outcomes(payload, len(task.layers))
    assert found == outcomes(task.payload(), len(task.layers))[1]
    network = measure._network
    assert network.again.weight is network.first.weight
    places = [node[5] for node in payload["network"]["nodes"] if node[0] == "tensor"]
    shared = {array.__array_interface__["data"][0] for array in places}
    assert {parameter.data_ptr() for parameter in network.parameters()} <= shared
    assert network.ones.data_ptr() not in shared


def test_a_network_of_ours_does_so_too():
    architecture = {"kind": "small_cnn", "inputs": 1, "side": 4, "channels": [2, 2], "hidden": 4, "classes": 3}
    weights = {name: value.numpy() for name, value in build_network(architecture).state_dict().items()}
    rng = np.random.default_rng(0)
    drawn = {name: rng.random(value.shape).astype(value.dtype) for name, value in weights.items()}
    data = {"inputs": rng.random((8, 1, 4, 4)).astype(np.float32), "targets": rng.integers(0, 3, 8)}
    splits = dict.fromkeys(("calibration", "selection", "test"), data)
    task = make_task("classification", build_network(architecture, drawn), splits, architecture=architecture)
    payload = frozen(task.payload(elsewhere=True))
    measure, found = outcomes(payload, len(task.layers))
    assert found == outcomes(task.payload(), len(task.layers))[1]
    shared = {array.__array_interface__["data"][0] for array in payload["weights"]["arrays"].values()}
    assert {parameter.data_ptr() for parameter in measure._network.parameters()} <= shared


def test_a_network_that_writes_into_its_weights_gets_copies():
    task = task_of(Writing(), travels=True)
    payload = frozen(task.payload(elsewhere=True))
    assert not [node for node in payload["network"]["nodes"] if node[0] == "tensor" and isinstance(node[5], np.ndarray)]
    assert outcomes(payload, 1)[1] == outcomes(task.payload(), 1)[1]


def test_what_arrived_damaged_is_named():
    placed = placed_arrays({"a": np.arange(3.0)})
    placed["arrays"]["a"][1] = 7.0
    with pytest.raises(InputError, match="weights: damaged: its content does not match its digest"):
        arrays_of(placed, "weights")
