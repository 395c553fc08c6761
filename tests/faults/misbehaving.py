"""Networks that misbehave, and the command line with one of them: `python -m misbehaving run CONFIG …`.

MISBEHAVE says how and when, such as `hang` or `kill once`: whenever the first layer is INT2 on calibration data, or
only the first time (MISBEHAVE_MARK is a file that tells). `nap` seconds are slept for each request.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from evoquant.models.arrays import digest_arrays
from evoquant.models.base import SPLITS, Block
from evoquant.models.measurer import RUNTIMES
from evoquant.models.tasks import TASKS
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.error import squared_error
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision
from evoquant.rng import generator_for
from evoquant.scoring.statistics import ACCURACY

CLASSES, FEATURES, HIDDEN, SAMPLES = 4, 12, 16, 400
LAYERS = ("first", "second", "third")
TRIGGER = "INT2-channel"
ROOM = 64 * 2**20


def hang():
    """Deaf to every signal but SIGKILL, with the interpreter free for other threads."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    while True:
        time.sleep(60)


def spin():
    """The same in C code that never lets go of the interpreter: no other thread runs any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    collections.deque(itertools.repeat(0), maxlen=0)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    """As somebody's model may end the process."""
    sys.exit("asked to")


def complain():
    raise ValueError("asked to")


def hunger():
    """Ask for more memory than this process may have."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        bytearray(16 * ROOM)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


FAULTS = {function.__name__: function for function in (hang, spin, kill, leave, complain, hunger)}


@dataclasses.dataclass(frozen=True)
class Mood:
    """What goes wrong: the fault's name and whether only once (the path is not there yet), seconds per request."""

    fault: str = ""
    mark: str = ""
    nap: float = 0.0
    always: bool = False

    @classmethod
    def told(cls):
        word, _, when = os.environ.get("MISBEHAVE", "").partition(" ")
        mark = os.environ["MISBEHAVE_MARK"] if when == "once" else ""
        return cls(word, mark, float(os.environ.get("MISBEHAVE_NAP", "0")), when == "always")

    def show(self, request):
        time.sleep(self.nap)
        due = request.split == "calibration" and (
            request.widths[0] == TRIGGER or (self.always and set(request.widths) != {"FP32"})
        )
        if not self.fault or not due or (self.mark and Path(self.mark).exists()):
            return
        if self.mark:
            Path(self.mark).touch()
        FAULTS[self.fault]()


@functools.cache
def network(seed):
    rng = generator_for(seed, 0, "network")
    shapes = ((HIDDEN, FEATURES), (HIDDEN, HIDDEN), (CLASSES, HIDDEN))
    return tuple(rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[1])) for shape in shapes)


def logits(weights, inputs):
    hidden = np.maximum(inputs @ weights[0].T, 0)
    hidden = np.maximum(hidden @ weights[1].T, 0)
    return hidden @ weights[2].T


@functools.cache
def samples(seed, split):
    rng = generator_for(seed, SPLITS.index(split), "data")
    inputs = rng.standard_normal((SAMPLES, FEATURES), dtype=np.float32)
    labels = logits(network(seed), inputs).argmax(axis=1)
    wrong = rng.random(SAMPLES) < 0.1
    return inputs, np.where(wrong, rng.integers(0, CLASSES, SAMPLES), labels)


@dataclasses.dataclass(frozen=True)
class Task:
    """A measured task of three linear layers in NumPy."""

    seed: int
    block: int
    mood: Mood
    name = "misbehaving"
    metric = ACCURACY
    layers = LAYERS
    numeric_environment = "numpy"

    @property
    def model_digest(self):
        return hashlib.sha256(b"".join(w.tobytes() for w in network(self.seed))).hexdigest()

    def payload(self, *, elsewhere=False):
        return {"runtime": "misbehaving", "task": self}

    def blocks(self, split):
        inputs, labels = samples(self.seed, split)
        parts = range(0, SAMPLES, self.block)
        cut = [{"x": inputs[i : i + self.block], "y": labels[i : i + self.block]} for i in parts]
        return tuple(Block(split, i, digest_arrays(part), len(part["y"])) for i, part in enumerate(cut))

    def slices(self, split):
        return None

    def profile(self, menu, measure, signals):
        layers = tuple(
            LayerProfile(
                name=name,
                type="Classifier" if name == "third" else "Linear",
                shape=weight.shape,
                position=i / 2,
                gradient_sensitivity=1.0 - i / 3,
                weight_std=float(weight.std()),
                fisher={p.name: squared_error(weight, fake_quantize(weight, p, 0)) / 100 for p in menu},
                weight_error={p.name: squared_error(weight, fake_quantize(weight, p, 0)) for p in menu},
            )
            for i, (name, weight) in enumerate(zip(LAYERS, network(self.seed), strict=True))
        )
        return ModelProfile(self.name, layers, passes={"fisher": 3.0, "gradient_sensitivity": 0.0})


def start(payload):
    task = payload["task"]

    def outcome(request):
        task.mood.show(request)
        inputs, labels = samples(task.seed, request.split)
        rows = slice(request.block * task.block, (request.block + 1) * task.block)
        quantized = [
            w if width == "FP32" else fake_quantize(w, Precision.parse(width), 0)
            for w, width in zip(network(task.seed), request.widths, strict=True)
        ]
        full, found = logits(network(task.seed), inputs[rows]), logits(quantized, inputs[rows])
        score = (found.argmax(axis=1) == labels[rows]).astype(np.float32)
        return np.stack([score, np.square(full - found).mean(axis=1)], axis=1).astype(np.float32)

    return lambda requests: [outcome(request) for request in requests]


RUNTIMES["misbehaving"] = start


def load(seed, cache, block, batch):
    return Task(seed, block or 100, Mood.told())


def torch_network(seed=0):
    """A PyTorch network of one's own that misbehaves as NETWORK says where its first weights have three values."""
    import torch
    from torch import nn

    from evoquant.models.torch_task import classification

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, CLASSES)

        def forward(self, x):
            hidden = self.first(x).relu()
            if len(self.first.weight[0].unique()) <= 3:
                how = os.environ["NETWORK"]
                if how in ("nan", "inf"):
                    hidden = hidden * float(how)
                else:
                    FAULTS[how]()
            return self.second(hidden)

    made = Network()
    rng = generator_for(seed, 0, "torch network")
    for parameter in made.parameters():
        parameter.data = torch.from_numpy(rng.standard_normal(tuple(parameter.shape), dtype=np.float32))
    splits = {split: samples(seed, split) for split in ("calibration", "selection", "test")}
    return classification(made, **splits)


class Broken:
    """An objective that has no number for anybody (`nan`, `inf`), or raises: `raise` for all, `some` for a few."""

    def __init__(self, how):
        self._how = how

    def score(self, retention, compression, effective_bits):
        if self._how == "raise":
            raise ZeroDivisionError("asked to")
        if self._how == "some" and (retention < 0.5).any():
            raise ZeroDivisionError("asked to")
        return np.full(retention.shape, float(self._how)) if self._how in ("nan", "inf") else compression


if __name__ == "__main__":
    import misbehaving

    from evoquant.cli import main

    TASKS["misbehaving"] = misbehaving.load
    main()
