"""ONNX models with what few have: functions, sequences, loops over them, several outputs, weights that are computed."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.optional_onnx.models import SAMPLES, build, tensor


def _x(*shape):
    return {"x": np.random.default_rng(1).standard_normal((SAMPLES, *shape)).astype(np.float32)}


def _info(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def convolutions():
    """Convolutions whose weight is computed of constants, which onnxruntime runs in layouts of its own."""
    rng = np.random.default_rng(20)
    nodes = [
        helper.make_node("Mul", ["computed", "gain"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "mid.weight"], ["c"], name="/mid/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Mul", ["computed2", "gain"], ["w2"]),
        helper.make_node("Conv", ["d", "w2"], ["e"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("MaxPool", ["f"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "head.weight"], ["y"], name="/head/Gemm", transB=1),
    ]
    held = [
        tensor(rng, "computed", 32, 16, 3, 3, scale=0.1),
        tensor(rng, "computed2", 16, 32, 3, 3, scale=0.1),
        numpy_helper.from_array(np.array([0.7], dtype=np.float32), "gain"),
        tensor(rng, "mid.weight", 32, 32, 3, 3, scale=0.1),
        tensor(rng, "head.weight", 5, 16 * 16, scale=0.1),
    ]
    model = build(nodes, held, [("x", TensorProto.FLOAT, ["N", 16, 8, 8])], [("y", TensorProto.FLOAT, ["N", 5])])
    return model, _x(16, 8, 8)


def functions():
    """A function of the model's own, called twice; GELU spelled out, a bias, a residual, which are fused."""
    rng = np.random.default_rng(21)
    body = [
        helper.make_node("MatMul", ["a", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["s"]),
        helper.make_node("Constant", [], ["root"], value_float=1.4142135381698608),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Div", ["s", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["f"]),
        helper.make_node("Mul", ["s", "f"], ["g"]),
        helper.make_node("Mul", ["g", "half"], ["c"]),
    ]
    dense = helper.make_function("own", "Dense", ["a", "w", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Dense", ["x", "one.weight", "one.bias"], ["h"], name="/one/Dense", domain="own"),
        helper.make_node("Dense", ["h", "two.weight", "two.bias"], ["k"], name="/two/Dense", domain="own"),
        helper.make_node("Add", ["h", "k"], ["r"]),
        helper.make_node(
            "LayerNormalization", ["r", "norm.weight", "norm.bias"], ["n"], name="/norm/LayerNormalization"
        ),
        helper.make_node("MatMul", ["n", "head"], ["y"], name="/head/MatMul"),
    ]
    held = [tensor(rng, f"{name}.weight", 16, 16, scale=0.3) for name in ("one", "two")]
    held += [tensor(rng, f"{name}.bias", 16, scale=0.3) for name in ("one", "two", "norm")]
    held += [tensor(rng, "norm.weight", 16, scale=0.2, mean=1.0), tensor(rng, "head", 16, 5)]
    graph = helper.make_graph(nodes, "g", [_info("x", shape=["N", 16])], [_info("y", shape=["N", 5])], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[dense])
    onnx.checker.check_model(model)
    return model, _x(16)


def sequences(lists=True):
    """A Loop that gathers what it makes, as a sequence or stacked; a Scan; a weight that both read."""
    rng = np.random.default_rng(22)
    product = helper.make_node("MatMul", ["state", "W"], ["p"], name="/loop/MatMul")
    tanh = helper.make_node("Tanh", ["p"], ["next"])
    still = helper.make_node("Identity", ["go"], ["still"])
    grown = helper.make_node("SequenceInsert", ["seen", "next"], ["more"])
    own, made = (
        [_info("step", TensorProto.INT64, []), _info("go", TensorProto.BOOL, []), _info("state")],
        [
            _info("still", TensorProto.BOOL, []),
            _info("next"),
        ],
    )
    sequence = lambda name: helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)  # noqa: E731
    if lists:
        body = helper.make_graph(
            [product, tanh, still, grown], "body", [*own, sequence("seen")], [*made, sequence("more")]
        )
        looped = [
            helper.make_node("SequenceEmpty", [], ["none"]),
            helper.make_node("Loop", ["times", "", "x", "none"], ["last", "all"], body=body),
            helper.make_node("MatMul", ["last", "V"], ["z"], name="/between/MatMul"),
            helper.make_node("ConcatFromSequence", ["all"], ["stack"], axis=1, new_axis=1),
        ]
    else:
        body = helper.make_graph(
            [product, tanh, still, helper.make_node("Identity", ["next"], ["row"])], "body", own, [*made, _info("row")]
        )
        looped = [
            helper.make_node("Loop", ["times", "", "x"], ["last", "all"], body=body),
            helper.make_node("MatMul", ["last", "V"], ["z"], name="/between/MatMul"),
            helper.make_node("Transpose", ["all"], ["stack"], perm=[1, 0, 2]),
        ]
    step = helper.make_graph(
        [
            helper.make_node("MatMul", ["one", "W"], ["q"], name="/scan/MatMul"),
            helper.make_node("Add", ["sum", "q"], ["total"]),
            helper.make_node("Identity", ["total"], ["seen_total"]),
        ],
        "step",
        [_info("sum"), _info("one")],
        [_info("total", shape=["N", 8]), _info("seen_total", shape=["N", 8])],
    )
    nodes = [
        *looped,
        helper.make_node("Scan", ["z", "stack"], ["end", "ends"], body=step, num_scan_inputs=1, scan_input_axes=[1]),
        helper.make_node("Add", ["end", "z"], ["y"]),
    ]
    held = [
        tensor(rng, "W", 8, 8, scale=0.4),
        tensor(rng, "V", 8, 8, scale=0.4),
        numpy_helper.from_array(np.array(3, dtype=np.int64), "times"),
    ]
    model = build(nodes, held, [("x", TensorProto.FLOAT, ["N", 8])], [("y", TensorProto.FLOAT, ["N", 8])])
    return model, _x(8)


def stacked():
    """`sequences` without a sequence."""
    return sequences(lists=False)


def outputs():
    """Several outputs, some of which are read on, one a constant; two inputs, one a number."""
    rng = np.random.default_rng(23)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="/a/MatMul"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["s"], name="/b/MatMul"),
        helper.make_node("Add", ["s", "x"], ["m"]),
        helper.make_node("Mul", ["m", "scale"], ["n"]),
        helper.make_node("MatMul", ["n", "c"], ["y"], name="/c/MatMul"),
        helper.make_node("Neg", ["always"], ["never"]),
    ]
    held = [tensor(rng, name, 8, 8, scale=0.4) for name in "abc"]
    held.append(numpy_helper.from_array(np.array(2.5, dtype=np.float32), "always"))
    inputs = [("x", TensorProto.FLOAT, ["N", 8]), ("scale", TensorProto.FLOAT, [])]
    ends = [(name, TensorProto.FLOAT, ["N", 8]) for name in ("y", "h", "m")]
    ends.append(("never", TensorProto.FLOAT, []))
    return build(nodes, held, inputs, ends), {**_x(8), "scale": np.array(0.5, np.float32)}


