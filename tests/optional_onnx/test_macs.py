"""Multiply-accumulates of a sample, from the shapes of a graph."""

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from evoquant.campaign.build_measured import bare_profile
from evoquant.models.onnx_task import load_onnx_task
from evoquant.quantization.precision import Menu
from tests.optional_onnx.models import MODELS


def macs_of(name, **options):
    model, data = MODELS[name]()
    task = load_onnx_task(model.SerializeToString(), data, name=name, block=8, batch=4, **options)
    return {layer.name: layer.macs for layer in bare_profile(task, Menu.parse(["FP32"])).layers}


def test_convolutions_and_products():
    found = macs_of("cnn")
    assert found["conv"] == 4 * 6 * 6 * 2 * 9
    assert found["up"] == 4 * 6 * 6 * 6 * 2 * 2
    assert found["head"] == 6 * 5
    attention = macs_of("transformer")
    assert attention["tokens"] == 0
    assert attention["attn.q"] == 5 * 8 * 8


def test_what_shapes_do_not_say_is_not_known():
    assert set(macs_of("branches", kind="regression").values()) == {None}
