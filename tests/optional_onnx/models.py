"""Small ONNX models that have what real ones have; each comes with arrays to run it on."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES = 48


def tensor(rng, name, *shape, scale=1.0, mean=0.0):
    return numpy_helper.from_array((rng.standard_normal(shape) * scale + mean).astype(np.float32), name)


def constant(rng, name, *shape, scale=1.0):
    return helper.make_node("Constant", [], [name], value=tensor(rng, name, *shape, scale=scale))


def build(nodes, initializers, inputs, outputs, opset=17):
    def info(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(nodes, "g", [info(*i) for i in inputs], [info(*o) for o in outputs], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def cnn():
    """Conv, BatchNormalization, a grouped and a transposed convolution, Gemm; opset 17, free batch."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], name="/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c", "norm.weight", "norm.bias", "mean", "var"], ["n"], name="/norm/BN"
        ),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "depth.weight"], ["d"], name="/depth/Conv", group=4, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["d", "up.weight"], ["u"], name="/up/ConvTranspose", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["u"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["logits"], name="/head/Gemm", transB=1),
    ]
    initializers = [
        tensor(rng, "conv.weight", 4, 2, 3, 3),
        tensor(rng, "norm.weight", 4, mean=1.0, scale=0.3),
        tensor(rng, "norm.bias", 4),
        tensor(rng, "mean", 4, scale=0.1),
        numpy_helper.from_array(np.array([0.5, 1, 2, 1.5], dtype=np.float32), "var"),
        tensor(rng, "depth.weight", 4, 1, 3, 3),
        tensor(rng, "up.weight", 4, 6, 2, 2),
        tensor(rng, "head.weight", 5, 6),
        tensor(rng, "head.bias", 5, scale=0.1),
    ]
    model = build(
        nodes, initializers, [("x", TensorProto.FLOAT, ["N", 2, 6, 6])], [("logits", TensorProto.FLOAT, ["N", 5])]
    )
    data = {
        "x": np.random.default_rng(1).standard_normal((SAMPLES, 2, 6, 6)).astype(np.float32),
        "labels": np.random.default_rng(2).integers(0, 5, SAMPLES),
    }
    return model, data


def transformer():
    """int32 tokens, a tied embedding, q, k, v as Constant MatMuls, norms spelled out, a fixed batch, probabilities."""
    rng = np.random.default_rng(3)
    d, t, v, b = 8, 5, 11, 4
    one = lambda name, value: numpy_helper.from_array(np.array(value, dtype=np.float32), name)  # noqa: E731

    def norm(x, y, scale):
        return [
            helper.make_node("ReduceMean", [x], [f"{y}_m"], axes=[-1]),
            helper.make_node("Sub", [x, f"{y}_m"], [f"{y}_s"]),
            helper.make_node("Pow", [f"{y}_s", "two"], [f"{y}_p"]),
            helper.make_node("ReduceMean", [f"{y}_p"], [f"{y}_v"], axes=[-1]),
            helper.make_node("Add", [f"{y}_v", "eps"], [f"{y}_e"]),
            helper.make_node("Sqrt", [f"{y}_e"], [f"{y}_r"]),
            helper.make_node("Div", [f"{y}_s", f"{y}_r"], [f"{y}_d"]),
            helper.make_node("Mul", [f"{y}_d", scale], [y], name=f"/{y}/Mul"),
        ]

    nodes = [
        helper.make_node("Gather", ["tokens.weight", "ids"], ["e"], name="/tokens/Gather"),
        *norm("e", "n", "norm1.weight"),
        *(constant(rng, f"w{k}", d, d, scale=0.8) for k in "qkv"),
        *(helper.make_node("MatMul", ["n", f"w{k}"], [k], name=f"/attn/{k}/MatMul") for k in "qkv"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["a"], axis=-1),
        helper.make_node("MatMul", ["a", "v"], ["mixed"]),
        helper.make_node("Add", ["e", "mixed"], ["h"]),
        *norm("h", "n2", "norm2.weight"),
        helper.make_node("Transpose", ["tokens.weight"], ["tt"], perm=[1, 0]),
        helper.make_node("MatMul", ["n2", "tt"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=-1),
    ]
    initializers = [
        tensor(rng, "tokens.weight", v, d),
        tensor(rng, "norm1.weight", d, mean=1.0, scale=0.3),
        tensor(rng, "norm2.weight", d, mean=1.0, scale=0.3),
        one("two", 2.0),
        one("eps", 1e-5),
    ]
    model = build(nodes, initializers, [("ids", TensorProto.INT32, [b, t])], [("probs", TensorProto.FLOAT, [b, t, v])])
    rng = np.random.default_rng(4)
    return model, {"ids": rng.integers(0, v, (SAMPLES + 3, t)), "targets": rng.integers(0, v, (SAMPLES + 3, t))}


def recurrent_in_branches():
    """An LSTM within the branches of If, one with weights of its own, one with the outer graph's; a rate as scalar."""
    rng = np.random.default_rng(5)
    h, i = 4, 3

    def branch(name, w, extra):
        lstm = helper.make_node("LSTM", ["seq", w, "R"], ["", f"{name}_h"], name=f"/{name}/LSTM", hidden_size=h)
        squeeze = helper.make_node("Squeeze", [f"{name}_h", "zero"], [f"{name}_out"])
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([lstm, squeeze], name, [], [out], extra)

    nodes = [
        helper.make_node("Transpose", ["x"], ["seq"], perm=[1, 0, 2]),
        helper.make_node("Greater", ["rate", "limit"], ["fast"]),
        helper.make_node(
            "If",
            ["fast"],
            ["state"],
            then_branch=branch("fast", "W", [tensor(rng, "W", 1, 4 * h, i)]),
            else_branch=branch("slow", "W_slow", []),
        ),
        helper.make_node("MatMul", ["head", "state_t"], ["out_t"], name="/out/MatMul"),
        helper.make_node("Transpose", ["out_t"], ["y"]),
    ]
    nodes.insert(3, helper.make_node("Transpose", ["state"], ["state_t"]))
    initializers = [
        tensor(rng, "R", 1, 4 * h, h),
        tensor(rng, "W_slow", 1, 4 * h, i),
        tensor(rng, "head", 2, h),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "zero"),
        numpy_helper.from_array(np.array(1000, dtype=np.int64), "limit"),
    ]
    inputs = [("x", TensorProto.FLOAT, ["N", "T", i]), ("rate", TensorProto.INT64, [])]
    model = build(nodes, initializers, inputs, [("y", TensorProto.FLOAT, ["N", 2])])
    rng = np.random.default_rng(6)
    return model, {"x": rng.standard_normal((SAMPLES, 6, i)).astype(np.float64), "rate": np.array(16000)}


MODELS = {"cnn": cnn, "transformer": transformer, "branches": recurrent_in_branches}
TENSORS = {  # layer → the tensor that it is, in the model as built
    "cnn": {
        "conv": "conv.weight",
        "norm": "norm.weight",
        "depth": "depth.weight",
        "up": "up.weight",
        "head": "head.weight",
    },
    "transformer": {
        "tokens": "tokens.weight",
        "norm1": "norm1.weight",
        "attn.q": "wq",
        "attn.k": "wk",
        "attn.v": "wv",
        "norm2": "norm2.weight",
    },
    "branches": {"slow.W": "W_slow", "slow.R": "R", "fast": "W", "out": "head"},
}
