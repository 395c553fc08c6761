"""What the outputs of a network mean, from the options, the targets and the FP32 network's first batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError, suggestion
from evoquant.models.onnx_outcomes import KINDS, Kind, OwnMetric, Score, Scoring
from evoquant.scoring.statistics import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDS_TARGETS = ("accuracy", "perplexity")
_CLOSE = 1e-3


def own_metric(function: Score) -> OwnMetric:
    """A function as a metric: its attributes `lower_is_better` and `retention` count where it has them."""
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', 'metric')}"
    lower = bool(getattr(function, "lower_is_better", False))
    return OwnMetric(function, name, lower, getattr(function, "retention", None))


def decide(
    output: int,
    metric: str | OwnMetric | None,
    kind: Kind | None,
    first: NDArray[np.generic],
    targets: NDArray[np.generic] | None,
    source: str,
) -> Scoring:
    """The scoring of a task; what is None is inferred.

    Args:
        output: index of the scored output.
        metric: name of a metric, or one's own.
        kind: what the scored output is.
        first: the scored output of the FP32 network's first batch.
        targets: of the calibration split.
        source: what messages call the model and its output.

    Raises:
        InputError: metric, kind, output and targets contradict each other.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"{source}: unknown kind of output {kind!r}.{suggestion(kind, KINDS)}")
    if isinstance(metric, str) and metric not in METRICS:
        raise InputError(f"{source}: unknown metric {metric!r}.{suggestion(metric, METRICS)}")
    if first.dtype.kind != "f" or first.ndim == 0:
        raise InputError(f"{source}: the output is {first.dtype} of shape {first.shape}; choose one of floats.")
    whole = targets is not None and targets.dtype.kind in "iub"
    if metric is None and targets is not None:
        metric = "r2" if not whole or kind == "regression" else "accuracy"
    kind = kind or _kind_of(first, metric)
    if metric in (None, "agreement"):
        metric = {"embedding": "cosine", "regression": "r2"}.get(kind, "agreement")
        targets = None
    if metric in NEEDS_TARGETS and targets is None:
        raise InputError(f"{source}: {metric} needs targets; add an array `targets` to the data, or use agreement.")
    own = metric if isinstance(metric, OwnMetric) else None
    name = own.name if own is not None else str(metric)
    scoring = Scoring(name, kind, output, own=own)
    if kind == "regression":
        values = (first if targets is None else targets).astype(np.float64)
        variance = values.reshape(len(values), -1).var(axis=0)
        variance = variance.mean(keepdims=True) if targets is None else variance
        if not (variance > 0).all():
            raise InputError(f"{source}: a target has the same value on every sample, so R² has no scale.")
        scoring = replace(scoring, variance=tuple(variance.tolist()))
    return scoring if own is not None or targets is None else _fitting(scoring, first, targets, source)


def _kind_of(output: NDArray[np.generic], metric: str | OwnMetric | None) -> Kind:
    """Probabilities where the output sums to 1 (or is one number in [0, 1]); an embedding where its length is 1."""
    if metric in ("cosine", "r2"):
        return "embedding" if metric == "cosine" else "regression"
    values = output.astype(np.float64)
    single = output.ndim == 1 or output.shape[-1] == 1
    shares = bool((values >= 0).all()) and bool((values <= 1 + _CLOSE).all())
    if shares and (single or np.allclose(values.sum(axis=-1), 1.0, atol=_CLOSE)):
        return "probabilities"
    if metric not in NEEDS_TARGETS and output.ndim == 2 and not single:
        return "embedding" if np.allclose(np.linalg.norm(values, axis=-1), 1.0, atol=_CLOSE) else "logits"
    return "logits"


def _fitting(scoring: Scoring, output: NDArray[np.generic], targets: NDArray[np.generic], source: str) -> Scoring:
    """The scoring with the axis of classes that the targets' shape asks for.

    Raises:
        InputError: outputs and targets do not go together.
    """
    if scoring.metric in NEEDS_TARGETS:
        if targets.dtype.kind not in "iub":
            raise InputError(f"{source}: {scoring.metric} needs whole-numbered targets; they are {targets.dtype}.")
        inner = _sizes(targets.shape[1:])
        if output.ndim > 2 and inner != _sizes(output.shape[1:-1]) and inner == _sizes(output.shape[2:]):
            scoring = replace(scoring, class_axis=1)
        arranged = scoring.arranged(output)
        if inner != _sizes(arranged.shape[1:-1]):
            raise InputError(f"{source}: {output.shape} does not fit targets {targets.shape}: one class per position.")
        if int(targets.max()) >= arranged.shape[-1]:
            raise InputError(f"{source}: targets hold class {int(targets.max())}; there are {arranged.shape[-1]}.")
    elif math.prod(output.shape[1:]) != math.prod(targets.shape[1:]):
        raise InputError(f"{source}: {output.shape} does not fit targets {targets.shape}; make them equal.")
    return scoring


def _sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of one entry do not count."""
    return tuple(size for size in shape if size != 1)
