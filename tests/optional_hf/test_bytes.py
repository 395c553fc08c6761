"""Packed bytes of a small Llama against its checkpoint and its GGUF file."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evoquant.models.hf import require_transformers
from evoquant.models.networks import build_network
from evoquant.models.torch_task import language_model
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from tests.optional_torch.exported import counted_and_stored

require_transformers("these tests")

SIZES = {"vocabulary": 320, "length": 64, "width": 64, "heads": 4, "key_value_heads": 2, "hidden": 96, "depth": 1}
MENUS = {
    "compressed-tensors": [
        *(f"INT{bits}-{part}" for bits in (2, 3, 4, 8) for part in ("channel", "g32")),
        "FP8-channel",
    ],
    "gguf": ["INT4-g32", "INT8-g32", "FP16"],
}


def llama():
    network = build_network({"kind": "llama", "begin": 1, "end": 2, **SIZES})
    rng = generator_for(0, 0, "test weights")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)).astype(np.float32)))
    tokens = rng.integers(3, 256, (6, 8))
    return language_model(network, calibration=tokens, selection=tokens, test=tokens, block=3, batch=3)


@pytest.mark.parametrize("target", MENUS)
def test_bytes_are_those_of_the_file(target, tmp_path):
    pytest.importorskip({"gguf": "gguf"}.get(target, "compressed_tensors"))
    menu = Menu.parse([*MENUS[target], "FP32"])
    for widths, counted, stored in counted_and_stored(llama(), menu, target, tmp_path, 3):
        assert counted == stored, widths
