"""The ONNX side of `scale_memory`: a large network made in code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evoquant.rng import generator_for

if TYPE_CHECKING:
    from evoquant.models.onnx_task import OnnxTask


def large_onnx_task(width: int, layers: int) -> OnnxTask:
    """`layers` matrix products, `width` wide, with drawn weights, and a little data."""
    from onnx import TensorProto, helper, numpy_helper

    from evoquant.models.onnx_task import load_onnx_task

    rng = generator_for(0, 0, "large network")
    values = ["x", *(f"y{i}" for i in range(layers))]
    nodes = [
        helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]], name=f"/{i}/MatMul") for i in range(layers)
    ]
    held = [
        numpy_helper.from_array(
            (rng.standard_normal((width, width), dtype=np.float32) / np.float32(np.sqrt(width))), f"w{i}"
        )
        for i in range(layers)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in (values[0], values[-1])]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = rng.standard_normal((64, width), dtype=np.float32)
    data = {f"{split}.x": x for split in ("calibration", "selection", "test")}
    return load_onnx_task(model.SerializeToString(), data, kind="regression", block=64, batch=64, name="large")
