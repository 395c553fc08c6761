"""OpenVINO in a fresh process: its CPU plugin in float32, one thread; and what its own settings would be here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.export.consumers import Feeds, Loaded, serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Without these the plugin may compute in BF16 and round activations to INT8, as the machine allows."""


def load(path: Path, job: Mapping[str, Any], _: Path) -> Loaded:
    """The model compiled with `EXACT`; facts are the settings in force, and what they would be without it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    compiled = core.compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": 1})
    defaults = _settings(core.compile_model(model, "CPU"))
    inputs = {name: port.get_any_name() for port in compiled.inputs for name in port.get_names()}
    places = _places(compiled, job["outputs"])

    def run(feeds: Feeds) -> list[NDArray[np.generic]]:
        results = compiled({inputs[name]: array for name, array in feeds.items() if name in inputs})
        return [results[place].copy() for place in places]

    return Loaded(run, {"settings": _settings(compiled), "defaults": defaults})


def _places(compiled: Any, outputs: Sequence[str]) -> list[int]:
    """Index of each output by its name; by its place where a single one has lost it."""
    found = []
    for name in outputs:
        index = next((i for i, port in enumerate(compiled.outputs) if name in port.get_names()), None)
        if index is None:
            if len(outputs) > 1 or len(compiled.outputs) > 1:
                known = ", ".join(sorted(n for port in compiled.outputs for n in port.get_names()))
                raise ValueError(f"no output {name!r}; the model has {known}")
            index = 0
        found.append(index)
    return found


def _settings(compiled: Any) -> dict[str, Any]:
    precision = compiled.get_property("INFERENCE_PRECISION_HINT")
    return {
        "precision": precision.get_type_name(),
        "dynamic_quantization_group": int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")),
    }


def main(arguments: Sequence[str]) -> int:
    """Do a job; the exit code."""
    import openvino

    return serve(arguments, str(openvino.__version__), load)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
