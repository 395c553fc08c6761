"""onnxruntime's sessions as every ONNX network is run: one thread, the same numbers each time."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

_ERRORS_ONLY = 3


def require_onnx(what: str) -> None:
    """Check that onnx and onnxruntime are installed; `what` names who needs them.

    Raises:
        MissingExtraError: one is not.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtraError(what, "onnx and onnxruntime", "onnx") from None
    del onnx


def open_session(
    model: bytes,
    source: str,
    *,
    optimized: Path | None = None,
    as_it_is: bool = False,
) -> onnxruntime.InferenceSession:
    """One thread, no memory arena (many sessions would exhaust a machine), deterministic kernels.

    Args:
        model: a graph.
        source: what messages call it.
        optimized: file for what onnxruntime makes of the graph before it runs it.
        as_it_is: whether the graph is run without being optimized.

    Raises:
        InputError: onnxruntime cannot run the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if as_it_is:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes
        text = " ".join(str(error).split())[:500]
        raise InputError(f"{source}: onnxruntime {onnxruntime.__version__} cannot run the model: {text}") from None


def numeric_environment(batch: int) -> str:
    """What may change the last bit of a forward pass in batches of `batch`: versions, CPU features, threads."""
    import onnxruntime

    features: Any = np.show_config(mode="dicts")
    found = ",".join(features.get("SIMD Extensions", {}).get("found", []))
    return (
        f"onnxruntime {onnxruntime.__version__}; {platform.machine()} {found}; threads 1; batch {batch}; "
        f"numpy {np.__version__}"
    )
