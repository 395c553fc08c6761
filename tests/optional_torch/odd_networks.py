"""Networks that read their weights in odd ways: past the module that holds them, as views, by branches, compiled."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from evoquant.models.networks import build_network
from tests.optional_torch.networks import normal, tokens


class Parent(nn.Module):
    """Reads its child's weight itself; the child is never called."""

    def __init__(self):
        super().__init__()
        self.child, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.tanh(nn.functional.linear(x, self.child.weight * 2.0, self.child.bias)))


class Inside(nn.Module):
    """A block that reads a weight of its own, which a module inside of it reads, too."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(6, 6)

    def forward(self, x):
        return self.line(x) @ self.line.weight + self.line(x)


class Given(nn.Module):
    """Uses a weight that its caller hands over."""

    def forward(self, x, weight):
        return torch.tanh(nn.functional.linear(x, weight))


class Handed(nn.Module):
    """Hands a weight to another module: as `how` says, as it is, as a view, as `.data`, or as an array."""

    def __init__(self, how):
        super().__init__()
        self.how, self.holder, self.user, self.last = how, nn.Linear(6, 6), Given(), nn.Linear(6, 4)

    def forward(self, x):
        weight = self.holder.weight
        if self.how == "view":
            weight = weight.T
        elif self.how == "data":
            weight = weight.data
        elif self.how == "array":
            weight = torch.from_numpy(weight.numpy())
        return self.last(self.user(x, weight))


class Provider(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(6, 6))

    def forward(self):
        return self.matrix.T


class Provided(nn.Module):
    """A module returns a view of its weight, which another reads."""

    def __init__(self):
        super().__init__()
        self.provider, self.user, self.last = Provider(), Given(), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(self.user(x, self.provider()))


class Branching(nn.Module):
    """Which weights it reads, and by which module, depends on the values."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.user, self.last = Given(), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.tanh(self.experts[0](x))
        chosen = int(x.sum().abs() * 10) % 4
        x = torch.tanh(self.experts[chosen](x))
        if float(x.sum()) > 0:
            x = self.user(x, self.experts[(chosen + 1) % 4].weight)
        return self.last(x)


class Counting(nn.Module):
    """Calls itself."""

    def __init__(self):
        super().__init__()
        self.line, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, depth=3):
        return self.last(x) if depth == 0 else self(torch.tanh(self.line(x)), depth - 1) + self.line(x)


class Copying(nn.Module):
    """Changes a copy of a module, for some values."""

    def __init__(self):
        super().__init__()
        self.line, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        line = self.line
        if x.sum() > 0:
            line = copy.deepcopy(line)
            line.weight.mul_(2)
        return self.last(line(x))


class Threads(nn.Module):
    """Calls a module that reads another's weight in another thread, for some values."""

    def __init__(self):
        super().__init__()
        self.given, self.line, self.last = Given(), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        if x.sum() <= 0:
            return self.last(self.line(x))
        with ThreadPoolExecutor(1) as pool:
            return self.last(pool.submit(self.given, x, self.line.weight).result())


class Writing(nn.Module):
    """Writes into a weight, for another module to read."""

    class Writer(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(6, 6)

        def forward(self, x):
            self.line.weight.clamp_(-0.2, 0.2)
            return x

    def __init__(self):
        super().__init__()
        self.writer, self.last = self.Writer(), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(self.writer.line(self.writer(x)))


class Failing(nn.Module):
    """Raises within a module where its weight is coarse."""

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(6, 6)

        def forward(self, x):
            y = self.line(x)
            if len(self.line.weight[0].unique()) < 4:
                raise ValueError(f"too coarse: {self.line.weight[0].tolist()}")
            return y

    def __init__(self):
        super().__init__()
        self.part, self.last = self.Part(), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(self.part(x))


class Attending(nn.Module):
    """(n, T, 6): attention whose projections are separate, and a whole encoder."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, kdim=4, vdim=4, batch_first=True)
        layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        y, _ = self.attention(x, x[..., :4], x[..., 2:])
        return self.last(self.encoder(y).mean(dim=1))


class Recurrent(nn.Module):
    """(n, T, 6): two LSTMs, one in both directions, whose weights PyTorch reads as a list."""

    def __init__(self):
        super().__init__()
        self.both = nn.LSTM(6, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.once = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x):
        return self.once(self.both(x)[0])[0][:, -1]


class Tied(nn.Module):
    """Tokens (n, T): one table, read as an embedding and as a matrix."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.embed(x))))


class Functional(nn.Module):
    """A module called with other weights in its place, and one sample at a time."""

    def __init__(self):
        super().__init__()
        self.inner, self.each, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.func.functional_call(self.inner, {"weight": self.inner.weight * 0.5}, (x,))
        return self.last(torch.vmap(self.each)(torch.tanh(x)))


def chain(middle):
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), middle, nn.Tanh(), nn.Linear(6, 4))