def constants():
    """A large constant, computed and so no layer, that products on both sides of each layer read."""
    rng = np.random.default_rng(24)
    nodes = [helper.make_node("Mul", ["mixing", "gain"], ["mix"])]
    for i in range(3):
        nodes += [
            helper.make_node("MatMul", ["mix", "x" if i == 0 else f"r{i - 1}"], [f"a{i}"]),
            helper.make_node("MatMul", [f"a{i}", "mix"], [f"b{i}"]),
            helper.make_node("MatMul", [f"b{i}", f"w{i}"], [f"c{i}"], name=f"/l{i}/MatMul"),
            helper.make_node("Tanh", [f"c{i}"], [f"r{i}"]),
        ]
    held = [tensor(rng, f"w{i}", 300, 300, scale=0.05) for i in range(3)]
    held.append(tensor(rng, "mixing", 300, 300, scale=0.05))
    held.append(numpy_helper.from_array(np.array([0.7], dtype=np.float32), "gain"))
    ends = [("r2", TensorProto.FLOAT, ["N", 300, 300])]
    model = build(nodes, held, [("x", TensorProto.FLOAT, ["N", 300, 300])], ends)
    return model, {"x": np.random.default_rng(1).standard_normal((12, 300, 300)).astype(np.float32)}


ODD = {
    "convolutions": convolutions,
    "functions": functions,
    "sequences": sequences,
    "stacked": stacked,
    "outputs": outputs,
    "constants": constants,
}
