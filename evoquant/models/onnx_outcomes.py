"""Scores and divergences of samples from the outputs of any runtime, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from evoquant.errors import InputError, raised_by
from evoquant.models.base import DIVERGENCE, SCORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.base import Outcome

Floats: TypeAlias = "NDArray[np.floating[Any]]"
Kind: TypeAlias = Literal["logits", "probabilities", "regression", "embedding"]
KINDS: tuple[Kind, ...] = ("logits", "probabilities", "regression", "embedding")
FLOOR = 1e-12  # of a probability before its logarithm is taken
_CHUNK = 2**20
Score: TypeAlias = Callable[[list["NDArray[np.generic]"], "NDArray[np.generic] | None"], "NDArray[np.generic]"]


@dataclass(frozen=True)
class OwnMetric:
    """A metric of one's own.

    Attributes:
        function: (all outputs of the network for a batch, their targets or None) → `(samples,)` scores; a function of a
            module, since workers import it by name.
        name: for reports: `module:function`.
        lower_is_better: whether retention is FP32 / quantized.
        retention: of (quantized mean score, FP32 mean score), for scores that can be 0 or negative.
    """

    function: Score
    name: str
    lower_is_better: bool = False
    retention: Callable[[float, float], float] | None = None


@dataclass(frozen=True)
class Scoring:
    """How outputs become outcomes.

    Attributes:
        metric: accuracy, agreement, r2, perplexity, cosine, or the name of an own one.
        kind: what the scored output is.
        output: its index among the network's outputs.
        class_axis: −1, or 1 where each sample's classes come before its positions.
        variance: of each output's targets, or one for all; for `r2` and for the divergence of a regression.
        own: scores of an own metric.
    """

    metric: str
    kind: Kind
    output: int = 0
    class_axis: int = -1
    variance: tuple[float, ...] = (1.0,)
    own: OwnMetric | None = None

    def arranged(self, output: NDArray[np.generic]) -> NDArray[np.generic]:
        """Classes last; one value a sample is what speaks for class 1 against class 0."""
        if self.kind not in ("logits", "probabilities"):
            return output
        if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1):
            one = output.reshape(-1, 1)
            other = np.zeros_like(one) if self.kind == "logits" else 1 - one
            return np.concatenate([other, one], axis=1)
        return output if self.class_axis == -1 else np.moveaxis(output, self.class_axis, -1)


def outcomes(
    scoring: Scoring,
    outputs: list[NDArray[np.generic]],
    reference: NDArray[np.generic],
    targets: NDArray[np.generic] | None,
    mask: NDArray[np.generic] | None,
) -> Outcome:
    """`(samples, 2)` float32 scores and divergences.

    Args:
        scoring: how.
        outputs: of the quantized network.
        reference: the FP32 network's scored output.
        targets: `(samples, …)` classes, values or what an own metric takes.
        mask: `(samples, T)`, above 0 where a position of a sequence counts; all do without one.

    Raises:
        InputError: an own metric does not give one finite number per sample.
    """
    output, reference = scoring.arranged(np.asarray(outputs[scoring.output])), scoring.arranged(reference)
    if targets is not None and targets.ndim > 1 and targets[0].size == 1 and output.ndim == 2:
        targets = targets.reshape(len(targets))
    result = np.empty((len(output), 2), dtype=np.float32)
    rows = max(1, _CHUNK * len(output) // max(output.size, 1))
    for start in range(0, len(output), rows):  # a language model's distributions are large in float64
        here = slice(start, start + rows)
        weights = _weights(output[here], targets, mask, here)
        result[here, DIVERGENCE] = divergence(scoring, output[here], reference[here], weights)
        if scoring.own is None:
            own = None if targets is None else targets[here]
            result[here, SCORE] = _score(scoring, output[here], reference[here], own, weights)
    if scoring.own is not None:
        result[:, SCORE] = _own_scores(scoring, outputs, targets, len(output))
    return result


def divergence(
    scoring: Scoring, output: NDArray[np.generic], reference: NDArray[np.generic], weights: Floats
) -> Floats:
    """`(samples,)` float64: KL(FP32 ‖ quantized) in nats, half the squared error per variance, or 1 − cosine.

    Args:
        scoring: its `kind` says which.
        output: `(samples, …, classes)`, of the quantized network.
        reference: the FP32 network's, of the same shape.
        weights: `(samples, positions)`, how much each position of a sample counts.
    """
    if scoring.kind in ("logits", "probabilities"):
        p, q = log_probabilities(reference, scoring.kind), log_probabilities(output, scoring.kind)
        each: Floats = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)
        return _mean(each, weights)
    a, b = _flat(output), _flat(reference)
    if scoring.kind == "regression":
        return np.asarray(0.5 * (np.square(a - b) / scoring.variance).mean(axis=1))
    return np.asarray(np.maximum(1.0 - _cosine(a, b), 0.0))


def log_probabilities(output: NDArray[np.generic], kind: Kind) -> Floats:
    """Float64 logarithms of the distributions over the last axis."""
    values = output.astype(np.float64)
    if kind == "probabilities":
        values = np.maximum(values, FLOOR)
        return np.asarray(np.log(values / values.sum(axis=-1, keepdims=True)))
    shifted = values - values.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _score(
    scoring: Scoring,
    output: NDArray[np.generic],
    reference: NDArray[np.generic],
    targets: NDArray[np.generic] | None,
    weights: Floats,
) -> Floats:
    if scoring.metric == "agreement":
        return _mean(output.argmax(axis=-1) == reference.argmax(axis=-1), weights)
    if scoring.metric == "cosine":
        return _cosine(_flat(output), _flat(reference if targets is None else targets))
    if scoring.metric == "r2":
        truth = _flat(reference if targets is None else targets)
        return np.asarray(1.0 - (np.square(_flat(output) - truth) / scoring.variance).mean(axis=1))
    assert targets is not None
    if scoring.metric == "accuracy":
        return _mean(output.argmax(axis=-1) == targets, weights)
    classes = np.maximum(targets, 0)[..., None].astype(np.int64)
    negative = -np.take_along_axis(log_probabilities(output, scoring.kind), classes, axis=-1)[..., 0]
    return _mean(negative, weights)


def _own_scores(
    scoring: Scoring, outputs: Sequence[NDArray[np.generic]], targets: NDArray[np.generic] | None, samples: int
) -> Floats:
    assert scoring.own is not None
    try:
        scores = np.asarray(scoring.own.function(list(outputs), targets))
    except Exception as error:  # whatever somebody's own code may raise
        raise InputError(f"metric {scoring.metric!r} raised {raised_by(error)}") from error
    if scores.shape != (samples,) or scores.dtype.kind not in "fiub" or not np.isfinite(scores).all():
        raise InputError(
            f"metric {scoring.metric!r} gave {scores.dtype} of shape {scores.shape} for {samples} samples; it gives "
            "one finite number per sample."
        )
    return scores.astype(np.float64)


def _weights(
    output: NDArray[np.generic],
    targets: NDArray[np.generic] | None,
    mask: NDArray[np.generic] | None,
    here: slice,
) -> Floats:
    """`(samples, positions)`: 0 where a target is negative or the mask is 0, 1 elsewhere."""
    positions = output.shape[1:-1]
    weights = np.ones((len(output), *positions))
    if targets is not None and targets.shape[1:] == positions and targets.dtype.kind in "iu":
        weights = weights * (targets[here].astype(np.int64) >= 0)
    if mask is not None and mask.shape[1:] == positions:
        weights = weights * (mask[here].astype(np.float64) > 0)
    return weights.reshape(len(output), -1)


def _mean(values: NDArray[np.generic], weights: Floats) -> Floats:
    """Weighted mean over the positions of each sample; 0 where none counts."""
    flat = _flat(values)
    return np.asarray((flat * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0))


def _flat(values: NDArray[np.generic]) -> Floats:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def _cosine(a: Floats, b: Floats) -> Floats:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0))
