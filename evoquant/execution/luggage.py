"""What a cluster's nodes are sent, so that they need neither evoquant nor the user's code: Ray's runtime environment.

Packages that stand in an installation (NumPy, PyTorch) are not sent: each node has its own.
"""

from __future__ import annotations

import json
import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OURS = "evoquant"
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the driver of a submitted job
_INSTALLED = ("site-packages", "dist-packages")
_NOT_CODE = ("__main__", "__mp_main__")


def environment(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The runtime environment with which a cluster is joined.

    In a submitted job the code is there already: what the job was submitted with, workers get, too.

    Args:
        given: of the config; its `py_modules` go with ours.
    """
    whole = dict(given or {})
    if "py_modules" in submitted_with():
        return whole
    whole["py_modules"] = [*code_paths(), *whole.get("py_modules", ())]
    return whole


def submitted_with() -> dict[str, Any]:
    """The runtime environment of the submitted job that this process belongs to; {} where it belongs to none."""
    try:
        told = json.loads(os.environ.get(JOB, "{}"))
        found = told.get("runtime_env") or {}
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def code_paths() -> list[str]:
    """Folders and files of evoquant, and of what this process has imported from outside of any installation.

    That is the user's own code: a `module:Class` of a config and the modules beside it that it imports.
    """
    ours = Path(__file__).resolve().parents[1]
    paths = [str(ours)]
    for name in sorted({name.partition(".")[0] for name in list(sys.modules)}):
        if name == OURS or name in _NOT_CODE or name in sys.stdlib_module_names:
            continue
        place = _place_of(sys.modules.get(name))
        if place is not None and not _installed(place):
            paths.append(str(place))
    return list(dict.fromkeys(paths))


def _place_of(module: Any) -> Path | None:
    """The folder of a package, the .py file of a module; None where it is neither."""
    folders = list(getattr(module, "__path__", ()))
    if len(folders) == 1:
        place = Path(folders[0])
        return place if place.is_dir() else None
    file = getattr(module, "__file__", None)
    if folders or not isinstance(file, str) or not file.endswith(".py"):
        return None
    return Path(file) if Path(file).is_file() else None


def _installed(place: Path) -> bool:
    return any(part in _INSTALLED for part in place.parts) or any(
        place.is_relative_to(folder) for folder in _installations()
    )


def _installations() -> Iterable[str]:
    paths = sysconfig.get_paths()
    yield from (paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from site.getsitepackages()
    yield site.getusersitepackages()