def one_memory():
    """Two weights in the same memory, which are quantized each by itself."""
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4))
    return network


def share_memory(network):
    network[1].weight.data = network[0].weight.data
    return network


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2.0


def parametrized():
    line = nn.Linear(6, 6)
    parametrize.register_parametrization(line, "weight", Doubled())
    return chain(line)


def own_forward():
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4))
    network[0].forward = lambda x: nn.functional.linear(torch.tanh(x), network[1].weight.new_ones(6, 6) * 0.1)
    return nn.Sequential(nn.Linear(6, 6), network)


def traced():
    return chain(torch.jit.trace(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), torch.zeros(2, 6)))


def graph():
    return torch.fx.symbolic_trace(chain(nn.Linear(6, 6)))


def vision():
    sizes = {"inputs": 1, "side": 8, "patch": 4, "width": 8, "heads": 2, "hidden": 12, "depth": 2, "classes": 4}
    return build_network({"kind": "vision_transformer", **sizes})


def characters():
    sizes = {"vocabulary": 20, "length": 8, "width": 8, "heads": 2, "hidden": 12, "depth": 2}
    return build_network({"kind": "language_model", **sizes})


def images():
    sizes = {"inputs": 2, "channels": [4, 4], "strides": [1, 2], "hidden": 6, "classes": 4}
    network = build_network({"kind": "cnn", **sizes})
    for norm in (network.norm1, network.norm2):  # whose buffers hold no meaningful values
        norm.reset_running_stats()
    return network


ODD = {  # name → how to make it, and its inputs
    "parent": (Parent, lambda n: normal(n, 6)),
    "parent and child": (lambda: chain(Inside()), lambda n: normal(n, 6)),
    "handed over": (lambda: Handed("as it is"), lambda n: normal(n, 6)),
    "handed over as a view": (lambda: Handed("view"), lambda n: normal(n, 6)),
    "handed over as data": (lambda: Handed("data"), lambda n: normal(n, 6)),
    "handed over as an array": (lambda: Handed("array"), lambda n: normal(n, 6)),
    "provided": (Provided, lambda n: normal(n, 6)),
    "branching": (Branching, lambda n: normal(n, 6)),
    "recursion": (Counting, lambda n: normal(n, 6)),
    "copies": (Copying, lambda n: normal(n, 6)),
    "threads": (Threads, lambda n: normal(n, 6)),
    "again": (lambda: nn.Sequential(*[nn.Linear(6, 6)] * 3, nn.Linear(6, 4)), lambda n: normal(n, 6)),
    "attention": (Attending, lambda n: normal(n, 5, 6)),
    "recurrence": (Recurrent, lambda n: normal(n, 5, 6)),
    "tied": (Tied, lambda n: tokens(n)),
    "functional": (Functional, lambda n: normal(n, 6)),
    "parametrized": (parametrized, lambda n: normal(n, 6)),
    "weight norm": (lambda: chain(parametrizations.weight_norm(nn.Linear(6, 6))), lambda n: normal(n, 6)),
    "a forward of its own": (own_forward, lambda n: normal(n, 6)),
    "traced": (traced, lambda n: normal(n, 6)),
    "graph": (graph, lambda n: normal(n, 6)),
    "one memory": (one_memory, lambda n: normal(n, 6)),
    "vision": (vision, lambda n: normal(n, 1, 8, 8)),
    "characters": (characters, lambda n: tokens(n)),
    "images": (images, lambda n: normal(n, 2, 8, 8)),
}
AFTER = {"one memory": share_memory}  # what is done to a network once it has its weights


def inputs_of(name, count=20):
    return np.ascontiguousarray(ODD[name][1](count))
