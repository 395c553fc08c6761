"""Small networks of many kinds, with random weights, for the tests here."""

import numpy as np
import torch
from torch import nn

from evoquant.models.torch import Measurer
from evoquant.models.torch_kinds import Judge
from evoquant.models.torch_layers import find_layers
from evoquant.models.torch_task import classification, embedding, language_model, regression
from evoquant.rng import generator_for


def seeded(network, seed=0):
    """The network with weights from a stream of its own: normal, a third of PyTorch's usual spread or so."""
    rng = generator_for(seed, 0, "test weights")
    for name, parameter in network.named_parameters():
        values = rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
        scale = 0.5 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1
        offset = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data = torch.from_numpy(values * scale * (2 if parameter.ndim > 1 else 1) + offset)
    return network


def measurer(network, inputs, cache=None, reuses=True):
    """Measures two blocks of the samples, in batches of 5."""
    network = network.eval().requires_grad_(False)
    data = {"calibration": {"inputs": inputs}}
    found = find_layers(network, data["calibration"])
    block = len(inputs) // 2
    measure = Measurer(network, found, data, Judge("embedding"), block=block, batch=5, quantized_cache=cache)
    measure._reuses = reuses
    return measure


class Everything(nn.Module):
    """Tokens (n, T) → logits (n, T, V): attention of two makes, a plain matrix, recurrence, a tied classifier."""

    def __init__(self, vocabulary=20, width=16, length=8):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.pos = nn.Parameter(torch.zeros(1, length, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 24, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.rnn = nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(width, width)
        self.plain = nn.Parameter(torch.zeros(width, width))
        self.turned = nn.Parameter(torch.zeros(width, width))
        self.unused = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens):
        x = self.block(self.embed(tokens) + self.pos)
        x = x + torch.sigmoid(self.q(x)) * self.k(x) + self.v(x)
        x = x + self.rnn(x)[0]
        x = x + self.cell(x.flatten(0, 1), x.flatten(0, 1)).view_as(x)
        x = nn.functional.linear(x, self.plain) @ self.turned.T
        return nn.functional.linear(self.norm(x), self.embed.weight)


class Images(nn.Module):
    """(n, 2, 8, 8) → logits (n, 3), every layer linear in its weight; one convolution is used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.groups = nn.GroupNorm(2, 6)
        self.line = nn.Conv1d(6, 4, 3)
        self.rms = nn.RMSNorm(4)
        self.classifier = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu_(self.norm(self.first(x)))
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        x = self.groups(self.up(x)).mean(dim=3)
        return self.classifier(self.rms(self.line(x).mean(dim=2)))


class Volumes(nn.Module):
    """(n, 1, 4, 4, 4) → values (n, 2)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 3, 3)
        self.up = nn.ConvTranspose3d(3, 2, 2)
        self.norm = nn.InstanceNorm3d(2, affine=True)
        self.down = nn.ConvTranspose1d(2, 2, 2)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.tanh(self.norm(self.up(torch.tanh(self.conv(x)))))
        return self.head(self.down(x.flatten(2)).square().mean(dim=2))


class TimeFirst(nn.Module):
    """(n, T, 6) → embeddings (n, 5); inside, time comes before samples, and a table is read by position."""

    def __init__(self, length=6):
        super().__init__()
        self.positions = nn.Embedding(length, 6)
        self.mix = nn.Linear(6, 6)
        self.rnn = nn.GRU(6, 5)
        self.out = nn.Linear(5, 5)

    def forward(self, x):
        x = (x + self.positions(torch.arange(x.shape[1]))).transpose(0, 1)
        return self.out(self.rnn(torch.tanh(self.mix(x)))[0][-1])


def tokens(n, seed=0, length=8, vocabulary=20):
    return generator_for(seed, n, "test tokens").integers(0, vocabulary, (n, length))


def normal(n, *shape, seed=0):
    return generator_for(seed, n, "test inputs").standard_normal((n, *shape)).astype(np.float32)


def splits(make, calibration=24, selection=7, test=5):
    return {"calibration": make(calibration), "selection": make(selection), "test": make(test)}


def language_task(n=24, **options):
    return language_model(seeded(Everything()), **splits(tokens, n), **options)


def image_task(n=24, **options):
    network = seeded(Images())
    network.norm.running_mean += 0.1
    network.norm.running_var *= 2.0
    data = splits(lambda k: (normal(k, 2, 8, 8), np.arange(k) % 3), n)
    return classification(network, **data, **options)


def volume_task(n=24, **options):
    return regression(
        seeded(Volumes()), **splits(lambda k: (normal(k, 1, 4, 4, 4), normal(k, 2, seed=1)), n), **options
    )


def time_task(n=24, **options):
    return embedding(seeded(TimeFirst()), **splits(lambda k: normal(k, 6, 6), n), **options)


TASKS = {"language": language_task, "images": image_task, "volumes": volume_task, "time": time_task}
