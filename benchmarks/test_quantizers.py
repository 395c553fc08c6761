"""One weight of 4096 × 4096 quantized: the NumPy reference and the path on tensors, one thread each.

python -m pytest benchmarks/test_quantizers.py   (the table shows each mean, and its ratio to the fastest of its group)
"""

import numpy as np
import pytest

from evoquant.models.torch import one_thread
from evoquant.models.torch_quantize import fake_quantize_tensor
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision

torch = pytest.importorskip("torch")

NAMES = ("INT4-channel", "INT4-g128-asym", "NF4-g64", "FP8-channel", "INT4-channel-mse", "INT4-g32-asym-mse")
ROUNDS = 3


@pytest.fixture(scope="module")
def weight():
    return np.random.Generator(np.random.Philox(0)).standard_normal((4096, 4096), dtype=np.float32) * np.float32(0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["numpy", "torch"])
def test_quantizer(benchmark, weight, name, way):
    benchmark.group = name
    precision = Precision.parse(name)
    tensor = torch.from_numpy(weight)
    with one_thread():
        if way == "numpy":
            benchmark.pedantic(fake_quantize, (weight, precision, 0), rounds=ROUNDS)
        else:
            found = benchmark.pedantic(fake_quantize_tensor, (tensor, precision, 0), rounds=ROUNDS, warmup_rounds=1)
            assert np.array_equal(found.numpy().view(np.uint32), fake_quantize(weight, precision, 0).view(np.uint32))
