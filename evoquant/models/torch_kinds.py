"""What a network's outputs mean, kind by kind: scores, divergences, and the draws that Fisher costs are made of.

Imports PyTorch; itself it is imported where a network is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from evoquant.errors import InputError, raised_by
from evoquant.models.torch_data import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.models.base import Outcome
    from evoquant.models.torch_task import Kind, OwnMetric


@dataclass(frozen=True, eq=False)
class Expected:
    """The FP32 network's outputs, with what every outcome needs of them.

    Attributes:
        outputs: of a batch.
        log_p, p: `(samples, positions, classes)` float64 of classes, else None.
        certain: whether no class has a probability of 0.
    """

    outputs: torch.Tensor
    log_p: torch.Tensor | None = None
    p: torch.Tensor | None = None
    certain: bool = False

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return sum(t.numel() * t.element_size() for t in (self.outputs, self.log_p, self.p) if t is not None)


@dataclass(frozen=True, eq=False)
class Judge:
    """Turns outputs into outcomes, losses and draws.

    Attributes:
        kind: what the outputs are.
        variance: `(1,)` or `(outputs,)` of a regression's targets.
        own: a metric of one's own.
    """

    kind: Kind
    variance: NDArray[np.float64] | None = None
    own: OwnMetric | None = None

    def check(self, outputs: torch.Tensor, samples: int, targets: NDArray[np.generic] | None) -> None:
        """Whether the outputs and the targets of so many samples go together.

        Raises:
            InputError: they do not; the message names the shapes.
        """
        shape = tuple(outputs.shape)
        least = {"embedding": 2, "language": 3}.get(self.kind, 1)
        if len(shape) < least or shape[0] != samples or (self.kind == "language" and len(shape) != 3):
            wanted = {"embedding": "(samples, …, D)", "language": "(samples, T, vocabulary)"}
            raise InputError(
                f"for {samples} samples the network returned outputs of shape {shape}; {self.kind} needs "
                f"{wanted.get(self.kind, '(samples, …)')}, one row a sample."
            )
        if targets is None or self.kind == "embedding":
            return
        fits = (
            outputs.numel() == targets.size
            if self.kind == "regression"
            else _flat(targets).shape == self._logits(outputs).shape[:2]
        )
        if not fits:
            raise InputError(f"outputs of shape {shape} do not fit targets of shape {targets.shape}.")

    def check_labels(self, outputs: torch.Tensor, targets: NDArray[np.generic], split: str) -> None:
        """Whether all labels are classes that the network knows.

        Raises:
            InputError: one is not; the message names the split and the label.
        """
        if self.kind not in ("classification", "language"):
            return
        classes = self._logits(outputs).shape[2]
        labels = targets.astype(np.int64)
        strange = labels[((labels < 0) | (labels >= classes)) & (labels != IGNORED)]
        if strange.size:
            raise InputError(f"{split}: has a label {int(strange[0])}; the network knows classes 0 to {classes - 1}.")

    def expected(self, reference: torch.Tensor) -> Expected:
        """The FP32 network's outputs, made ready for many outcomes."""
        if self.kind not in ("classification", "language"):
            return Expected(reference)
        log_p = torch.log_softmax(self._logits(reference).double(), dim=2)
        p = log_p.exp()
        return Expected(reference, log_p, p, bool((p > 0).all()))

    def outcome(
        self, outputs: torch.Tensor, reference: torch.Tensor | Expected, targets: NDArray[np.generic] | None
    ) -> Outcome | None:
        """`(samples, 2)` scores and divergences of outputs from the FP32 network's; None where one is not finite."""
        if outputs.numel() and not float(outputs.amax()) < torch.inf:  # a NaN is the largest of all
            return None
        known = reference if isinstance(reference, Expected) else self.expected(reference)
        reference = known.outputs
        if self.kind in ("classification", "language"):
            scores, divergences = self._categorical(outputs, known, targets)
        elif self.kind == "regression":
            scores, divergences = self._regression(outputs, reference, targets)
        else:
            ours, fp32 = (functional.normalize(x.double(), dim=-1) for x in (outputs, reference))
            distances = (ours - fp32).square().sum(dim=-1) / 2  # 1 − cosine, and exactly 0 for equal outputs
            divergences = distances.reshape(len(outputs), -1).mean(dim=1).numpy()
            scores = 1.0 - divergences
        if self.own is not None:
            own = None if targets is None else targets.copy()  # it may write into what it gets
            try:
                scores = np.asarray(self.own.function(outputs.numpy().copy(), own), dtype=np.float64)
            except Exception as error:  # whatever somebody's own code may raise
                raise InputError(f"metric {self.own.name!r} raised {raised_by(error)}") from error
            if scores.shape != (len(outputs),):
                raise InputError(f"metric {self.own.name!r} gave scores {scores.shape} for {len(outputs)} samples.")
        both: Outcome = np.stack([scores, np.maximum(divergences, 0.0)], axis=1).astype(np.float32)
        return both if np.isfinite(both).all() else None

    def loss(self, outputs: torch.Tensor, targets: NDArray[np.generic]) -> torch.Tensor:
        """`(samples,)` negative log likelihood of the targets in nats, mean over a sample's scored positions."""
        if self.kind == "regression":
            assert self.variance is not None
            scale = torch.from_numpy(self.variance.astype(np.float32))
            difference = outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
            return ((difference - torch.from_numpy(_flat(targets))) ** 2 / scale).mean(dim=1) / 2
        nll, scored = self._likelihoods(outputs, targets)
        return (nll * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1)

    def noise(self, output: torch.Tensor, samples: int, rng: np.random.Generator) -> torch.Tensor:
        """What `score` draws with, row by row: a uniform number per position of a class, a sign per value.

        Args:
            output: of one sample.
            samples: rows.
            rng: the stream.
        """
        if self.kind in ("classification", "language"):
            return torch.from_numpy(rng.random((samples, self._logits(output).shape[1])))
        signs = rng.integers(0, 2, (samples, *output.shape[1:]), dtype=np.int8)
        return torch.from_numpy(signs).to(torch.float32) * 2 - 1

    def score(self, outputs: torch.Tensor, noise: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
        """`(samples,)` h with ½ · E (∇h · Δ)² = the divergence that a small change Δ of the weights makes, in nats.

        Classes: h = Σ −log p(drawn) / √positions over the scored positions, each class drawn from p by the inverse of
        its distribution function. The draws of different positions are independent and their scores have mean 0, so
        cross terms vanish and what remains is the mean of the positions' Fisher terms. Values: h = Σ ±ŷ / √(v ·
        outputs), since the score (y − ŷ) / v of a Gaussian with variance v has variance 1 / v, which the two values
        ±1/√v have too, without spread in their square. Embeddings: h = Σ ±ê over the normalised ê, as 1 − cos =
        ½‖ê' − ê‖²; here too the mean over positions.

        Args:
            outputs: of the network.
            noise: rows of `noise`.
            targets: only to know which positions are scored.
        """
        count = len(outputs)
        if self.kind in ("classification", "language"):
            logs = torch.log_softmax(self._logits(outputs), dim=2)
            cumulated = logs.detach().double().exp().cumsum(dim=2)
            drawn = (cumulated < noise[:, :, None]).sum(dim=2).clamp(max=logs.shape[2] - 1)
            nll = -logs.gather(2, drawn[:, :, None])[:, :, 0]
            scored = torch.ones_like(nll) if targets is None else (targets.reshape(count, -1) != IGNORED).to(nll.dtype)
            return (nll * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1).sqrt()
        if self.kind == "regression":
            assert self.variance is not None
            scale = torch.from_numpy(np.sqrt(self.variance).astype(np.float32))
            values = (noise * outputs).reshape(count, -1) / scale
            return values.sum(dim=1) / math.sqrt(values.shape[1])
        products = (noise * functional.normalize(outputs, dim=-1)).sum(dim=-1).reshape(count, -1)
        return products.sum(dim=1) / math.sqrt(products.shape[1])

    def _logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """`(samples, positions, classes)`; one logit a sample is that of class 1 against class 0."""
        if self.kind == "language":
            return outputs
        if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
            ones = outputs.reshape(-1, 1)
            return torch.stack([torch.zeros_like(ones), ones], dim=2)
        return outputs.movedim(1, -1).flatten(1, -2) if outputs.ndim > 2 else outputs[:, None]

    def _likelihoods(self, outputs: torch.Tensor, targets: NDArray[np.generic]) -> tuple[torch.Tensor, torch.Tensor]:
        """`(samples, positions)` negative log likelihoods, and which positions are scored."""
        labels = torch.from_numpy(_flat(targets).astype(np.int64))
        scored = labels != IGNORED
        logs = torch.log_softmax(self._logits(outputs), dim=2)
        return -logs.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0], scored

    def _categorical(
        self, outputs: torch.Tensor, reference: Expected, targets: NDArray[np.generic] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assert reference.log_p is not None and reference.p is not None
        logits = self._logits(outputs).double()
        log_q = torch.log_softmax(logits, dim=2)
        products = (reference.log_p - log_q).mul_(reference.p)
        terms = (products if reference.certain else torch.where(reference.p > 0, products, 0.0)).sum(dim=2)
        if targets is None:
            labels = self._logits(reference.outputs).double().argmax(dim=2)
        else:
            labels = torch.from_numpy(_flat(targets).astype(np.int64))
        scored = labels != IGNORED
        counts = scored.sum(dim=1).clamp(min=1)
        if self.kind == "language":
            values = -log_q.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0]
        else:
            values = (logits.argmax(dim=2) == labels).double()
        scores = (torch.where(scored, values, 0.0)).sum(dim=1) / counts
        return scores.numpy(), (torch.where(scored, terms, 0.0).sum(dim=1) / counts).numpy()

    def _regression(
        self, outputs: torch.Tensor, reference: torch.Tensor, targets: NDArray[np.generic] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assert targets is not None and self.variance is not None
        values, fp32, truth = (_flat(a).astype(np.float64) for a in (outputs.numpy(), reference.numpy(), targets))
        scores = 1.0 - ((truth - values) ** 2 / self.variance).mean(axis=1)
        return scores, ((values - fp32) ** 2 / self.variance).mean(axis=1) / 2.0


def _flat(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """`(samples, positions)`."""
    return np.ascontiguousarray(array.reshape(len(array), -1))
