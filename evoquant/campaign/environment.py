"""What a run was made with: versions and machine, for provenance and for explaining a difference."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from evoquant.errors import shown_value

MOST_SHOWN = 12  # differences
PACKAGES = ("evoquant", "numpy", "deap", "ray", "pydantic", "torch", "scikit-learn", "onnx", "onnxruntime")
SEARCHERS = ("pymoo", "optuna", "ribs")  # other versions of these ask for other candidates


def environment_record(**more: Any) -> dict[str, Any]:
    """Plain data: Python, package versions, machine, and whatever the caller adds."""
    versions: dict[str, str | None] = {}
    for package in (*PACKAGES, *SEARCHERS):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "packages": versions,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor_features": _features(),
        "cpus": os.cpu_count(),
        **more,
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two records, in one line."""
    found = []
    for key in sorted({*then, *now}):
        before, after = then.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            if inner := differences(before, after).removeprefix("nothing"):
                found.append(inner)
        elif before != after:
            found.append(f"{_shown(key)} was {_shown(before)}, is {_shown(after)}")
    more = [f"and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
    return "; ".join([*found[:MOST_SHOWN], *more]) or "nothing"


def _shown(value: Any) -> str:
    """As it is, where that is a line of moderate length: the file may have been changed."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 100 else shown_value(value, 100)


def _features() -> str:
    """The vector features NumPy dispatches on, since the last bit of exp depends on them."""
    import numpy as np

    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return " ".join(sorted(found))
