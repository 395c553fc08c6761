"""`tiny`: a measured task of three linear layers in NumPy; real passes of really quantized weights, in microseconds."""

import dataclasses
import functools
import hashlib

import numpy as np
import pytest

from evoquant.models.arrays import digest_arrays
from evoquant.models.base import SPLITS, Block, Failed
from evoquant.models.measurer import RUNTIMES
from evoquant.models.tasks import TASKS
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.error import squared_error
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision
from evoquant.rng import generator_for
from evoquant.scoring.statistics import ACCURACY

CLASSES, FEATURES, HIDDEN, SAMPLES = 4, 12, 16, 600
LAYERS = ("first", "second", "third")


@functools.cache
def network(seed):
    rng = generator_for(seed, 0, "tiny network")
    shapes = ((HIDDEN, FEATURES), (HIDDEN, HIDDEN), (CLASSES, HIDDEN))
    return tuple(rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[1])) for shape in shapes)


def logits(weights, inputs):
    hidden = np.maximum(inputs @ weights[0].T, 0)
    hidden = np.maximum(hidden @ weights[1].T, 0)
    return hidden @ weights[2].T


@functools.cache
def samples(seed, split):
    rng = generator_for(seed, SPLITS.index(split), "tiny data")
    inputs = rng.standard_normal((SAMPLES, FEATURES), dtype=np.float32)
    labels = logits(network(seed), inputs).argmax(axis=1)
    wrong = rng.random(SAMPLES) < 0.1
    return inputs, np.where(wrong, rng.integers(0, CLASSES, SAMPLES), labels)


@dataclasses.dataclass(frozen=True)
class TinyTask:
    seed: int
    block: int
    calls: list = dataclasses.field(default_factory=list, compare=False)  # what was really measured
    name = "tiny"
    metric = ACCURACY
    layers = LAYERS
    numeric_environment = "numpy"

    @property
    def model_digest(self):
        return hashlib.sha256(b"".join(w.tobytes() for w in network(self.seed))).hexdigest()

    def payload(self, *, elsewhere=False):
        return {"runtime": "tiny", "task": self}

    def blocks(self, split):
        inputs, labels = samples(self.seed, split)
        parts = range(0, SAMPLES, self.block)
        cut = [{"x": inputs[i : i + self.block], "y": labels[i : i + self.block]} for i in parts]
        return tuple(Block(split, i, digest_arrays(part), len(part["y"])) for i, part in enumerate(cut))

    def slices(self, split):
        return tuple(f"class {label}" for label in samples(self.seed, split)[1])

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
        task.calls.append(request)
        inputs, labels = samples(task.seed, request.split)
        rows = slice(request.block * task.block, (request.block + 1) * task.block)
        quantized = [
            w if width == "FP32" else fake_quantize(w, Precision.parse(width), 0)
            for w, width in zip(network(task.seed), request.widths, strict=True)
        ]
        if request.widths[0] == "FP16" and request.block == 1 and request.split == "calibration":
            return Failed("raised:ValueError", "the test's network does not take FP16 in its first layer")
        found = logits(quantized, inputs[rows])
        score = (found.argmax(axis=1) == labels[rows]).astype(np.float32)
        full = logits(network(task.seed), inputs[rows])
        return np.stack([score, np.square(full - found).mean(axis=1)], axis=1).astype(np.float32)

    return lambda requests: [outcome(request) for request in requests]


@pytest.fixture
def tiny(monkeypatch):
    """The task by its name; returns the tasks that were made of it, each with its `calls`."""
    made = []

    def load(seed, cache, block, batch):
        made.append(TinyTask(seed, block or 100))
        return made[-1]

    monkeypatch.setitem(TASKS, "tiny", load)
    monkeypatch.setitem(RUNTIMES, "tiny", start)
    return made
