"""Deployed models in this process, ready to be called again and again: for measuring how long a call takes.

Settings are those in which a model computes what was measured, as `verify` has them, with as many threads as asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeAlias

from evoquant.errors import InputError, raised_by, suggestion
from evoquant.export.consumers.table import consumer_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evoquant.export.recipe import Recipe
    from evoquant.models.deployable import Graph

Feeds: TypeAlias = Mapping[str, "NDArray[np.generic]"]
Call: TypeAlias = Callable[[], object]
_ERRORS_ONLY = 3
_PLAIN = ("Parameter", "Result", "Constant", "Input", "Output", "Const", "Reorder", "Convert", "Reshape", "Transpose")


class Runner:
    """A model with its inputs.

    Attributes:
        call: one forward pass.
        kernels: what computes, in the runtime's own words.
        stored: bytes of all codes, scales and floats in its file.
    """

    def __init__(self, call: Call, kernels: str, stored: int) -> None:
        self.call = call
        self.kernels = kernels
        self.stored = stored


def _onnx(recipe: Recipe, graph: Graph, feeds: Feeds, threads: int) -> Runner:
    from evoquant.export.as_onnx import onnx_model

    return _in_onnxruntime(onnx_model(graph, recipe), feeds, threads)


def _matmulnbits(recipe: Recipe, graph: Graph, feeds: Feeds, threads: int) -> Runner:
    from evoquant.export.as_matmulnbits import matmulnbits_model

    return _in_onnxruntime(matmulnbits_model(graph, recipe), feeds, threads)


def _in_onnxruntime(model: Any, feeds: Feeds, threads: int) -> Runner:
    import onnxruntime

    from evoquant.export.as_onnx import float_bytes

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    given = {name: array for name, array in feeds.items() if name in names}
    kinds = [node.op_type for node in model.graph.node]
    kernels = " + ".join(dict.fromkeys(kind for kind in kinds if kind not in ("Identity", "Cast", *_PLAIN)))
    return Runner(lambda: session.run(None, given), kernels, float_bytes(model))


def _openvino(recipe: Recipe, graph: Graph, feeds: Feeds, threads: int) -> Runner:
    import openvino

    from evoquant.export.as_openvino import EXACT, constant_bytes, openvino_model

    model = openvino_model(graph, recipe)
    compiled = openvino.Core().compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    ports = {name: port for port in compiled.inputs for name in port.get_names()}
    given = {
        ports[name].get_any_name(): array.reshape(()) if not len(ports[name].get_partial_shape()) else array
        for name, array in feeds.items()
        if name in ports
    }
    kernels = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        about = node.get_rt_info()
        if "layerType" in about and about["layerType"].value not in _PLAIN:
            kernels.append(f"{about['layerType'].value} {about['primitiveType'].value}")
    return Runner(
        lambda: request.infer(given, share_inputs=True, share_outputs=True),
        " + ".join(dict.fromkeys(kernels)),
        constant_bytes(model),
    )


RUNNERS: dict[str, Callable[[Recipe, Graph, Feeds, int], Runner]] = {
    "openvino": _openvino,
    "onnx-matmulnbits": _matmulnbits,
    "onnx": _onnx,
}
"""Target → what makes its models ready; its latency can be measured here."""
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "onnx-matmulnbits": "onnxruntime"}


def require_runner(target: str) -> None:
    """Whether a target's latency can be measured here.

    Raises:
        InputError: it cannot.
        MissingExtraError: its packages are not installed.
    """
    if target not in RUNNERS:
        raise InputError(
            f"--to {target}: its latency is not measured here.{suggestion(target, RUNNERS)} Measure it on the "
            f"device and name your own table: cost: {{kind: table, file: mine.csv}}."
        )
    consumer_of(target)


def runtime_of(target: str) -> str:
    """The runtime with its version: `openvino 2026.4.1`."""
    return f"{PACKAGES[target]} {metadata.version(PACKAGES[target])}"


def runner(target: str, recipe: Recipe, graph: Graph, feeds: Feeds, threads: int) -> Runner:
    """A model of a recipe, ready to be called.

    Args:
        target: a key of `RUNNERS`.
        recipe: with its numbers.
        graph: the network, or a part of it; it is changed.
        feeds: of its inputs.
        threads: that compute.

    Raises:
        InputError: the target cannot take the recipe, or its runtime cannot load or run it.
    """
    try:
        made = RUNNERS[target](recipe, graph, feeds, threads)
        made.call()
    except InputError:
        raise
    except Exception as error:  # the runtimes' own classes
        raise InputError(f"{recipe.model}: {target} does not run it: {raised_by(error)[:500]}") from None
    return made
