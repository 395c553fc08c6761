"""ONNX Runtime in a fresh process, as users run it: its own options, all optimizations, one thread."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.export.consumers import Feeds, Loaded, serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

_ERRORS_ONLY = 3
OPTIMIZED = "optimized.onnx"


def load(path: Path, job: Mapping[str, Any], folder: Path) -> Loaded:
    """The model in a session; its optimized graph is saved to `folder`, for it says in what arithmetic it runs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), _options(), providers=["CPUExecutionProvider"])
    inputs = {value.name for value in session.get_inputs()}
    names = list(job["outputs"])
    saved: Any = str(folder / OPTIMIZED)
    try:  # in a session of its own: a graph that cannot be saved can be run
        options = _options()
        options.optimized_model_filepath = saved
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:
        saved = None

    def run(feeds: Feeds) -> list[NDArray[np.generic]]:
        found: list[NDArray[np.generic]] = session.run(names, {k: v for k, v in feeds.items() if k in inputs})
        return found

    return Loaded(run, {"optimized": saved})


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return options


def main(arguments: Sequence[str]) -> int:
    """Do a job; the exit code."""
    import onnxruntime

    return serve(arguments, str(onnxruntime.__version__), load)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
