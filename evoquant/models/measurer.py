"""Where measuring begins in a worker: a literal table from a payload's runtime to the measurer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.models.base import Measure


def _torch(payload: dict[str, Any]) -> Measure:
    from evoquant.models.torch import start_measurer as start

    return start(payload)


def _onnx(payload: dict[str, Any]) -> Measure:
    from evoquant.models.onnx_measurer import start_measurer as start

    return start(payload)


RUNTIMES: dict[str, Callable[[dict[str, Any]], Measure]] = {"torch": _torch, "onnx": _onnx}


def start_measurer(payload: dict[str, Any]) -> Measure:
    """Rebuild network and data, once per worker; the function that comes back answers requests.

    Raises:
        InputError: the payload is damaged.
        MissingExtraError: what the runtime needs is not installed.
    """
    return RUNTIMES[payload["runtime"]](payload)
