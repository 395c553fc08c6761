"""Large networks: profiled within a stated memory, and never held twice.

The largest takes a minute and 4 GB: `EVOQUANT_LARGE=1 python -m pytest tests/optional_torch/test_torch_large.py`.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

# Peak beyond what the process has with PyTorch loaded, for weights of w bytes: w for the network, at most 1.5 w for a
# measured allocation and its cache, or as much for what the Fisher cost needs; and what small networks need, too.
PEAK_OF_WEIGHTS, PEAK_BYTES = 2.75, 700 << 20

SCRIPT = """
import json, resource, sys, time
import numpy as np, torch
from torch import nn
from evoquant.models.base import Request
from evoquant.models.measurer import start_measurer
from evoquant.models.torch_task import embedding
from evoquant.quantization.precision import Menu

width, depth, table, samples = map(int, sys.argv[1:])
torch.set_num_threads(1)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(table, width)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x

tokens = lambda n: (np.arange(n * 4) % table).reshape(n, 4)
before, start = peak(), time.perf_counter()
network = Deep()
built = time.perf_counter()
task = embedding(network, calibration=tokens(samples), selection=tokens(4), test=tokens(2))
measure = start_measurer(task.payload())
menu = Menu.parse(["INT2-channel", "INT4-channel", "INT8-channel", "FP16"])
profile = task.profile(menu, measure, ("fisher", "activation_range"))
profiled = time.perf_counter()
fisher = peak()
widths = [menu.names[i % 4] for i in range(depth + 1)]
(first,) = measure([Request(tuple(widths), "gate", 0)])
(second,) = measure([Request(tuple(widths[::-1]), "gate", 0)])
print(json.dumps({
    "layers": len(profile.layers), "weights": profile.parameters, "passes": dict(profile.passes),
    "peak": peak() - before, "peak_profile": fisher - before, "build_s": built - start, "profile_s": profiled - built,
    "measure_s": time.perf_counter() - profiled, "same": measure._network is network,
    "fisher": min(layer.fisher["INT2-channel"] for layer in profile.layers), "finite": bool(np.isfinite(first).all()),
}))
"""


def run(width, depth, table, samples):
    command = [sys.executable, "-c", SCRIPT, *map(str, (width, depth, table, samples))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"] and found["finite"] and found["fisher"] > 0
    limit = PEAK_OF_WEIGHTS * 4 * found["weights"] + PEAK_BYTES
    assert found["peak"] < limit, f"{found['peak'] / 4 / found['weights']:.2f} times the weights: {found}"
    return found


def test_a_thousand_layers():
    found = run(width=32, depth=999, table=50, samples=16)
    assert found["layers"] == 1000


@pytest.mark.long
def test_thirty_million_weights():
    assert run(width=1024, depth=20, table=10_000, samples=8)["weights"] > 30e6


@pytest.mark.slow
@pytest.mark.skipif("EVOQUANT_LARGE" not in os.environ, reason="takes 4 GB; set EVOQUANT_LARGE=1")
def test_three_hundred_million_weights():
    assert run(width=4096, depth=16, table=8_000, samples=8)["weights"] > 300e6
